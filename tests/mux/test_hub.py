"""What wires share: one flush for a turn, and one clock."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from connect_trio.mux.hub import Hub, Parking, open_hub


@attrs.define(eq=False)
class Ticker:
    """A session that notes when it is flushed and ticked, and wants to be ticked every `period`."""

    period: float = 1.0
    flushes: int = 0
    ticks: list[float] = attrs.field(factory=list)

    def flush_now(self) -> None:
        self.flushes += 1

    def tick(self, now: float) -> float:
        self.ticks.append(round(now, 3))
        return now + self.period


@attrs.define(eq=False)
class Timer:
    """An endpoint with one deadline."""

    due: float | None = None
    ticks: list[float] = attrs.field(factory=list)

    def tick(self, now: float) -> None:
        self.ticks.append(round(now, 3))
        self.due = None

    def deadline(self) -> float | None:
        return self.due


async def test_marks_of_one_turn_are_flushed_at_its_end() -> None:
    async with open_hub() as hub:
        tickers = [Ticker() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        for ticker in tickers:
            hub.mark(ticker)
            assert not ticker.flushes
        await trio.testing.wait_all_tasks_blocked()
        assert [ticker.flushes for ticker in tickers] == [1, 1, 1]


async def test_a_mark_made_during_a_flush_is_not_lost() -> None:
    async with open_hub() as hub:
        ticker = Ticker()

        class Marker(Ticker):
            def flush_now(self) -> None:
                hub.mark(ticker)

        hub.mark(Marker())
        await trio.testing.wait_all_tasks_blocked()
        assert ticker.flushes == 1


async def test_sessions_are_ticked_when_they_ask_for_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as hub:
        fast, slow = Ticker(1.0), Ticker(10.0)
        hub.schedule(slow, 10.0)
        await trio.sleep(0.5)
        hub.schedule(fast, 1.0)  # earlier than what the clock sleeps for
        hub.schedule(fast, 5.0)  # later than it is scheduled already
        await trio.sleep_until(3.5)
        assert fast.ticks == [1.0, 2.0, 3.0]
        hub.forget(fast)
        hub.schedule(slow, 4.0)
        await trio.sleep_until(15)
        assert fast.ticks == [1.0, 2.0, 3.0]
        assert slow.ticks == [4.0, 14.0]
        hub.forget(slow)
        await trio.sleep_until(100)
        assert not hub._heap
        assert not hub._due


async def test_endpoints_are_ticked_at_their_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as hub:
        timer = Timer(2.0)
        hub.add(timer)
        await trio.sleep(5)
        assert timer.ticks == [2.0]
        timer.due = 7.0
        hub.alarm(7.0)
        await trio.sleep(5)
        assert timer.ticks == [2.0, 7.0]
        timer.due = 0.0  # at once
        hub.alarm(0.0)
        await trio.testing.wait_all_tasks_blocked()
        assert timer.ticks == [2.0, 7.0, 10.0]
        hub.remove(timer)
        timer.due = 0.0
        hub.alarm(0.0)
        await trio.sleep(5)
        assert len(timer.ticks) == 3


async def test_an_alarm_that_is_later_wakes_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as hub:
        hub.add(timer := Timer(5.0))
        await trio.sleep(1)
        before = hub._asleep_until
        hub.alarm(6.0)
        assert hub._asleep_until == before == 5.0
        await trio.sleep(5)
        assert timer.ticks == [5.0]


async def test_one_task_parks_until_it_is_woken() -> None:
    parking = Parking()
    woken = []

    async def park() -> None:
        await parking.park()
        woken.append(True)

    parking.unpark()  # nobody there: nothing is remembered
    async with trio.open_nursery() as nursery:
        nursery.start_soon(park)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await parking.park()
        assert not woken
        parking.unpark()
        parking.unpark()
    assert woken == [True]


async def test_a_cancelled_wait_leaves_the_place_free() -> None:
    parking = Parking()
    with trio.move_on_after(0):
        await parking.park()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parking.park)
        await trio.testing.wait_all_tasks_blocked()
        parking.unpark()


async def test_a_hub_ends_with_its_block() -> None:
    async with open_hub() as hub:
        assert isinstance(hub, Hub)
        hub.nursery.start_soon(trio.sleep_forever)
