"""The resumption machine: the real core and switch in a network that does its worst, and then becomes good.

Each byte comes once and in order; buffers are bounded; each OPEN is served at most once; no stream is reset if the
network becomes good in time; and in the end nothing is remembered. Most steps are random walks, which cost little;
hypothesis looks for what is rare. CONNECT_TEST_WALKS=<number> walks for hours, from a seed that is printed;
`python -m tests.support.walks <seed> 1` shows and shortens one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.support import walks
from tests.support.examples import examples
from tests.support.steps import ARGUMENTS, SETTING, Steps, heal, run, setting_of
from tests.support.tiny import tiny

WALKS = os.environ.get("CONNECT_TEST_WALKS")


@pytest.mark.parametrize("world", walks.WORLDS)
def test_fifty_thousand_steps(world: str) -> None:
    """honest: nothing is given up; hours: so much time passes that streams are; lying: some peers do not play fair."""
    assert walks.search(0, 600, world) > 50_000


@pytest.mark.skipif(not WALKS, reason="CONNECT_TEST_WALKS=<number> walks further")
@pytest.mark.parametrize("world", walks.WORLDS)
def test_as_many_walks_as_wanted(world: str) -> None:
    walks.search(random.SystemRandom().randrange(1 << 40), int(WALKS or 0), world)


def chosen(ranges: dict[str, tuple[int, int]]) -> dict[str, Any]:
    return {name: st.integers(*bounds) for name, bounds in ranges.items()}


class ResumptionMachine(RuleBasedStateMachine):
    """The same steps, chosen and shortened by hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = tiny()
        self.tiny.__enter__()
        self.steps: Steps | None = None

    @initialize(streams=st.integers(0, 2), **chosen(SETTING))
    def start(self, streams: int, **numbers: int) -> None:
        self.steps = Steps(setting_of(numbers))
        for index in range(streams):
            self.steps.net.opened(index)

    def teardown(self) -> None:
        try:
            if self.steps is not None:
                heal(self.steps)
        finally:
            self.tiny.__exit__(None, None, None)


def _step(name: str) -> object:
    def step(self: ResumptionMachine, **numbers: int) -> None:
        assert self.steps is not None
        run((name, numbers), self.steps)

    step.__name__ = name
    decorate: Callable[[Callable[..., None]], object] = rule(**chosen(ARGUMENTS[name]))
    return decorate(step)


for _name in ARGUMENTS:
    setattr(ResumptionMachine, _name, _step(_name))
ResumptionMachine.TestCase.settings = examples(150, steps=60)
TestResumption = ResumptionMachine.TestCase
