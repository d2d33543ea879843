"""`python -m benchmarks.revocation`: how long somebody stays in whom Platform does not allow in any more.

A real redis-server, a server and a proxy in processes of their own on this machine; a Platform, agents, tools and
visitors in this one. Each revocation is one visitor's who has a WebSocket and an answer open, and is in by SSH with a
command that runs, beside many other live WebSockets and SSH connections; for a stop and a deletion it is a session with
its agent, too. A logout is of browsers only, and the removal of a key of SSH only. The time begins when Platform (for a
logout: the Store) would say so if it was asked, and ends when the WebSocket was closed with 1008, the answer was cut,
the SSH client was told why and its connection and its channel were over, or the agent heard that its session is.
Revocations come at random times, so none waits for another one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import trio

from benchmarks.redis import own_redis
from benchmarks.report import aligned, circumstances
from benchmarks.revocation_parts import HOST, KINDS, Agents, Visitor, quantiles, serve_tool, until_ended
from benchmarks.revocation_platform import Platform
from benchmarks.revocation_ssh import CHANNEL, CONNECTION, SshClients, SshKey, SshStay, open_ssh_clients
from benchmarks.targets import HERE, STOP, CannotMeasure
from connect_trio.edge.login_ends import Lives, Logins
from connect_trio.edge.login_records import LoginRecords
from connect_trio.mux.hub import open_hub
from connect_trio.roles.open_files import raise_limit
from connect_trio.roles.running import READY_FD
from connect_trio.routing.names import label_of
from connect_trio.routing.redis import open_redis

BASE = "ba5e0000"
TOGETHER = 8  # visitors who come in at once
CAUSES = ("un-share", "logout", "stop", "delete", "key")
BROWSERS = ("un-share", "logout", "stop", "delete")  # what ends something of theirs
SSH = ("un-share", "stop", "delete", "key")
WHOLE = ("stop", "delete")  # sessions
PREFIX = "connect:session"

Times = dict[str, list[float]]  # seconds by kind of stream
Ends = dict[str, Callable[[], Awaitable[float]]]  # by kind: wait for the end, and answer when that was


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.revocations, options.websockets, options.visitors, options.spread, options.ssh = 6, 20, 5, 2.0, 5
    raise_limit()
    found: dict[tuple[str, str], list[float]] = {}
    try:
        with own_redis() as redis, TemporaryDirectory() as folder:
            found = trio.run(_measure, options, redis.address, Path(folder))
    except* CannotMeasure as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        print(f"benchmarks.revocation: {first}", file=sys.stderr)
    if not found:
        return 1
    lines = [["cause", "kind", "count", "p50 s", "p99 s", "max s"]]
    for (cause, kind), times in found.items():
        figures = quantiles(times).values()
        lines.append([cause, kind, str(len(times)), *(f"{seconds:.2f}" for seconds in figures)])
    print(aligned(lines))
    if options.output is not None:
        rows = [{"cause": cause, "kind": kind, "seconds": times} for (cause, kind), times in found.items()]
        used = {name: value for name, value in vars(options).items() if name != "output"}
        options.output.write_text(json.dumps({**circumstances(used), "rows": rows}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.revocation", description=__doc__)
    parser.add_argument("--revocations", type=int, default=200, help="for each cause (200)")
    parser.add_argument("--websockets", type=int, default=500, help="that are live beside them (500)")
    parser.add_argument("--visitors", type=int, default=100, help="to whom these belong (100)")
    parser.add_argument("--ssh", type=int, default=200, help="SSH connections beside them, a user each (200)")
    parser.add_argument("--spread", type=float, default=15.0, help="seconds in which all of a cause are revoked (15)")
    parser.add_argument("--quick", action="store_true", help="see whether it works; means nothing")
    parser.add_argument("--output", type=Path, help="a JSON file for every single time")
    return parser


@contextmanager
def _role(role: str, environ: Mapping[str, str]) -> Iterator[Mapping[str, int]]:
    """One role in a process of its own; what it says when it is ready."""
    reading, writing = os.pipe()
    env = {**os.environ, **environ, READY_FD: str(writing), "CONNECT_LOG_LEVEL": "WARN", "CONNECT_DRAIN_GRACE": "0s"}
    command = [sys.executable, "-m", "connect_trio", role]
    process = subprocess.Popen(command, cwd=HERE.parent, env=env, pass_fds=[writing])
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        if not line:
            raise CannotMeasure(f"the {role} does not start; what it said is above")
        started: Mapping[str, int] = json.loads(line)["started"]
        yield started
    finally:
        process.kill()
        process.wait(STOP)


@attrs.define
class _World:
    options: argparse.Namespace
    port: int
    platform: Platform
    logins: Logins
    agents: Agents
    ssh: SshClients
    nursery: trio.Nursery

    async def come_in(self, visitors: Sequence[Visitor], kinds: Sequence[str]) -> list[dict[str, trio.SocketStream]]:
        """What each has open, by kind."""
        opened: list[dict[str, trio.SocketStream]] = [{} for _ in visitors]
        limit = trio.CapacityLimiter(TOGETHER)

        async def open_all(visitor: Visitor, streams: dict[str, trio.SocketStream]) -> None:
            async with limit:
                await visitor.log_in(self.logins)
                for number, kind in enumerate(kinds):
                    streams[
                        kind if kind in KINDS and kinds.count(kind) == 1 else f"{kind} {number}"
                    ] = await visitor.open(kind, self.port)

        async with trio.open_nursery() as nursery:
            for visitor, streams in zip(visitors, opened, strict=True):
                nursery.start_soon(open_all, visitor, streams)
        return opened

    async def come_in_by_ssh(self, visitors: Sequence[Visitor]) -> list[SshStay]:
        """Each by a key of their own."""
        stays: dict[Visitor, SshStay] = {}
        limit = trio.CapacityLimiter(TOGETHER)

        async def come_in(visitor: Visitor) -> None:
            async with limit:
                key = SshKey()
                self.platform.ssh_keys[key.fingerprint] = visitor.subject
                stays[visitor] = await self.ssh.come_in(visitor.subject, label_of(visitor.session), key)

        async with trio.open_nursery() as nursery:
            for visitor in visitors:
                nursery.start_soon(come_in, visitor)
        return [stays[visitor] for visitor in visitors]

    async def start_agents(self, sessions: Sequence[str]) -> None:
        limit = trio.CapacityLimiter(TOGETHER)

        async def start(session: str) -> None:
            async with limit:
                await self.agents.start(self.nursery, session)

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(start, session)


async def _measure(options: argparse.Namespace, redis: str, folder: Path) -> dict[tuple[str, str], list[float]]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    async with trio.open_nursery() as nursery, open_hub() as hub, open_redis(address=redis, prefix=PREFIX) as shared:
        await shared.wait_ready(STOP)
        platform = Platform()
        await nursery.start(platform.serve)
        tool = await nursery.start(serve_tool)
        store = {"CONNECT_REDIS_ADDRESS": redis, "CONNECT_REDIS_PREFIX": PREFIX}
        ports = {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0", "CONNECT_BIND_HOST": HOST}
        with _role("server", store | ports) as server:
            environ = {
                "CONNECT_HTTP_HOST": HOST,
                "CONNECT_HTTP_PORT": str(port),
                "CONNECT_PROXY_URL": f"http://connect.localhost:{port}",
                "CONNECT_TUNNEL_URL": f"{HOST}:{server['tunnel_port']}",
                "PLATFORM_URL": platform.url,
                "CONNECT_STORAGE_ROOT": str(folder),
                "CONNECT_SSH_ENABLED": "true",
                "CONNECT_SSH_ADDR": f"{HOST}:0",
            }
            with _role("proxy", store | environ) as proxy:
                agents = Agents(hub, tool, port, platform.token, folder)
                nursery.start_soon(agents.watch_tool)
                logins = Logins(shared.store, LoginRecords(shared.store), Lives(), wall_clock=time.time)
                async with open_ssh_clients(proxy["ssh_port"]) as ssh:
                    found = await _measure_all(_World(options, port, platform, logins, agents, ssh, nursery))
                nursery.cancel_scope.cancel()
                hub.nursery.cancel_scope.cancel()
    return found


async def _measure_all(world: _World) -> dict[tuple[str, str], list[float]]:
    options = world.options
    await world.start_agents([BASE])
    each = options.websockets // options.visitors
    crowd = [Visitor(f"visitor-{number}", BASE) for number in range(options.visitors)]
    live = await world.come_in(crowd, ["WebSocket"] * each)
    stays = await world.come_in_by_ssh([Visitor(f"ssh-{number}", BASE) for number in range(options.ssh)])
    found = {}
    for at, cause in enumerate(CAUSES):
        asked, began = world.platform.asked.total(), time.monotonic()
        for kind, times in (await _revoke(world, cause, at)).items():
            found[cause, kind] = times
        rate = (world.platform.asked.total() - asked) / (time.monotonic() - began)
        print(f"{cause}: Platform was asked {rate:.0f} times a second", file=sys.stderr, flush=True)
    for streams in live:
        for stream in streams.values():
            with trio.move_on_after(0):
                data = await stream.receive_some(1)
                raise CannotMeasure(f"a WebSocket that nobody revoked has ended: {data!r}")
    if any(stay.is_over for stay in stays):
        raise CannotMeasure("an SSH connection that nobody revoked has ended")
    return found


async def _revoke(world: _World, cause: str, at: int) -> Times:
    count = world.options.revocations
    whole = cause in WHOLE
    sessions = [f"{at:04x}{number:04x}" if whole else BASE for number in range(count)]
    if whole:
        await world.start_agents(sessions)
    visitors = [Visitor(f"{cause}-{number}", session) for number, session in enumerate(sessions)]
    waits = await _open_all(world, visitors, cause)
    times: Times = {kind: [] for kind in waits[0]}

    async def revoke(visitor: Visitor, ends: Ends) -> None:
        await trio.sleep(random.random() * world.options.spread)
        await _act(world, cause, visitor)
        began = time.monotonic()

        async def wait(kind: str, ended: Callable[[], Awaitable[float]]) -> None:
            times[kind].append(await ended() - began)

        async with trio.open_nursery() as nursery:
            for kind, ended in ends.items():
                nursery.start_soon(wait, kind, ended)

    async with trio.open_nursery() as nursery:
        for visitor, ends in zip(visitors, waits, strict=True):
            nursery.start_soon(revoke, visitor, ends)
    return times


async def _open_all(world: _World, visitors: Sequence[Visitor], cause: str) -> list[Ends]:
    """What each has open that this cause ends: by kind, what waits until it has ended."""
    waits: list[Ends] = [{} for _ in visitors]
    if cause in BROWSERS:
        for ends, streams in zip(waits, await world.come_in(visitors, list(KINDS)), strict=True):
            ends |= {kind: partial(until_ended, kind, stream) for kind, stream in streams.items()}
    if cause in SSH:
        for ends, stay in zip(waits, await world.come_in_by_ssh(visitors), strict=True):
            ends |= {kind: partial(stay.until_ended, kind) for kind in (CONNECTION, CHANNEL)}
    if cause in WHOLE:
        for ends, visitor in zip(waits, visitors, strict=True):
            ends["tunnel"] = partial(world.agents.until_ended, visitor.session)
    return waits


async def _act(world: _World, cause: str, visitor: Visitor) -> None:
    """Revoke, at Platform; a logout as any other proxy does it."""
    platform = world.platform
    match cause:
        case "un-share":
            platform.unshared.add((visitor.subject, visitor.session))
        case "logout":
            await world.logins.end(visitor.login)
        case "stop":
            platform.stopped.add(visitor.session)
        case "delete":
            platform.deleted.add(visitor.session)
        case _:
            platform.remove_key_of(visitor.subject)


if __name__ == "__main__":
    sys.exit(main())
