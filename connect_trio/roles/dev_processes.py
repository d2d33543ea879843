"""The development stack as one process for each role, over Redis: what dies is started again."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import attrs
import trio

from connect_trio.children import CannotStart, Child, check_program, start_child
from connect_trio.config.converters import duration
from connect_trio.ports import LOOPBACK
from connect_trio.roles.dev_plan import AGENTS_WITHIN, CannotRun, Plan
from connect_trio.roles.dev_report import Report
from connect_trio.roles.dev_tokens import keep_tokens
from connect_trio.roles.running import READY_FD
from connect_trio.routing.names import split_address

READY_WITHIN = 60.0
"""Seconds after its start in which a role must be ready; a slow machine has many to start at once."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for a role, at least; Redis and Platform, which are stopped afterwards, have a
third of it."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
HELD = 10.0
"""Seconds after which a process counts as well, and its next end is answered at once again."""

_POLL = 0.02
_READY_LINE = 64 * 1024

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Process:
    """What to keep running.

    number: from 0, within the role. probe: waits until it answers; None: it tells by READY_FD. vital: whether the
    stack does not start without it.
    """

    role: str
    number: int = 0
    command: Sequence[str]
    env: Mapping[str, str]
    probe: Callable[[], Awaitable[None]] | None = None
    vital: bool = True
    grace: float = GRACE


