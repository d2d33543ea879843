"""The management port of real roles: there before they are ready, and true about what they do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx2
import pytest
import trio

from connect_trio.config import load_proxy, load_server
from connect_trio.metrics import PROXY, SERVER, Family
from connect_trio.ports import free_ports
from connect_trio.roles.measuring import CountingRegistry
from connect_trio.roles.proxy import run_proxy
from connect_trio.roles.server import ServerRunning, run_server
from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from connect_trio.routing.registry import RegistryUnavailable
from tests.roles.test_proxy import proxy_environ
from tests.roles.test_server import still_serves
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import server_environ
from tests.support.tables import SESSION, FlakyRegistry
from tests.support.tools import dead_port

__all__ = ["redis_server"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
KEY = {"Authorization": "Bearer the-key"}
MANAGED = {"CONNECT_MANAGEMENT_PORT": "0", "CONNECT_MANAGEMENT_AUTH_KEY": "the-key"}


@attrs.frozen
class Port:
    url: str
    client: httpx2.AsyncClient

    async def status(self, path: str) -> int:
        return (await self.client.get(self.url + path)).status_code

    async def document(self) -> dict[str, dict[str, bool]]:
        checks: dict[str, dict[str, bool]] = (await self.client.get(self.url + "/readyz")).json()["checks"]
        return checks

    async def metrics(self) -> dict[str, float]:
        text = (await self.client.get(self.url + "/metrics", headers=KEY)).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    async def until(self, path: str, status: int) -> None:
        with trio.fail_after(60):
            while await self.status(path) != status:
                await trio.sleep(0.05)


@asynccontextmanager
async def port_at(number: int | None) -> AsyncIterator[Port]:
    assert number is not None
    async with httpx2.AsyncClient(trust_env=False) as client:
        yield Port(f"http://127.0.0.1:{number}", client)


@asynccontextmanager
async def managed_server(registry: FlakyRegistry) -> AsyncIterator[tuple[ServerRunning, Port]]:
    async with trio.open_nursery() as nursery:
        settings = load_server(server_environ() | MANAGED)
        running: ServerRunning = await nursery.start(partial(run_server, settings, registry=registry))
        async with port_at(running.management_port) as port:
            yield running, port
        nursery.cancel_scope.cancel()


async def test_a_server_tells_what_it_holds() -> None:
    registry = FlakyRegistry()
    async with managed_server(registry) as (running, port):
        assert await port.status("/readyz") == 200
        before = await port.metrics()
        await still_serves(running, registry)
        after = await port.metrics()
        assert after["connect_server_tunnels_accepted_total"] - before["connect_server_tunnels_accepted_total"] == 1
        with trio.fail_after(60):
            while not any(name.startswith("connect_server_tunnels_ended") for name in await port.metrics()):
                await trio.sleep(0.01)
        assert (await port.metrics())["connect_server_tunnels"] == 0


async def test_a_server_that_was_told_to_drain_is_not_ready_and_stays() -> None:
    async with managed_server(FlakyRegistry()) as (_, port):
        assert (await port.client.post(port.url + "/drain", headers=KEY)).status_code == 202
        assert await port.status("/readyz") == 503
        assert await port.status("/livez") == 200
        assert (await port.metrics())["connect_draining"] == 1


async def test_a_proxy_tells_what_its_visitors_got(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        settings = load_proxy(proxy_environ(tmp_path, **MANAGED))
        start = partial(run_proxy, settings, registry=MemoryRegistry(), store=MemoryStore())
        running = await nursery.start(start)
        async with port_at(running.management_port) as port:
            assert await port.status("/readyz") == 200, "Platform is away, which is only told"
            assert (await port.document())["platform"] == {"ok": False, "needed": False}
            visitor = {"Host": "connect.localhost:8080"}
            await port.client.get(f"http://127.0.0.1:{running.http_port}/nothing", headers=visitor)
            numbers = await port.metrics()
            assert numbers['connect_proxy_requests_total{status="4xx"}'] == 1
            assert numbers['connect_proxy_streams_reset_total{code="BUDGET"}'] == 0
            assert numbers["connect_proxy_visitors"] == 1
        nursery.cancel_scope.cancel()


@pytest.mark.redis
async def test_readiness_follows_redis(redis_server: RedisServer) -> None:
    environ = server_environ() | MANAGED | {"CONNECT_REDIS_ADDRESS": redis_server.address}
    async with trio.open_nursery() as nursery:
        running = await nursery.start(run_server, load_server(environ))
        async with port_at(running.management_port) as port:
            await port.until("/readyz", 200)
            redis_server.stop()
            await port.until("/readyz", 503)
            assert await port.document() == {
                "redis": {"ok": False, "needed": True},
                "listeners": {"ok": True, "needed": True},
            }
            redis_server.start()
            await port.until("/readyz", 200)
        nursery.cancel_scope.cancel()


async def test_a_server_without_redis_is_alive_and_says_what_it_waits_for() -> None:
    (number,) = free_ports(1)
    changes = {"CONNECT_MANAGEMENT_PORT": str(number), "CONNECT_REDIS_ADDRESS": f"127.0.0.1:{dead_port()}"}
    async with trio.open_nursery() as nursery, port_at(number) as port:
        nursery.start_soon(run_server, load_server(server_environ() | changes))
        with trio.fail_after(60):
            while True:
                try:
                    assert await port.status("/livez") == 200
                except httpx2.ConnectError:
                    await trio.sleep(0.01)
                else:
                    break
        assert await port.status("/readyz") == 503
        assert not (await port.document())["redis"]["ok"]
        nursery.cancel_scope.cancel()


async def test_what_the_registry_did_not_answer_is_counted() -> None:
    registry = FlakyRegistry()
    counting = CountingRegistry(registry)
    await counting.find(SESSION)
    registry.away = True
    for _ in range(3):
        with pytest.raises(RegistryUnavailable):
            await counting.find(SESSION)
    assert {reading.labels[0]: reading.value for reading in counting.readings()} == {
        "publish": 0,
        "renew": 0,
        "withdraw": 0,
        "find": 3,
    }


def rows(families: tuple[Family, ...]) -> str:
    lines = ["| metric | labels | meaning |", "|---|---|---|"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        lines.append(f"| `{family.name}` | {labels} | {family.help} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("families", [SERVER, PROXY], ids=["server", "proxy"])
def test_the_tables_of_metrics_are_those_of_the_code(families: tuple[Family, ...]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert rows(families) in text, f"docs/operations.md should have this table:\n{rows(families)}"
    known = {family.name for family in (*SERVER, *PROXY)}
    assert set(re.findall(r"`(connect_[a-z_]+)`", text)) <= known
