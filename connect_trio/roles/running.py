"""Running one role as a process: stop on SIGINT and SIGTERM, and tell whoever started us that we are ready."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs
import trio

READY_FD = "CONNECT_READY_FD"
"""The variable with the number of an inherited pipe, which gets one line of JSON when the role has started:
{"role": ..., "pid": ..., "started": what the role told}. Then it is closed."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_until_stopped(
    start: Callable[..., Awaitable[object]], *, announce: Callable[[Any], None] = lambda started: None
) -> None:
    """Run a role until it ends by itself or a signal says so; a second signal does not interrupt its tidying up.

    start: takes `task_status`, as for `trio.Nursery.start`. announce: called with what it started with.
    """
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                await anext(aiter(signals))
                nursery.cancel_scope.cancel("a signal asked to stop")

            async def role(*, task_status: trio.TaskStatus[object]) -> None:
                await start(task_status=task_status)
                nursery.cancel_scope.cancel("the role has ended")

            nursery.start_soon(stop_on_signal)
            announce(await nursery.start(role))


def announcer(role: str, environ: MutableMapping[str, str]) -> Callable[[object], None]:
    """What tells the process that started us; nothing if nobody asked. Takes READY_FD out: it is nobody else's."""
    descriptor = environ.pop(READY_FD, "")

    def announce(started: object) -> None:
        if descriptor.isdigit():
            told = attrs.asdict(started) if attrs.has(type(started)) else started  # type: ignore[arg-type]
            line = json.dumps({"role": role, "pid": os.getpid(), "started": told}, default=str)
            # Whoever asked may be gone; that is no reason not to serve.
            with contextlib.suppress(OSError), os.fdopen(int(descriptor), "w") as pipe:
                pipe.write(line + "\n")

    return announce
