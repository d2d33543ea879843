"""Conversations and transfers go on, whatever part dies that is not the visitor's own proxy: no byte lost, none twice.

How long they pause is told at the end of the run and kept in test-artifacts/survival.json; nothing here asserts it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.e2e import FULL, dev_stack, with_tool
from tests.support.faults import FAULTS, ONLY_SERVER, Fault, Scene, require_cuts
from tests.support.parts import require
from tests.support.survival import TOOL, WAITS, calm, keep, load, pause_all, rounds, told

CONVERSATIONS = 100 if FULL else 20
TRANSFERS = 5 if FULL else 2
LOAD = {"conversations": CONVERSATIONS, "downloads": TRANSFERS, "uploads": TRANSFERS, "interval": 0.1}
STOPPED = 0.5
"""Seconds, far less than a peer may be silent."""

CALM = 5.0 if FULL else 1.0
ONE_SERVER = ("--processes", "--servers", "1", "--proxies", "2", "--", *TOOL)


def repetitions(fault: Fault) -> int:
    return 20 if FULL else 2 if fault.visible else 1


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A stack with two servers and two proxies."""
    require("redis-server")
    root = tmp_path_factory.mktemp("survival")
    with dev_stack(*with_tool("processes", TOOL), root=root, name="survival", waits=WAITS) as stack:
        yield Scene(stack, stack.private["id"])


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A stack with one server."""
    require("redis-server")
    root = tmp_path_factory.mktemp("survival-lone")
    with dev_stack(*ONE_SERVER, root=root, name="survival-lone", waits=WAITS) as stack:
        yield Scene(stack, stack.private["id"])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_nothing_breaks_with_two_servers(pair: Scene, fault: Fault) -> None:
    survive(pair, fault, "two servers")


def test_nothing_breaks_when_the_only_server_dies(lone: Scene) -> None:
    survive(lone, ONLY_SERVER, "one server")


def test_nothing_breaks_without_a_fault(pair: Scene) -> None:
    """Which shows that what breaks elsewhere is no fault of the load's."""
    with load(
        pair.stack, "survival-calm", conversations=CONVERSATIONS, downloads=TRANSFERS, uploads=TRANSFERS
    ) as running:
        keep("pauses", calm(running, CALM, stack="two servers").document())
        report = running.finish()
    assert report["messages"] >= CONVERSATIONS
    assert report["bytes"] > 0


def test_a_pause_is_seen_as_long_as_it_was(pair: Scene) -> None:
    """Which shows that short pauses elsewhere are not for want of looking."""
    with load(pair.stack, "survival-stopped", **LOAD) as running:
        measured = pause_all(running, pair, STOPPED, stack="two servers")
        keep("pauses", measured.document())
        running.finish()
    assert len(measured.pauses) == CONVERSATIONS
    assert min(measured.pauses) >= STOPPED


def survive(scene: Scene, fault: Fault, name: str) -> None:
    """Conversations and transfers that span all repetitions of a fault."""
    require("ss")
    if fault.cuts:
        require_cuts()
    log = f"survival-{name}-{fault.name}"
    with load(scene.stack, log, **LOAD) as running:
        measured, broken = rounds(running, scene, fault, repetitions(fault), stack=name)
        keep("pauses", measured.document())
        if broken:
            pytest.fail(told(broken), pytrace=False)
        running.finish()
