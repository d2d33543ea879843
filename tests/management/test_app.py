"""The management port: who is told what, and who may do what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from connect_trio.management.app import Management
from connect_trio.management.exposition import Exposition
from connect_trio.management.health import Health
from connect_trio.management.server import is_loopback, serve_management
from connect_trio.metrics import SERVER, Reading
from connect_trio.roles.listeners import listen, port_of

KEY = "the-management-key"
WITH_KEY = f"Authorization: Bearer {KEY}"


class Port:
    """A management port. drains: how often it was asked to drain. redis: whether that is there."""

    def __init__(self, port: int, health: Health) -> None:
        self.port = port
        self.health = health
        self.drains: list[bool] = []
        self.redis = True

    async def has_redis(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.redis

    async def raw(self, data: bytes) -> bytes:
        with trio.fail_after(60):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(data)
                try:
                    return b"".join([part async for part in stream])
                except trio.BrokenResourceError:
                    return b""

    async def ask(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        length = [f"Content-Length: {len(body)}"] if body else []
        lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", *headers, *length, "", ""]
        head, _, text = (await self.raw("\r\n".join(lines).encode() + body)).partition(b"\r\n\r\n")
        return int(head.split()[1]), text


@asynccontextmanager
async def open_port(key: str | None = KEY, *, local: bool = True) -> AsyncIterator[Port]:
    sock = listen("127.0.0.1", 0, variable="X")
    health = Health("redis", "listeners")
    port = Port(port_of(sock), health)

    def drain() -> None:
        port.drains.append(True)
        health.draining = True

    readings = [
        Reading("connect_server_tunnels", 3),
        Reading("connect_server_tunnels_ended_total", 2, ("lost",)),
    ]
    management = Management(
        health=health, exposition=Exposition(SERVER, lambda: readings), drain=drain, key=key, local=local
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_management, management, sock)
        yield port
        nursery.cancel_scope.cancel()


async def test_who_is_alive_says_so_whatever_is_missing() -> None:
    async with open_port() as port:
        assert await port.ask("/livez") == (200, b"ok\n")


async def test_readiness_names_each_dependency(autojump_clock: object) -> None:
    async with open_port() as port:
        status, body = await port.ask("/readyz")
        assert status == 503
        assert json.loads(body) == {
            "ready": False,
            "draining": False,
            "checks": {"redis": {"ok": False, "needed": True}, "listeners": {"ok": False, "needed": True}},
        }
        port.health.provide("redis", port.has_redis)
        port.health.provide("listeners", port.has_redis)
        assert (await port.ask("/readyz"))[0] == 200
        port.redis = False
        await trio.sleep(1)
        assert (await port.ask("/readyz"))[0] == 503


async def test_what_is_only_told_makes_nobody_unready() -> None:
    async with open_port() as port:
        for name in ("redis", "listeners"):
            port.health.provide(name, port.has_redis)

        async def away() -> bool:
            raise OSError("no route to host")

        port.health.provide("platform", away)
        status, body = await port.ask("/readyz")
        assert status == 200
        assert json.loads(body)["checks"]["platform"] == {"ok": False, "needed": False}
        assert b"no route" not in body, "what is wrong is told to the log only"


async def test_a_dependency_that_hangs_is_not_there(autojump_clock: object) -> None:
    health = Health("redis")

    async def hang() -> bool:
        await trio.sleep_forever()

    health.provide("redis", hang)
    assert not (await health.look()).ready
    assert trio.current_time() < 2


async def test_those_who_ask_often_cost_one_look() -> None:
    looks = 0

    async def look() -> bool:
        nonlocal looks
        looks += 1
        await trio.lowlevel.checkpoint()
        return True

    health = Health("redis")
    health.provide("redis", look)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(health.look)
    assert looks == 1


async def test_metrics_need_the_key() -> None:
    async with open_port() as port:
        for headers in ([], ["Authorization: Bearer wrong"], [f"Authorization: Basic {KEY}"], [WITH_KEY] * 2):
            assert (await port.ask("/metrics", *headers))[0] == 401, headers
        status, body = await port.ask("/metrics", WITH_KEY)
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        assert families["connect_server_tunnels"].samples[0].value == 3
        (ended,) = families["connect_server_tunnels_ended"].samples
        assert (ended.name, ended.labels, ended.value) == (
            "connect_server_tunnels_ended_total",
            {"reason": "lost"},
            2,
        )
        assert "process_resident_memory_bytes" in families


@pytest.mark.parametrize(("local", "status"), [(True, 200), (False, 403)])
async def test_metrics_without_a_key_are_for_this_machine_alone(local: bool, status: int) -> None:
    async with open_port(None, local=local) as port:
        assert (await port.ask("/metrics"))[0] == status
        assert (await port.ask("/metrics", WITH_KEY))[0] == status


async def test_a_drain_needs_the_key_and_makes_unready() -> None:
    async with open_port() as port:
        for name in ("redis", "listeners"):
            port.health.provide(name, port.has_redis)
        assert (await port.ask("/drain", method="POST"))[0] == 401
        assert not port.drains
        assert (await port.ask("/drain", WITH_KEY, method="POST"))[0] == 202
        assert port.drains == [True]
        status, body = await port.ask("/readyz")
        assert (status, json.loads(body)["draining"]) == (503, True)
        assert (await port.ask("/livez"))[0] == 200


async def test_without_a_key_nobody_drains_not_even_from_this_machine() -> None:
    async with open_port(None) as port:
        assert (await port.ask("/drain", method="POST"))[0] == 403
        assert (await port.ask("/drain", "Authorization: Bearer ", method="POST"))[0] == 403
        assert not port.drains


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/debug/pprof/cmdline", 404),
        ("GET", "/config", 404),
        ("GET", "/drain", 405),
        ("POST", "/livez", 405),
        ("GET", "//livez", 404),
    ],
)
async def test_nothing_else_is_served(method: str, path: str, status: int) -> None:
    async with open_port() as port:
        assert (await port.ask(path, WITH_KEY, method=method))[0] == status
        assert not port.drains


async def test_bodies_are_refused_before_they_are_large() -> None:
    async with open_port() as port:
        assert (await port.ask("/drain", WITH_KEY, method="POST", body=b"x" * 2000))[0] == 413
        assert not port.drains


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"GET /livez HTTP/1.1\r\nA: " + b"x" * 100_000])
async def test_garbage_ends_one_connection(garbage: bytes) -> None:
    async with open_port() as port:
        assert b" 200 " not in await port.raw(garbage)
        assert (await port.ask("/livez"))[0] == 200


def test_loopback_is_told_from_the_rest() -> None:
    for host, loopback in (("127.0.0.1", True), ("0.0.0.0", False)):
        with listen(host, 0, variable="X") as sock:
            assert is_loopback(sock) is loopback
