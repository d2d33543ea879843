"""Running one role as a process: stop on SIGINT and SIGTERM, and tell whoever started us that we are ready."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import attrs
import trio

from connect_trio.roles.life import Life, Reload, living

READY_FD = "CONNECT_READY_FD"
"""The variable with the number of an inherited pipe, which gets one line of JSON when the role has started:
{"role": ..., "pid": ..., "started": what the role told}. Then it is closed."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_until_stopped(
    start: Callable[..., Awaitable[object]],
    *,
    announce: Callable[[Any], None] = lambda started: None,
    reloads: Mapping[str, Reload] | None = None,
) -> None:
    """Run a role until it ends by itself or a signal says so; a second signal says not to finish what could wait.

    start: takes `task_status`, as for `trio.Nursery.start`. announce: called with what it started with. reloads: what
    to do at SIGHUP, besides what the role itself adds to its `Life`; None: SIGHUP is left alone.
    """
    life = Life()
    for what, reload in (reloads or {}).items():
        life.on_reload(what, reload)
    numbers = _STOP_SIGNALS if reloads is None else (*_STOP_SIGNALS, signal.SIGHUP)
    role_scope = trio.CancelScope()
    with trio.open_signal_receiver(*numbers) as signals, living(life):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed, signals, life, role_scope)

            async def role(*, task_status: trio.TaskStatus[object]) -> None:
                with role_scope:
                    await start(task_status=task_status)
                nursery.cancel_scope.cancel("the role has ended")
                await trio.lowlevel.checkpoint()  # one that was stopped before it had started never starts

            announce(await nursery.start(role))


async def _heed(signals: AsyncIterator[int], life: Life, role: trio.CancelScope) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            life.reload()
        elif role.cancel_called:
            life.hurry()
        else:
            role.cancel("a signal asked to stop")


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
