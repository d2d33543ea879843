"""Named deadlines, against a model that keeps a plain dictionary and looks at all of it each time."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connect_trio.mux import timers
from connect_trio.mux.timers import Timers
from tests.support.examples import examples


def test_what_is_due_happens_once_and_in_order() -> None:
    wheel = Timers()
    done: list[str] = []
    wheel.at("b", 2.0, lambda now: done.append("b"))
    wheel.at("a", 1.0, lambda now: done.append("a"))
    wheel.at("c", 3.0, lambda now: done.append("c"))
    for now in (0.5, 2.5, 2.6):
        wheel.run(now)
    assert done == ["a", "b"]
    assert wheel.deadline() == 3.0
    assert "c" in wheel
    assert "a" not in wheel


def test_setting_a_timer_again_replaces_it_whichever_way_it_was_set() -> None:
    wheel = Timers()
    done: list[str] = []
    wheel.at("key", 1.0, lambda now: done.append("first"))
    wheel.after("key", 5.0, lambda now: done.append("second"))
    wheel.run(2.0)
    wheel.at("key", 3.0, lambda now: done.append("third"))
    wheel.run(100.0)
    assert done == ["third"]
    assert not wheel


def test_a_cancelled_timer_never_happens() -> None:
    wheel = Timers()
    wheel.at("at", 1.0, lambda now: pytest.fail("was cancelled"))
    wheel.after("after", 1.0, lambda now: pytest.fail("was cancelled"))
    for key in ("at", "after", "never set"):
        wheel.cancel(key)
    assert wheel.deadline() is None
    wheel.run(0.0)
    wheel.run(10.0)
    assert not wheel


def test_those_who_do_not_know_the_time_are_served_from_the_next_run_on() -> None:
    wheel = Timers()
    done: list[float] = []
    wheel.after("key", 5.0, done.append)
    assert wheel.deadline() == 0.0
    wheel.run(100.0)
    assert wheel.deadline() == 105.0
    wheel.run(105.0)
    assert done == [105.0]


def test_whoever_keeps_the_clock_is_told_of_what_may_come_first() -> None:
    wheel = Timers()
    told: list[float] = []
    wheel.alarm = told.append
    wheel.at("a", 7.0, lambda now: None)
    wheel.after("b", 5.0, lambda now: None)
    wheel.run(1.0)
    assert told == [7.0, 0.0, 6.0]


def test_an_action_may_set_and_cancel_timers_of_the_same_moment() -> None:
    wheel = Timers()
    done: list[str] = []

    def first(now: float) -> None:
        done.append("first")
        wheel.cancel("second")
        wheel.at("third", now, lambda now: done.append("third"))
        wheel.at("first", now + 1, lambda now: done.append("again"))

    wheel.at("first", 1.0, first)
    wheel.at("second", 1.0, lambda now: pytest.fail("was cancelled"))
    wheel.run(1.0)
    assert done == ["first", "third"]
    assert wheel.deadline() == 2.0


def test_timers_that_are_set_again_and_again_do_not_pile_up() -> None:
    wheel = Timers()
    done: list[float] = []
    for at in range(20 * timers._SLACK):
        wheel.at("key", 1000.0 + at, done.append)
    assert len(wheel._heap) <= timers._SLACK + 3
    wheel.run(1e9)
    assert done == [1e9]


KEYS = st.integers(0, 5)
SECONDS = st.integers(0, 8).map(float)


class TimersMachine(RuleBasedStateMachine):
    """Anything in any order, with hardly any slack in the heap."""

    def __init__(self) -> None:
        super().__init__()
        self._slack, timers._SLACK = timers._SLACK, 2
        self.wheel = Timers()
        self.wheel.alarm = self._alarm
        self.now = 0.0
        self.told = float("inf")
        self.model: dict[int, tuple[float, int]] = {}  # key: due, number
        self.fresh: dict[int, tuple[float, int]] = {}  # key: seconds, number
        self.count = 0
        self.done: list[int] = []

    def teardown(self) -> None:
        timers._SLACK = self._slack

    def _alarm(self, due: float) -> None:
        self.told = min(self.told, due)

    def _next(self) -> int:
        self.count += 1
        return self.count

    @rule(key=KEYS, seconds=SECONDS)
    def at(self, key: int, seconds: float) -> None:
        number = self._next()
        self.fresh.pop(key, None)
        self.model[key] = (self.now + seconds, number)
        self.wheel.at(key, self.now + seconds, lambda now: self.done.append(number))

    @rule(key=KEYS, seconds=SECONDS)
    def after(self, key: int, seconds: float) -> None:
        number = self._next()
        self.model.pop(key, None)
        self.fresh[key] = (seconds, number)
        self.wheel.after(key, seconds, lambda now: self.done.append(number))

    @rule(key=KEYS)
    def cancel(self, key: int) -> None:
        self.model.pop(key, None)
        self.fresh.pop(key, None)
        self.wheel.cancel(key)

    @rule(seconds=SECONDS)
    def run(self, seconds: float) -> None:
        self.now += seconds
        self.model |= {key: (self.now + wait, number) for key, (wait, number) in self.fresh.items()}
        self.fresh.clear()
        due = {key: each for key, each in self.model.items() if each[0] <= self.now}
        self.model = {key: each for key, each in self.model.items() if key not in due}
        self.done.clear()
        self.wheel.run(self.now)
        times = {number: at for at, number in due.values()}
        assert sorted(self.done) == sorted(times)
        assert [times[number] for number in self.done] == sorted(times.values())
        self.told = min((at for at, _ in self.model.values()), default=float("inf"))

    @invariant()
    def agrees(self) -> None:
        first = 0.0 if self.fresh else min((due for due, _ in self.model.values()), default=None)
        assert self.wheel.deadline() == first
        assert first is None or self.told <= first, "the clock would sleep too long"
        assert len(self.wheel) == len(self.model) + len(self.fresh)
        assert all((key in self.wheel) == (key in self.model or key in self.fresh) for key in range(6))


TimersMachine.TestCase.settings = examples(100, steps=40)
TestAnyTimers = TimersMachine.TestCase
