"""What all tests share: only the closing lines about parts of the system that were not there."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.parts import REASON


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each part that tests were skipped for, so that a green run cannot hide what it did not test."""
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    missing = Counter(reason.partition(REASON)[2] for reason in reasons if REASON in reason)
    for part, count in sorted(missing.items()):
        terminalreporter.write_line(f"not tested without {part}: {count} test{'s' if count > 1 else ''}", yellow=True)
