"""A server process that is paused for longer than its leases, and goes on, does no harm."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs
import pytest
import trio

from connect_trio import sessions
from connect_trio.mux import frames
from connect_trio.mux.codes import GoawayCode
from connect_trio.ports import free_ports
from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import Registry
from tests.support import impatient
from tests.support.dialled import CLUSTER_KEY, SESSION, dialled_tunnel
from tests.support.e2e import FULL, ROOT
from tests.support.processes import clean_environ
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.slow]

LEASE, RENEW = (sessions.LEASE, sessions.RENEW) if FULL else (1.5, 0.3)
PAUSE = 2 * LEASE


@attrs.frozen
class ServerProcess:
    tunnel_port: int
    address: str
    process: subprocess.Popen[bytes]

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def server(redis: RedisServer, *, lease: float = LEASE) -> Iterator[ServerProcess]:
    links, tunnels = free_ports(2)
    names = {"LEASE": lease, "RENEW": RENEW, "LATE": RENEW}
    waits = {f"connect_trio.sessions.{name}": seconds for name, seconds in names.items()}
    env = (
        clean_environ()
        | impatient.environ(waits)
        | {
            "CONNECT_LISTENER_PORT": str(links),
            "CONNECT_TUNNEL_PORT": str(tunnels),
            "CONNECT_REDIS_ADDRESS": redis.address,
            "CONNECT_CLUSTER_KEY": CLUSTER_KEY,
            "CONNECT_BIND_HOST": "127.0.0.1",
        }
    )
    with subprocess.Popen([*impatient.PROGRAM, "server"], cwd=ROOT, env=env) as process:
        try:
            yield ServerProcess(tunnels, f"127.0.0.1:{links}", process)
        finally:
            process.kill()


@pytest.fixture
def pair(redis_server: RedisServer) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with ExitStack() as stack:
        yield stack.enter_context(server(redis_server)), stack.enter_context(server(redis_server))


async def listening(*servers: ServerProcess) -> None:
    with trio.fail_after(30):
        for each in servers:
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", each.tunnel_port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.05)


class Watch:
    """Where the session's route has led to, each time that it changed."""

    def __init__(self, registry: Registry) -> None:
        self.seen: list[str | None] = []
        self._registry = registry
        self._news, self._told = trio.open_memory_channel[str | None](1000)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._registry.changes, self._news.send_nowait)
            async for _ in self._told:
                await self.look()

    async def look(self) -> str | None:
        found = [route.address for route in await self._registry.find(SESSION)]
        led = found[0] if found else None
        if self.seen[-1:] != [led]:
            self.seen.append(led)
        return led

    async def until(self, address: str | None) -> None:
        with trio.fail_after(PAUSE + 30):
            while await self.look() != address:
                await trio.sleep(0.01)


async def test_a_paused_server_takes_no_route_from_the_newer_tunnel(
    pair: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    first, second = pair
    async with open_redis(address=redis_server.address) as redis, trio.open_nursery() as nursery:
        watch = Watch(redis.registry)
        nursery.start_soon(watch.run)
        await listening(first, second)
        async with dialled_tunnel(first.tunnel_port, epoch=1, key=CLUSTER_KEY) as old:
            await watch.until(first.address)
            first.pause()
            await watch.until(None)
            async with dialled_tunnel(second.tunnel_port, epoch=2, key=CLUSTER_KEY):
                await watch.until(second.address)
                watch.seen = [second.address]
                await trio.sleep(PAUSE - LEASE)
                first.go_on()
                with trio.fail_after(30):
                    goaway = await old.serve()
                if goaway or not FULL:  # after a whole minute the tunnel counts as dead before it is displaced
                    assert frames.decode_goaway_untrusted(memoryview(goaway)).code == GoawayCode.DISPLACED
                await trio.sleep(3 * RENEW)
                await watch.until(second.address)
        await watch.until(None)
        await trio.sleep(3 * RENEW)
        # A machine that stands still for longer than a lease loses one for a moment, whoever has it.
        assert set(watch.seen) == {second.address, None}
        assert watch.seen[-1] is None, "nobody takes it back"
        nursery.cancel_scope.cancel()


async def test_a_paused_server_does_not_bring_back_what_ended_meanwhile(
    pair: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    first, _ = pair
    async with open_redis(address=redis_server.address) as redis, trio.open_nursery() as nursery:
        watch = Watch(redis.registry)
        nursery.start_soon(watch.run)
        await listening(first)
        async with dialled_tunnel(first.tunnel_port, key=CLUSTER_KEY):
            await watch.until(first.address)
            first.pause()
            await watch.until(None)
            watch.seen = [None]
            await trio.sleep(PAUSE - LEASE)
        first.go_on()
        await listening(first)
        await trio.sleep(3 * RENEW)
        await watch.look()
        assert watch.seen == [None]
        nursery.cancel_scope.cancel()
