"""What all tests share: who runs which, and the closing lines about parts of the system that were not there."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from connect_trio import ports
from tests.support.parts import REASON

BEGUN = time.time()
STACKS = ("tests/e2e/", "tests/benchmarks/", "tests/roles/test_dev_command.py")
"""Whole stacks, which are started one after the other: each has a dozen processes, and what they do takes its time."""

# In CI the same examples each time: a submission is judged by what it changed. Elsewhere every run searches anew.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Of several workers each takes free ports of its own: what was free a moment ago is not to be another's now.

    The processes of a stack take theirs from a range that is nobody's else.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        first = 10_000 + 1_000 * (int(worker.removeprefix("gw")) % 10)
        ports.PORTS = range(first, first + 1_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers share the tests, what takes longest comes first."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not item.nodeid.startswith(STACKS))


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests are one worker's, in their order, and so are all that start stacks."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "stacks" if file.startswith(STACKS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell_what_was_measured(terminalreporter)
    tell_what_is_missing(terminalreporter)


def tell_what_was_measured(terminalreporter: pytest.TerminalReporter) -> None:
    """How long faults have held visitors up, as tests/e2e has measured beside its tests."""
    from tests.support import survival  # which takes a second, and most runs need none of it

    measured = survival.kept(since=BEGUN)
    if measured:
        terminalreporter.section("survival")
        for line in survival.tables(measured):
            terminalreporter.write_line(line)


def tell_what_is_missing(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each part that tests were skipped for, so that a green run cannot hide what it did not test."""
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    missing = Counter(reason.partition(REASON)[2] for reason in reasons if REASON in reason)
    for part, count in sorted(missing.items()):
        terminalreporter.write_line(f"not tested without {part}: {count} test{'s' if count > 1 else ''}", yellow=True)
