"""Visits: merged per visitor and session, told in time, bounded whatever happens."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connect_trio.identity.activity import ACTIVE_EVERY, LINGER, STILL_THERE, Activity, Presence

WALL = 1_700_000_000.0
ONE = "23ce7967"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    return Activity(clock)


def told(activity: Activity, clock: Clock, limit: int = 500) -> list[dict[str, Any]]:
    return activity.due(limit, wall=WALL + clock.now)


def test_a_visitor_is_told_of_at_once_and_when_they_have_left(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "alice"):
        visit = {"session": ONE, "subject": "alice", "connected_at": WALL + 100, "last_active": WALL + 100}
        assert told(activity, clock) == [{**visit, "disconnected_at": None}]
        assert told(activity, clock) == []
        clock.now += 10
    clock.now += LINGER - 1
    assert told(activity, clock) == []
    clock.now += 1
    assert told(activity, clock) == [{**visit, "last_active": WALL + 110, "disconnected_at": WALL + 110}]
    assert len(activity) == 0


def test_requests_one_after_the_other_are_one_visit(activity: Activity, clock: Clock) -> None:
    found = []
    for _ in range(100):
        with activity.visit(ONE, "alice"):
            clock.now += 1
        clock.now += LINGER - 2
        found += told(activity, clock)
    assert {visit["connected_at"] for visit in found} == {WALL + 100}
    assert all(visit["disconnected_at"] is None for visit in found)


def test_what_is_open_at_once_is_one_visit_until_the_last_of_it_ends(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "alice"):
        with activity.visit(ONE, "alice"), activity.visit(ONE, "alice"):
            pass
        clock.now += 10 * LINGER
        assert [visit["disconnected_at"] for visit in told(activity, clock)] == [None]
        assert len(activity) == 1


def test_visitors_and_sessions_are_told_apart(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "alice"), activity.visit(ONE, "bob"), activity.visit("5f0c1d2e", "alice"):
        found = {(visit["session"], visit["subject"]) for visit in told(activity, clock)}
    assert found == {(ONE, "alice"), (ONE, "bob"), ("5f0c1d2e", "alice")}


def test_who_is_active_is_told_now_and_then_and_who_is_not_more_seldom(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "busy") as busy, activity.visit(ONE, "idle"):
        told(activity, clock)
        names = []
        for _ in range(int(STILL_THERE)):
            clock.now += 1
            busy.touch(clock.now)
            names += [visit["subject"] for visit in told(activity, clock)]
    assert names.count("busy") == STILL_THERE / ACTIVE_EVERY
    assert names.count("idle") == 1


def test_bytes_after_the_end_make_nobody_active(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "alice") as presence:
        pass
    presence.touch(clock.now + 5)
    assert told(activity, clock)[0]["last_active"] == WALL + 100


def test_whoever_comes_back_before_the_end_was_told_has_one_merged_visit(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "alice"):
        pass
    clock.now += 1000  # Platform was away
    with activity.visit(ONE, "alice"):
        assert told(activity, clock) == [
            {
                "session": ONE,
                "subject": "alice",
                "connected_at": WALL + 100,
                "last_active": WALL + 1100,
                "disconnected_at": None,
            }
        ]
    assert activity.counts.merged == 1


def test_a_report_has_a_bound_and_the_rest_comes_next(activity: Activity, clock: Clock) -> None:
    with ExitStack() as stack:
        for number in range(25):
            stack.enter_context(activity.visit(ONE, f"user-{number}"))
        sizes = [len(told(activity, clock, 10)) for _ in range(4)]
    assert sizes == [10, 10, 5, 0]


def test_of_too_many_the_one_that_left_longest_ago_is_forgotten(clock: Clock) -> None:
    activity = Activity(clock, most=2)
    for name in ("first", "second", "third"):
        with activity.visit(ONE, name):
            clock.now += 1
    assert activity.counts.untold == 1
    assert [visit["subject"] for visit in told(activity, clock)] == ["second", "third"]


def test_of_too_many_who_are_all_there_the_last_is_not_counted(clock: Clock) -> None:
    activity = Activity(clock, most=1)
    with activity.visit(ONE, "first"):
        with activity.visit(ONE, "second"), activity.visit(ONE, "second"):
            assert len(activity) == 1
        assert [visit["subject"] for visit in told(activity, clock)] == ["first"]
    assert activity.counts.untold == 2


def test_at_the_end_of_the_process_everybody_has_left(activity: Activity, clock: Clock) -> None:
    with activity.visit(ONE, "here"):
        with activity.visit(ONE, "gone"):
            clock.now += 1
        clock.now += 1
        activity.leave()
        found = activity.due(500, wall=WALL + clock.now, ended=True)
        assert {visit["subject"]: visit["disconnected_at"] for visit in found} == {
            "gone": WALL + 101,
            "here": WALL + 102,
        }
        assert len(activity) == 0
    assert activity.due(500, wall=WALL + clock.now, ended=True) == []


class Visiting(RuleBasedStateMachine):
    """Visitors come and go; a Platform that hears of it all has the right idea of who is there."""

    MOST = 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.activity = Activity(self.clock, most=self.MOST)
        self.open: list[tuple[str, Presence]] = []
        self.platform: dict[str, dict[str, Any]] = {}

    @rule(name=st.sampled_from("abcdef"))
    def comes(self, name: str) -> None:
        self.open.append((name, self.activity.visit(ONE, name).__enter__()))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        _, presence = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        presence.__exit__(None, None, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def is_active(self, data: st.DataObject) -> None:
        self.open[data.draw(st.integers(0, len(self.open) - 1))][1].touch(self.clock.now)

    @rule(seconds=st.sampled_from([0.1, 5.0, LINGER, STILL_THERE, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(limit=st.integers(1, 10))
    def is_told(self, limit: int) -> None:
        visits = told(self.activity, self.clock, limit)
        assert len(visits) <= limit
        for visit in visits:
            times = visit["connected_at"], visit["last_active"], visit["disconnected_at"] or WALL + self.clock.now
            assert list(times) == sorted(times)
            self.platform[visit["subject"]] = visit

    @invariant()
    def nothing_grows(self) -> None:
        assert len(self.activity) <= self.MOST
        assert self.activity.waiting <= len(self.activity)

    def teardown(self) -> None:
        self.clock.now += LINGER
        self.is_told(1000)
        if not self.activity.counts.untold:
            there = {name for name, visit in self.platform.items() if visit["disconnected_at"] is None}
            assert there == {name for name, _ in self.open}
            assert len(self.activity) == len(there)
        self.activity.leave()
        for visit in self.activity.due(1000, wall=WALL + self.clock.now, ended=True):
            assert visit["disconnected_at"] is not None
        assert len(self.activity) == 0
        for _, presence in self.open:
            presence.__exit__(None, None, None)
        assert len(self.activity) == 0


TestVisiting = Visiting.TestCase
