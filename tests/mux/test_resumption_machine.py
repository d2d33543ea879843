"""The resumption machine: the real core and switch in a network that does its worst, and then becomes good.

Each byte comes once and in order; buffers are bounded; each OPEN is served at most once; no stream is reset if the
network becomes good in time; and in the end nothing is remembered. Most steps are random walks, which cost little;
hypothesis looks for what is rare. CONNECT_TEST_WALKS=<number> walks for hours, from a seed that is printed;
`python -m tests.support.walks <seed> 1` shows and shortens one.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support import walks
from tests.support.examples import examples
from tests.support.steps import ARGUMENTS, SETTING, Steps, heal, run, setting_of
from tests.support.tiny import tiny

WALKS = os.environ.get("CONNECT_TEST_WALKS")


def test_fifty_thousand_steps() -> None:
    assert walks.search(0, 600) > 50_000


def test_fifty_thousand_steps_with_hours_between_them() -> None:
    assert walks.search(0, 600, "hours") > 50_000


@pytest.mark.skipif(not WALKS, reason="CONNECT_TEST_WALKS=<number> walks further")
def test_as_many_walks_as_wanted() -> None:
    first = random.SystemRandom().randrange(1 << 40)
    walks.search(first, int(WALKS or 0))
    walks.search(first, int(WALKS or 0), "hours")


class ResumptionMachine(RuleBasedStateMachine):
    """The same steps, chosen and shortened by hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = tiny()
        self.tiny.__enter__()
        self.steps: Steps | None = None

    @initialize(**{name: st.integers(*bounds) for name, bounds in SETTING.items()})
    def start(self, **numbers: int) -> None:
        self.steps = Steps(setting_of(numbers))

    def teardown(self) -> None:
        try:
            if self.steps is not None:
                heal(self.steps)
        finally:
            self.tiny.__exit__(None, None, None)


def _step(name: str) -> Any:
    def step(self: ResumptionMachine, **numbers: int) -> None:
        assert self.steps is not None
        run((name, numbers), self.steps)

    step.__name__ = name
    chosen = rule(**{argument: st.integers(*bounds) for argument, bounds in ARGUMENTS[name].items()})(step)
    return precondition(lambda self: self.steps is not None)(chosen)


for _name in ARGUMENTS:
    setattr(ResumptionMachine, _name, _step(_name))
ResumptionMachine.TestCase.settings = examples(60, steps=60)
TestResumption = ResumptionMachine.TestCase
