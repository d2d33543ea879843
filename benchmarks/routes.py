"""`python -m benchmarks.routes`: how long a new route takes, from the agent's tunnel to a stream at two proxies.

A real redis-server, a server's table of tunnels with agents beside it, and two proxies' dialers, in processes of their
own on this machine. Visitors wait at both proxies when the tunnel is opened. The time ends when both have a stream that
the agent has accepted: proof of the tunnel, publication, notification, look-up and opening lie in between.
"""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import trio

from benchmarks.redis import own_redis
from benchmarks.targets import HERE, STOP, CannotMeasure
from connect_trio.dial import Target
from connect_trio.identity.grants import HTTP, issue
from connect_trio.links import open_links
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.redis import open_redis
from connect_trio.sessions import TunnelTable
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.trusted import connect_plain

PROXIES = 2
CONCURRENT = (1, 50)
WARM_UP = 5  # rounds that do not count
WAITED = 0.4  # seconds that visitors have waited when the tunnel comes, so that their first looks were in vain
SETTLE = 0.15
PATIENCE = 30.0

Times = dict[str, float]  # session -> seconds on the clock that all processes of this machine share


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.part is not None:
        trio.run({"server": _server, "proxy": _proxy}[options.part], options.redis)
        return 0
    try:
        print(f"{'concurrent':>10} {'routes':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
        for concurrent in CONCURRENT:
            times = sorted(_measure(concurrent, max(1, options.routes // concurrent)))
            p99 = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
            figures = (statistics.median(times), p99, times[-1])
            print(f"{concurrent:>10} {len(times):>7}", *(f"{1000 * figure:8.2f}" for figure in figures), flush=True)
    except CannotMeasure as exc:
        print(f"benchmarks.routes: {exc}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routes", description=__doc__)
    parser.add_argument("--routes", type=int, default=300, help="to add, for each row (300)")
    parser.add_argument("part", nargs="?", choices=["server", "proxy"], help=argparse.SUPPRESS)
    parser.add_argument("redis", nargs="?", help=argparse.SUPPRESS)
    return parser


# the one who measures


def _measure(concurrent: int, rounds: int) -> list[float]:
    """Seconds for each route."""
    times: list[float] = []
    with ExitStack() as stack:
        address = stack.enter_context(own_redis()).address
        server = stack.enter_context(_part("server", address))
        proxies = [stack.enter_context(_part("proxy", address)) for _ in range(PROXIES)]
        for number in range(WARM_UP + rounds):
            sessions = [secrets.token_hex(4) for _ in range(concurrent)]
            for proxy in proxies:
                _say(proxy, sessions)
            time.sleep(WAITED)
            _say(server, sessions)
            began = _hear(server)
            ended = [_hear(proxy) for proxy in proxies]
            _say(server, [])  # the tunnels go
            if number >= WARM_UP:
                times += [max(each[session] for each in ended) - began[session] for session in sessions]
    return times


@contextmanager
def _part(name: str, address: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.routes", name, address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE.parent, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            _hear(process)  # it is ready
            yield process
        finally:
            process.kill()
            process.wait(STOP)


def _say(part: subprocess.Popen[str], sessions: Sequence[str]) -> None:
    if part.stdin is not None:
        part.stdin.write(json.dumps(sessions) + "\n")
        part.stdin.flush()


def _hear(part: subprocess.Popen[str]) -> Times:
    line = part.stdout.readline() if part.stdout is not None else ""
    if not line:
        raise CannotMeasure("a part of the measurement ended early; what it said is above")
    times: Times = json.loads(line)
    return times


# the parts


def target_of(session: str) -> Target:
    return Target(grant=issue(subject="benchmark", session=session, method=HTTP))


async def _orders() -> AsyncIterator[list[str]]:
    """What the one who measures says, until it is gone."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield json.loads(line)


def _report(times: Times) -> None:
    print(json.dumps(times), flush=True)


async def _server(address: str) -> None:
    """Lets agents in when it is told their sessions, and tells when each began to dial."""
    async with open_redis(address=address) as redis, open_hub() as hub:
        await redis.wait_ready(PATIENCE)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        table = TunnelTable(redis.registry, address=f"127.0.0.1:{port}", connector=secrets.token_hex(16))
        hub.nursery.start_soon(table.keep_routes)
        hub.nursery.start_soon(_accept_links, hub, table, listener)
        _report({})
        agents: list[MuxSession] = []
        async for sessions in _orders():
            for agent in agents:
                agent.close("the round is over")
            agents.clear()
            began: Times = {}
            for session in sessions:
                began[session] = time.monotonic()
                agents.append(_dial_in(hub, table, session))
            if sessions:
                await trio.sleep(SETTLE)  # nothing is reported while it counts
                _report(began)


async def _accept_links(hub: Hub, table: TunnelTable, listener: trio.SocketListener) -> None:
    while True:
        stream = await listener.accept()
        hello = Hello(peer=Peer.SWITCH, instance=bytes(16))
        wire = Wire(table.switch, hello, dialled=False, now=trio.current_time(), label="link")
        hub.nursery.start_soon(MuxSession(hub, wire, SocketTransport(Socket.adopt(stream))).run)


def _dial_in(hub: Hub, table: TunnelTable, session: str) -> MuxSession:
    """An agent's end of a new tunnel; it accepts every stream."""
    near, far = (SocketTransport(Socket(each)) for each in socket.socketpair())
    now, instance = trio.current_time(), secrets.token_bytes(16)
    hello = Hello(peer=Peer.ACCEPTOR, instance=instance, generation=1)
    acceptor = Acceptor(CoreStream.accept)
    agent = MuxSession(hub, Wire(acceptor, hello, dialled=True, now=now, label="agent"), near)
    wire = Wire(
        table.switch, Hello(peer=Peer.SWITCH, instance=bytes(16)), dialled=False, now=now, label=f"tunnel {session}"
    )
    mux = MuxSession(hub, wire, far)
    table.expect(session, mux, wire, instance.hex(), issued=int(time.time()))
    hub.nursery.start_soon(partial(_serve, table, mux))
    hub.nursery.start_soon(agent.run)
    return agent


async def _serve(table: TunnelTable, mux: MuxSession) -> None:
    try:
        await mux.run()
    finally:
        table.gone(mux.wire)


async def _proxy(address: str) -> None:
    """Dials the sessions that it is told, and tells when each had a stream."""
    async with open_redis(address=address) as redis:
        await redis.wait_ready(PATIENCE)
        links = open_links(CachedRegistry(redis.registry), instance=secrets.token_bytes(16), connect=connect_plain)
        async with links as (dialer, _):
            await trio.sleep(SETTLE)
            _report({})
            async for sessions in _orders():
                ended: Times = {}
                streams = []

                async def dial(session: str) -> None:
                    streams.append(await dialer.dial(target_of(session)))  # noqa: B023 - ends in this round
                    ended[session] = time.monotonic()  # noqa: B023

                async with trio.open_nursery() as nursery:
                    for session in sessions:
                        nursery.start_soon(dial, session)
                _report(ended)
                for stream in streams:
                    stream.reset("the round is over")  # or they would look for the next ones' ways all along


if __name__ == "__main__":
    sys.exit(main())
