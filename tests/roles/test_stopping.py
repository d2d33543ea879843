"""Asked to stop, a role says goodbye before what it runs on is cancelled."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from connect_trio.roles.stopping import Farewell, run_with_farewell


class Role:
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def start(self, *, task_status: trio.TaskStatus[tuple[str, Farewell]]) -> None:
        try:
            self.log.append("starting")
            await trio.sleep(1)
            task_status.started(("me", self.farewell))
            await trio.sleep_forever()
        finally:
            self.log.append("ended")

    async def farewell(self) -> None:
        self.log.append("farewell")
        await trio.sleep(1)
        self.log.append("farewell said")


async def test_a_farewell_comes_before_the_end(autojump_clock: trio.testing.MockClock) -> None:
    role = Role()
    async with trio.open_nursery() as nursery:
        assert await nursery.start(partial(run_with_farewell, role.start)) == "me"
        nursery.cancel_scope.cancel()
    assert role.log == ["starting", "farewell", "farewell said", "ended"]


async def test_a_start_is_cancelled_without_farewell(autojump_clock: trio.testing.MockClock) -> None:
    role = Role()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, partial(run_with_farewell, role.start))
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert role.log == ["starting", "ended"]


@pytest.mark.parametrize("checkpoints", range(12))
async def test_cancelling_around_the_start_never_hangs(checkpoints: int) -> None:
    async def start(*, task_status: trio.TaskStatus[tuple[None, Farewell]]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started((None, trio.lowlevel.checkpoint))
        await trio.sleep_forever()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, partial(run_with_farewell, start))
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_a_role_that_fails_says_goodbye_too(autojump_clock: trio.testing.MockClock) -> None:
    role = Role()

    async def start(*, task_status: trio.TaskStatus[tuple[None, Farewell]]) -> None:
        task_status.started((None, role.farewell))
        await trio.sleep(1)
        raise OSError("broken")

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="broken")):
        await run_with_farewell(start)
    assert role.log == ["farewell", "farewell said"]


async def test_a_farewell_that_fails_does_not_keep_the_role_alive(autojump_clock: trio.testing.MockClock) -> None:
    role = Role()

    async def farewell() -> None:
        raise OSError("broken")

    role.farewell = farewell  # type: ignore[method-assign]
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(run_with_farewell, role.start))
            nursery.cancel_scope.cancel()
    assert role.log == ["starting", "ended"]
