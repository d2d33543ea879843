"""`python -m benchmarks.revocation`: how long somebody stays in whom Platform does not allow in any more.

A real redis-server, a server and a proxy in processes of their own on this machine; a Platform, agents, tools and
visitors in this one. Each revocation is one visitor's who has a WebSocket and an answer open, beside many other live
WebSockets; for a stop and a deletion it is a session with its agent, too. The time begins when Platform (for a logout:
the Store) would say so if it was asked, and ends when the WebSocket was closed with 1008, the answer was cut, or the
agent heard that its session is over. Revocations come at random times, so none waits for another one.
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
from benchmarks.targets import HERE, STOP, CannotMeasure
from connect_trio.edge.login_ends import Lives, Logins
from connect_trio.edge.login_records import LoginRecords
from connect_trio.mux.hub import open_hub
from connect_trio.roles.open_files import raise_limit
from connect_trio.roles.running import READY_FD
from connect_trio.routing.redis import open_redis

BASE = "ba5e0000"
TOGETHER = 8  # visitors who come in at once
CAUSES = ("un-share", "logout", "stop", "delete")
PREFIX = "connect:session"

Times = dict[str, list[float]]  # seconds by kind of stream


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.revocations, options.websockets, options.visitors, options.spread = 6, 20, 5, 2.0
    raise_limit()
    found: dict[tuple[str, str], list[float]] = {}
    try:
        with own_redis() as redis, TemporaryDirectory() as folder:
            found = trio.run(_measure, options, redis.address, Path(folder))
    except* CannotMeasure as group:
        print(f"benchmarks.revocation: {group.exceptions[0]}", file=sys.stderr)
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
            }
            with _role("proxy", store | environ):
                agents = Agents(hub, tool, port, platform.token)
                nursery.start_soon(agents.watch_tool)
                logins = Logins(shared.store, LoginRecords(shared.store), Lives(), wall_clock=time.time)
                world = _World(options, port, platform, logins, agents, nursery)
                found = await _measure_all(world)
                nursery.cancel_scope.cancel()
                hub.nursery.cancel_scope.cancel()
    return found


async def _measure_all(world: _World) -> dict[tuple[str, str], list[float]]:
    options = world.options
    await world.start_agents([BASE])
    each = options.websockets // options.visitors
    crowd = [Visitor(f"visitor-{number}", BASE) for number in range(options.visitors)]
    live = await world.come_in(crowd, ["WebSocket"] * each)
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
    return found


async def _revoke(world: _World, cause: str, at: int) -> Times:
    count = world.options.revocations
    whole = cause in ("stop", "delete")
    sessions = [f"{at:04x}{number:04x}" if whole else BASE for number in range(count)]
    if whole:
        await world.start_agents(sessions)
    visitors = [Visitor(f"{cause}-{number}", session) for number, session in enumerate(sessions)]
    opened = await world.come_in(visitors, list(KINDS))
    platform = world.platform
    acts: Mapping[str, Callable[[Visitor], object]] = {
        "un-share": lambda visitor: platform.unshared.add((visitor.subject, visitor.session)),
        "stop": lambda visitor: platform.stopped.add(visitor.session),
        "delete": lambda visitor: platform.deleted.add(visitor.session),
    }
    times: Times = {kind: [] for kind in (*KINDS, *(["tunnel"] if whole else []))}

    async def revoke(visitor: Visitor, streams: Mapping[str, trio.SocketStream]) -> None:
        await trio.sleep(random.random() * world.options.spread)
        if cause == "logout":
            await world.logins.end(visitor.login)  # as any other proxy does it
        else:
            acts[cause](visitor)
        began = time.monotonic()

        async def wait(kind: str, ended: Callable[[], Awaitable[float]]) -> None:
            times[kind].append(await ended() - began)

        async with trio.open_nursery() as nursery:
            for kind, stream in streams.items():
                nursery.start_soon(wait, kind, partial(until_ended, kind, stream))
            if whole:
                nursery.start_soon(wait, "tunnel", partial(world.agents.until_ended, visitor.session))

    async with trio.open_nursery() as nursery:
        for visitor, streams in zip(visitors, opened, strict=True):
            nursery.start_soon(revoke, visitor, streams)
    return times


if __name__ == "__main__":
    sys.exit(main())
