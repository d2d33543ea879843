"""What all tests share: only the closing lines about parts of the system that were not there."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import settings

from tests.support.parts import REASON

# In CI the same examples each time: a submission is judged by what it changed. Elsewhere every run searches anew.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each part that tests were skipped for, so that a green run cannot hide what it did not test."""
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    missing = Counter(reason.partition(REASON)[2] for reason in reasons if REASON in reason)
    for part, count in sorted(missing.items()):
        terminalreporter.write_line(f"not tested without {part}: {count} test{'s' if count > 1 else ''}", yellow=True)
