"""The event loop: what asyncio's own objects do on it, and that it lives and dies with its trio task."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
import trio

from connect_trio.ssh.loop import BATCH, Loop


async def done(task: asyncio.Future[Any]) -> None:
    while not task.done():
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.01)


async def test_a_coroutine_of_asyncio_runs(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    loop = await nursery.start(Loop().run)
    log: list[object] = []

    async def work() -> None:
        await asyncio.sleep(5)
        event = asyncio.Event()
        loop.call_later(10, event.set)
        await event.wait()
        await asyncio.gather(*(asyncio.sleep(1) for _ in range(5)))
        log.append(loop.time())

    began = trio.current_time()
    with loop.entered():
        task = asyncio.ensure_future(work())
    await done(task)
    assert log == [pytest.approx(began + 16)]


async def test_timers_of_a_minute_take_no_time_with_a_mock_clock(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    loop = await nursery.start(Loop().run)
    fired = trio.Event()
    loop.call_later(60, fired.set)
    began = trio.current_time()
    await fired.wait()
    assert trio.current_time() - began == pytest.approx(60)


async def test_what_became_ready_has_run_when_the_block_ends() -> None:
    loop, ran = Loop(), list[int]()
    with loop.entered():
        loop.call_soon(ran.append, 1)
        with loop.entered():  # asyncssh calls us, and we call it again
            loop.call_soon(ran.append, 2)
        assert ran == []
    assert ran == [1, 2]


async def test_callbacks_that_beget_callbacks_do_not_keep_others_waiting(nursery: trio.Nursery) -> None:
    loop = await nursery.start(Loop().run)
    ran = 0

    def again() -> None:
        nonlocal ran
        ran += 1
        loop.call_soon(again)

    with loop.entered():
        again()
    assert ran == 1 + BATCH
    for _ in range(10):  # other tasks have their turns
        await trio.lowlevel.checkpoint()
    assert ran > 2 * BATCH
    nursery.cancel_scope.cancel()


async def test_a_trio_function_is_awaited_as_a_future(nursery: trio.Nursery) -> None:
    loop = await nursery.start(Loop().run)

    async def double(number: int) -> int:
        await trio.sleep(0)
        return number * 2

    async def fail() -> None:
        raise KeyError("x")

    async def work() -> tuple[int, str]:
        result = await loop.trio_call(nursery, double, 21)
        try:
            await loop.trio_call(nursery, fail)
        except KeyError as exc:
            return result, repr(exc)
        raise AssertionError

    with loop.entered():
        task = asyncio.ensure_future(work())
    await done(task)
    assert task.result() == (42, "KeyError('x')")


async def test_who_cancels_the_future_cancels_the_trio_function(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    loop = await nursery.start(Loop().run)
    log: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async def work() -> None:
        await asyncio.wait_for(loop.trio_call(nursery, wait), 5)

    with loop.entered():
        task = asyncio.ensure_future(work())
    await done(task)
    assert isinstance(task.exception(), TimeoutError)
    await trio.testing.wait_all_tasks_blocked()
    assert log == ["cancelled"]


async def test_a_nursery_that_is_cancelled_cancels_the_future(nursery: trio.Nursery) -> None:
    loop = await nursery.start(Loop().run)
    async with trio.open_nursery() as inner:
        with loop.entered():
            future = loop.trio_call(inner, trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert future.cancelled()


async def test_errors_that_nobody_caught_are_told_and_end_nothing(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []
    loop = await nursery.start(Loop(errors.append).run)

    async def forgotten() -> None:
        raise ValueError("forgotten")

    def divide() -> None:
        raise ZeroDivisionError

    with loop.entered():
        asyncio.ensure_future(forgotten())  # noqa: RUF006 - that is the point
        loop.call_soon(divide)
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    assert sorted(type(error).__name__ for error in errors) == ["ValueError", "ZeroDivisionError"]
    assert "this is a bug" in caplog.text
    assert loop.is_running()


@pytest.mark.parametrize("others", [0, 10, 1000])
async def test_timers_that_were_cancelled_are_not_kept(others: int) -> None:
    loop = Loop()
    for _ in range(others):
        loop.call_later(30, int)
    for _ in range(5000):
        loop.call_later(60, int).cancel()
    assert loop.timers <= 2 * others + 70


async def test_a_timer_that_was_cancelled_does_not_run(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    loop = await nursery.start(Loop().run)
    ran: list[int] = []
    first, second = loop.call_later(1, ran.append, 1), loop.call_later(2, ran.append, 2)
    first.cancel()
    await trio.sleep(3)
    assert ran == [2]
    second.cancel()  # too late, and no harm
    assert loop.timers == 0


async def test_the_end_of_the_loop_is_the_end_of_its_tasks() -> None:
    loop = Loop()
    unwound: list[str] = []

    async def work(wait: Callable[[], asyncio.Future[None]]) -> None:
        try:
            await wait()
        finally:
            unwound.append("unwound")

    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        with loop.entered():
            task = asyncio.ensure_future(work(loop.create_future))
        nursery.cancel_scope.cancel()
    assert task.cancelled()
    assert unwound == ["unwound"]
    assert loop.is_closed()


async def test_nothing_of_asyncio_stays_behind() -> None:
    loop = Loop()
    with loop.entered():
        assert asyncio.get_running_loop() is loop.typed
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
