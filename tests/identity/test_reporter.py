"""Reports arrive, each once, whatever Platform does meanwhile; and nobody waits for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from connect_trio.identity.activity import LINGER, Activity
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, ReportRefused
from connect_trio.identity.reporter import INTERVAL, ActivityReporter

ONE = "23ce7967"


class Reports(ControlPlane):
    """A Platform that takes reports. fails: what it does instead. sent: each time a report came; taken: those by id."""

    def __init__(self) -> None:
        self.fails: Callable[[], Exception] | None = None
        self.takes = 0.01
        self.sent: list[tuple[float, str]] = []
        self.taken: dict[str, Mapping[str, Any]] = {}

    async def report(self, report: Mapping[str, Any]) -> None:
        self.sent.append((trio.current_time(), report["id"]))
        await trio.sleep(self.takes)
        if self.fails is not None:
            raise self.fails()
        self.taken.setdefault(report["id"], report)

    @property
    def visits(self) -> list[dict[str, Any]]:
        return [visit for report in self.taken.values() for visit in report["visits"]]


class Reporting:
    def __init__(self) -> None:
        self.platform = Reports()
        self.activity = Activity(trio.current_time)
        self.reporter = ActivityReporter(self.activity, self.platform, reporter="1" * 32)
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            await self.reporter.run()


@pytest.fixture
async def reporting(autojump_clock: MockClock, nursery: trio.Nursery) -> Reporting:
    made = Reporting()
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()  # it has looked once
    return made


def away() -> Exception:
    return PlatformUnavailable("away")


def refused() -> Exception:
    return ReportRefused("no")


async def test_a_visit_is_reported_within_seconds_and_its_end_too(
    autojump_clock: MockClock, reporting: Reporting
) -> None:
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(INTERVAL + 1)
        assert [visit["disconnected_at"] for visit in reporting.platform.visits] == [None]
    await trio.sleep(LINGER + 2 * INTERVAL)
    assert [visit["disconnected_at"] is None for visit in reporting.platform.visits] == [True, False]
    assert reporting.reporter.counts.delivered == 2


async def test_nothing_is_sent_where_nothing_happens(autojump_clock: MockClock, reporting: Reporting) -> None:
    await trio.sleep(3600)
    assert reporting.platform.sent == []


async def test_a_report_that_failed_is_sent_again_under_its_name_and_later_each_time(
    autojump_clock: MockClock, reporting: Reporting
) -> None:
    reporting.platform.fails = away
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(600)
        times, names = zip(*reporting.platform.sent, strict=True)
        pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert len(set(names)) == 1
        assert pauses[0] < 10
        assert 55 < pauses[-1] <= 121
        assert len(names) < 15
        reporting.platform.fails = None
        await trio.sleep(130)
    assert len(reporting.platform.visits) >= 1
    assert reporting.platform.sent[-1][1] == names[0] or names[0] in reporting.platform.taken
    assert reporting.reporter.counts.failures == len(names)


async def test_visits_of_an_outage_are_told_when_it_is_over(autojump_clock: MockClock, reporting: Reporting) -> None:
    reporting.platform.fails = away
    for number in range(2000):
        with reporting.activity.visit(ONE, f"user-{number}"):
            await trio.sleep(1)
    reporting.platform.fails = None
    await trio.sleep(300)
    ended = {visit["subject"] for visit in reporting.platform.visits if visit["disconnected_at"] is not None}
    assert len(ended) == 2000
    assert max(len(report["visits"]) for report in reporting.platform.taken.values()) == 500
    assert reporting.reporter.waiting == len(reporting.activity) == 0


async def test_an_outage_without_end_fills_no_memory(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    reporting = Reporting()
    reporting.activity = Activity(trio.current_time, most=100)
    reporting.reporter = ActivityReporter(reporting.activity, reporting.platform, reporter="1" * 32)
    reporting.platform.fails = away
    nursery.start_soon(reporting.run)
    for number in range(3000):
        with reporting.activity.visit(ONE, f"user-{number}"):
            await trio.sleep(1)
    assert len(reporting.activity) == 100
    assert reporting.reporter.waiting <= 600
    assert reporting.activity.counts.untold > 2000


async def test_platform_is_left_alone_for_as_long_as_it_wants(autojump_clock: MockClock, reporting: Reporting) -> None:
    def later() -> Exception:
        error = PlatformUnavailable("429")
        error.retry_after = 500.0
        return error

    reporting.platform.fails = later
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(INTERVAL + 499)
        assert len(reporting.platform.sent) == 1
        reporting.platform.fails = None
        await trio.sleep(10)
        assert reporting.platform.sent[1][1] == reporting.platform.sent[0][1]
        assert reporting.platform.sent[0][1] in reporting.platform.taken


async def test_not_even_platform_can_silence_reports_for_more_than_an_hour(
    autojump_clock: MockClock, reporting: Reporting
) -> None:
    def never() -> Exception:
        error = PlatformUnavailable("503")
        error.retry_after = 1e9
        return error

    reporting.platform.fails = never
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(3700)
        assert len(reporting.platform.sent) == 2


async def test_a_report_that_platform_refuses_is_given_up(autojump_clock: MockClock, reporting: Reporting) -> None:
    reporting.platform.fails = refused
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(INTERVAL + 1)
        assert reporting.reporter.counts.lost == 1
        reporting.platform.fails = None
        await trio.sleep(700)
        assert len(reporting.platform.sent) > 1
        assert reporting.platform.sent[0][1] not in reporting.platform.taken
        assert reporting.platform.visits[0]["subject"] == "alice"


async def test_a_slow_platform_has_one_report_at_a_time(autojump_clock: MockClock, reporting: Reporting) -> None:
    reporting.platform.takes = 100
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(90)
        assert len(reporting.platform.sent) == 1
        with reporting.activity.visit(ONE, "bob"):  # takes no time of bob's
            pass
        await trio.sleep(150)
    assert {visit["subject"] for visit in reporting.platform.visits} == {"alice", "bob"}


async def test_at_the_end_platform_hears_that_everybody_has_left(
    autojump_clock: MockClock, reporting: Reporting
) -> None:
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(INTERVAL + 1)
        with reporting.activity.visit(ONE, "bob"):
            reporting.scope.cancel()
            await reporting.reporter.finish()
    last = {visit["subject"]: visit["disconnected_at"] for visit in reporting.platform.visits}
    assert set(last) == {"alice", "bob"}
    assert None not in last.values()
    assert reporting.reporter.counts.lost == 0


async def test_a_report_that_the_end_has_cut_is_sent_again_and_counts_once(
    autojump_clock: MockClock, reporting: Reporting
) -> None:
    reporting.platform.takes = 2
    with reporting.activity.visit(ONE, "alice"):
        await trio.sleep(INTERVAL + 1)
        reporting.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await reporting.reporter.finish()
    names = [name for _, name in reporting.platform.sent]
    assert names[0] == names[1] != names[2]
    assert [visit["disconnected_at"] is None for visit in reporting.platform.visits] == [True, False]


@pytest.mark.parametrize("failure", [away, refused])
async def test_the_end_does_not_wait_for_a_platform_that_fails(
    autojump_clock: MockClock, reporting: Reporting, failure: Callable[[], Exception]
) -> None:
    reporting.platform.fails = failure
    with reporting.activity.visit(ONE, "alice"):
        reporting.scope.cancel()
        await reporting.reporter.finish()
    assert len(reporting.platform.sent) == 1
    assert reporting.reporter.counts.lost == 1


async def test_the_end_may_be_cut_short(autojump_clock: MockClock, reporting: Reporting) -> None:
    reporting.platform.takes = 1000
    with reporting.activity.visit(ONE, "alice"):
        reporting.scope.cancel()
        with trio.move_on_after(2) as scope:
            await reporting.reporter.finish()
    assert scope.cancelled_caught
    assert reporting.reporter.waiting == 0
    assert reporting.reporter.counts.lost == 1
