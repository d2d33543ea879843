"""Roles that take their leave: asked to stop, they say goodbye while all that they run on is still there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from connect_trio.roles.life import this_life

T = TypeVar("T")
Farewell = Callable[[], Awaitable[None]]


async def run_with_farewell(
    start: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[T] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run `start` until cancelled, then its farewell, and only then cancel what it runs.

    start: takes `task_status`; starts with what to tell our own starter, and a farewell, which bounds its own time: it
    is cancelled only if the process is to hurry (`Life`). Raises what both raise, in groups.
    """
    scope = trio.CancelScope()
    mine = this_life()

    async def life(*, task_status: trio.TaskStatus[tuple[T, Farewell]]) -> None:
        with scope:
            await start(task_status=task_status)

    async with trio.open_nursery() as nursery:
        running: T
        running, farewell = await nursery.start(life)
        scope.shield = True  # from now on: a start that hangs must be cancellable
        try:
            task_status.started(running)
            await trio.sleep_forever()
        finally:
            try:
                with mine.farewell():
                    await farewell()
            finally:
                scope.cancel()