async def run_processes(
    plan: Plan, report: Report, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run until cancelled; starts when everything can be used. Raises CannotRun, in groups.

    Redis and Platform outlive the other roles, which take their leave in them.
    """
    lasting = Lasting(report)
    async with trio.open_nursery() as outer:
        if plan.redis_port is not None:
            await lasting.start(outer, redis_process(plan, plan.redis_port))
        else:
            await check_redis(plan.redis_address)
        try:
            await _run_roles(plan, report, partial(lasting.start, outer), task_status)
        finally:
            lasting.end()


class Lasting:
    """Processes that end after all others."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._scopes: list[trio.CancelScope] = []

    async def start(self, nursery: trio.Nursery, process: Process) -> None:
        """Keep it running in `nursery`; once it is ready, only `end` ends it. Raises as `keep_running`."""
        scope = trio.CancelScope()

        async def keep(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await keep_running(process, self._report, task_status=task_status)

        await nursery.start(keep)
        scope.shield = True  # from now on, for a start that hangs must be cancellable
        self._scopes.append(scope)

    def end(self) -> None:
        for scope in self._scopes:
            scope.cancel()


async def _run_roles(
    plan: Plan, report: Report, start_lasting: Callable[[Process], Awaitable[None]], task_status: trio.TaskStatus[None]
) -> None:
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            starting.start_soon(start_lasting, platform_process(plan))
            for process in base_processes(plan):
                starting.start_soon(nursery.start, keep_running, process, report)
        await nursery.start(keep_tokens, plan)
        with trio.move_on_after(AGENTS_WITHIN):
            async with trio.open_nursery() as starting:
                for process in agent_processes(plan):
                    starting.start_soon(_start_unhurried, nursery, process, report)
        task_status.started()


async def _start_unhurried(nursery: trio.Nursery, process: Process, report: Report) -> None:
    """Wait for a process to be ready, which goes on starting even if nobody waits any longer."""
    ready = trio.Event()
    nursery.start_soon(keep_running, process, report, ready.set)
    await ready.wait()


def platform_process(plan: Plan) -> Process:
    """One that is stopped last, as Redis is, and has as little time."""
    return attrs.evolve(role_process("platform", plan.platform_env()), grace=GRACE / 3)


def base_processes(plan: Plan) -> list[Process]:
    """Servers and proxies."""
    return [
        *(role_process("server", plan.server_env(number), number=number) for number in range(plan.options.servers)),
        *(role_process("proxy", plan.proxy_env(number), number=number) for number in range(plan.options.proxies)),
    ]


def agent_processes(plan: Plan) -> list[Process]:
    """An agent for each session, with its tool."""
    arguments = ("--", *plan.options.command) if plan.options.command else ()
    return [
        role_process("agent", plan.agent_env(studio), *arguments, number=number, vital=False)
        for number, studio in enumerate(plan.studios)
    ]


def role_process(role: str, env: Mapping[str, str], *arguments: str, number: int = 0, vital: bool = True) -> Process:
    command = [sys.executable, "-m", "connect_trio", role, *arguments]
    return Process(role=role, number=number, command=command, env=env, vital=vital, grace=_grace(env))


def _grace(env: Mapping[str, str]) -> float:
    """Longer than the process has for its drain, if it is told how long that may be."""
    try:
        return max(GRACE, duration(env.get("CONNECT_DRAIN_GRACE", "0s")) + GRACE / 3)
    except ValueError:  # the process itself will say what is wrong with it
        return GRACE


def redis_process(plan: Plan, port: int) -> Process:
    """A Redis of our own, which keeps nothing. Raises CannotRun if there is no redis-server."""
    try:
        check_program("redis-server", env=plan.environ)
    except CannotStart as exc:
        raise CannotRun("there is no redis-server: install it, or name a Redis with --redis HOST:PORT") from exc
    options = ["--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(plan.work)]
    command = ["redis-server", *options, "--logfile", str(plan.work / "redis.log")]
    return Process(
        role="redis", command=command, env=plan.environ, probe=lambda: redis_answers(LOOPBACK, port), grace=GRACE / 3
    )


async def keep_running(
    process: Process,
    report: Report,
    on_ready: Callable[[], None] = lambda: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a process, again and again; starts when it is ready for the first time.

    on_ready: called each time. Raises CannotRun if a vital process ends before it was ever ready.
    """
    pause = FIRST_PAUSE
    was_ready = False

    def ready() -> None:
        nonlocal was_ready
        if not was_ready:
            task_status.started()
        was_ready = True
        on_ready()

    while True:
        since = trio.current_time()
        end = await run_once(process, report, ready)
        if process.vital and not was_ready:
            raise CannotRun(f"{process.role} {process.number + 1} {end} before it was ready")
        if trio.current_time() - since > HELD:
            pause = FIRST_PAUSE
        logger.warning(
            "a process has ended and is started again",
            extra={"part": process.role, "number": process.number + 1, "end": end, "pause": pause},
        )
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def run_once(process: Process, report: Report, on_ready: Callable[[], None]) -> str:
    """Run a process until it ends; how it ended, in words. Raises CannotRun if there is no such program."""
    reading, writing = os.pipe()
    async with trio.lowlevel.FdStream(reading) as pipe:
        try:
            env = {**process.env, READY_FD: str(writing)}
            child = start_child(process.command, env=env, pass_fds=[writing])
        except CannotStart as exc:
            raise CannotRun(str(exc)) from exc
        finally:
            os.close(writing)
        try:
            with trio.move_on_after(READY_WITHIN) as patience:
                ready = await _is_ready(process, child, pipe)
            if patience.cancelled_caught:
                return f"was not ready within {READY_WITHIN:g} s"
            if ready:
                report.runs(process.role, child.pid, number=process.number)
                on_ready()
            code = await child.wait()
            return f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
        finally:
            await child.stop(grace=process.grace)
            report.ended(process.role, number=process.number)


async def _is_ready(process: Process, child: Child, pipe: trio.lowlevel.FdStream) -> bool:
    """Wait until a process is ready; False if it ended first."""
    if process.probe is None:
        # The end of the pipe without a line is the end of the process.
        return bool(await pipe.receive_some(_READY_LINE))
    while child.exit_code is None:
        try:
            await process.probe()
        except OSError:
            await trio.sleep(_POLL)
        else:
            return True
    return False


async def redis_answers(host: str, port: int) -> None:
    """Ask a Redis for an answer, whichever: one that asks for a password is one. Raises OSError."""
    with trio.move_on_after(1.0):
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            try:
                await stream.send_all(b"PING\r\n")
                answer = await stream.receive_some(64)
            except trio.BrokenResourceError as exc:
                raise ConnectionError("the connection was cut") from exc
        if answer[:1] in (b"+", b"-"):
            return
        raise ConnectionError("what answers is no Redis")
    raise ConnectionError("no answer within a second")


async def check_redis(address: str) -> None:
    """Raises CannotRun if no Redis answers at host:port."""
    try:
        await redis_answers(*split_address(address))
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise CannotRun(f"no Redis at {address} ({reason}): start it, or leave --redis out for one of our own") from exc
