"""The role `server`: what it refuses, in one line each, and that it goes on."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from unittest.mock import ANY

import pytest
import trio
import trio.testing

from connect_trio.config import load_server
from connect_trio.mux import frames
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import FrameType, Hello
from connect_trio.roles.listeners import CannotListen, listen, port_of
from connect_trio.roles.server import ServerRunning, run_server
from connect_trio.roles.server_links import HANDSHAKE
from connect_trio.routing.registry import RegistryUnavailable, Route
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.trusted import PROOF_TIMEOUT
from tests.support.dialled import INSTANCE, DialledTunnel, ask, dialled_tunnel
from tests.support.stack import server_environ
from tests.support.tables import OTHER, SESSION, FlakyRegistry
from tests.support.tools import dead_port
from tests.support.trust import open_trusted

NO_TIMES = ["", "-1", "+1", "01", "1.5", "1e9", " ", "0x1", "now", "\xb2", str(2**40 + 1), "9" * 13, "9" * 5000]
GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    bytes(1000),
    b"\xff" * 1000,
    frames.encode_hello(Hello(peer=Peer.ACCEPTOR, instance=b"A" * 16)) * 2,
    frames.encode(FrameType.PING, 0, bytes(8)),
]


@asynccontextmanager
async def open_server() -> AsyncIterator[tuple[ServerRunning, FlakyRegistry]]:
    registry = FlakyRegistry()
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(run_server, load_server(server_environ()), registry=registry))
        yield running, registry
        nursery.cancel_scope.cancel()


async def answer_to(
    port: int, data: bytes, *, hang_up: bool = False, purpose: Purpose | None = Purpose.TUNNEL
) -> bytes:
    """Everything that the server says to these bytes until it closes the connection. purpose: None to prove nothing."""
    opened = trio.open_tcp_stream("127.0.0.1", port) if purpose is None else open_trusted(port, purpose)
    async with await opened as stream:
        await stream.send_all(data)
        try:
            if hang_up:
                await stream.send_eof()
            return b"".join([part async for part in stream])
        except trio.BrokenResourceError:
            return b""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Log lines about connections."""
    return [record.message for record in caplog.records if record.message != "server is ready"]


async def still_serves(running: ServerRunning, registry: FlakyRegistry) -> None:
    """A tunnel can still be opened and is published."""
    async with dialled_tunnel(running.tunnel_port):
        with trio.fail_after(60):
            while not await registry.find(SESSION):
                await trio.sleep(0.01)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_on_the_port_of_links_is_one_line(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server() as (running, registry):
        with trio.fail_after(60):
            await answer_to(running.listener_port, garbage, hang_up=True, purpose=Purpose.LINK)
            while not lines(caplog):
                await trio.sleep(0.01)
        assert lines(caplog) == ["link ended"]
        await still_serves(running, registry)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_on_the_port_of_tunnels_is_one_line(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server() as (running, registry):
        with trio.fail_after(60):
            assert await answer_to(running.tunnel_port, garbage, hang_up=True) == b""
            while not lines(caplog):
                await trio.sleep(0.01)
        assert lines(caplog) == ["not a tunnel"]
        await still_serves(running, registry)


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (ask(session=""), "a tunnel that did not come through a proxy"),
        (ask(instance=""), "a tunnel that did not come through a proxy"),
        (ask(session="a23ce7967"), "not a session id"),
        (ask(session="store:x"), "not a session id"),
        (ask(session="../../xx"), "not a session id"),
        (ask(session="23CE7967"), "not a session id"),
        (ask(instance="ab"), "not an agent's instance"),
        (ask(instance="AB" * 16), "not an agent's instance"),
        (ask(instance="x" * 32), "not an agent's instance"),
        (ask(issued=None), "not the time when a token was issued"),
        *[(ask(issued=issued), "not the time when a token was issued") for issued in NO_TIMES],
    ],
)
async def test_a_tunnel_without_a_proper_name_is_refused_and_nothing_is_published(
    request_bytes: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, registry):
        hello = frames.encode_hello(Hello(peer=Peer.ACCEPTOR, instance=bytes.fromhex(INSTANCE)))
        await answer_to(running.tunnel_port, request_bytes + hello)
        assert len(lines(caplog)) == 1
        assert reason in vars(caplog.records[-1])["reason"]
        assert registry.count("publish") == 0


async def connector_of(running: ServerRunning, registry: FlakyRegistry) -> str:
    await still_serves(running, registry)
    return (await registry.find(SESSION))[0].connector


@pytest.mark.parametrize("carrier", ["connect-mux", "websocket"])
async def test_a_server_that_is_to_be_avoided_says_so(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_server() as (running, registry):
        connector = await connector_of(running, registry)
        found = await answer_to(running.tunnel_port, ask(carrier=carrier, avoid=f"{'01' * 16}, {connector}"))
        head, _, body = found.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 409 Conflict\r\n")
        assert json.loads(body) == {"error": "the agent has a tunnel at this server already"}
        assert lines(caplog) == []


async def test_a_server_that_is_not_among_those_to_avoid_takes_the_tunnel() -> None:
    async with open_server() as (running, _), await open_trusted(running.tunnel_port, Purpose.TUNNEL) as stream:
        await stream.send_all(ask(avoid="01" * 16))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


async def test_a_wish_that_no_proxy_passes_on_is_refused() -> None:
    async with open_server() as (running, registry):
        found = await answer_to(running.tunnel_port, ask(avoid="x"))
        assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"x-connect-avoid: it must be 1 to 8 ids" in found
        await still_serves(running, registry)


class SlowToForget(FlakyRegistry):
    """A registry that a server cannot take leave of before `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.released = trio.Event()

    async def withdraw(self, route: Route) -> bool:
        await self.released.wait()
        return await super().withdraw(route)


async def test_a_server_that_stops_takes_no_more_tunnels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connect_trio.roles.server.STOP", 60.0)
    registry = SlowToForget()
    hello = frames.encode_hello(Hello(peer=Peer.ACCEPTOR, instance=bytes.fromhex(INSTANCE)))
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(run_server, load_server(server_environ()), registry=registry))
        async with (
            dialled_tunnel(running.tunnel_port),
            await open_trusted(running.tunnel_port, Purpose.TUNNEL) as late,
        ):
            await late.send_all(ask())
            assert (await late.receive_some()).startswith(b"HTTP/1.1 101 ")
            with trio.fail_after(60):
                while not await registry.find(SESSION):
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                found = await answer_to(running.tunnel_port, ask())
                assert found.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert found.endswith(b'{"error": "this server stops"}\n')
                await late.send_all(hello)
                assert b"the server stops" in b"".join([part async for part in late])
                registry.released.set()


async def test_a_server_that_stops_does_not_take_a_tunnel_that_proves_itself_too_late() -> None:
    registry = SlowToForget()
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(run_server, load_server(server_environ()), registry=registry))
        async with (
            dialled_tunnel(running.tunnel_port),
            await open_trusted(running.tunnel_port, Purpose.TUNNEL) as stream,
        ):
            late = DialledTunnel(stream)
            with trio.CancelScope(shield=True):
                await late.greet(session=OTHER)
                while await late.hear() != (FrameType.HELLO, ANY):
                    pass
                while not await registry.find(SESSION):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                await late.prove()
                assert b"the server stops" in await late.serve()
                registry.released.set()
        assert await registry.find(OTHER) == []


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize("port", ["listener_port", "tunnel_port"])
async def test_who_says_nothing_is_left_in_time(
    autojump_clock: trio.testing.MockClock, port: str, proven: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    purpose = Purpose.LINK if port == "listener_port" else Purpose.TUNNEL
    async with open_server() as (running, _):
        await answer_to(getattr(running, port), b"", purpose=purpose if proven else None)
        assert trio.current_time() <= (HANDSHAKE if proven else PROOF_TIMEOUT) + 0.1
        assert len(lines(caplog)) == 1


async def test_a_port_in_use_is_named() -> None:
    for variable in ("CONNECT_LISTENER_PORT", "CONNECT_TUNNEL_PORT"):
        with listen("127.0.0.1", 0, variable="X") as taken:
            settings = load_server(server_environ() | {variable: str(port_of(taken))})
            with pytest.RaisesGroup(
                pytest.RaisesExc(CannotListen, match=f"is in use.*{variable}"), flatten_subgroups=True
            ):
                await run_server(settings, registry=FlakyRegistry())
    gc.collect()


async def test_a_registry_that_is_not_there_is_named(autojump_clock: trio.testing.MockClock) -> None:
    port = dead_port()
    settings = load_server(server_environ() | {"CONNECT_REDIS_ADDRESS": f"127.0.0.1:{port}"})
    with pytest.RaisesGroup(pytest.RaisesExc(RegistryUnavailable, match=f"127.0.0.1:{port}"), flatten_subgroups=True):
        await run_server(settings)
    gc.collect()


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, "127.0.0.1:{port}"),
        ({"CONNECT_BIND_HOST": "0.0.0.0"}, "{hostname}:{port}"),
        ({"CONNECT_BIND_HOST": ""}, "{hostname}:{port}"),
        ({"CONNECT_HOST_DOMAIN": "connect.svc"}, "{hostname}.connect.svc:{port}"),
        ({"CONNECT_ADVERTISE_ADDRESS": "server-0:1234"}, "server-0:1234"),
    ],
)
async def test_the_published_address_can_be_reached(
    environ: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "server-of-the-test")
    async with trio.open_nursery() as nursery:
        settings = load_server(server_environ() | environ)
        running = await nursery.start(partial(run_server, settings, registry=FlakyRegistry()))
        assert running.address == address.format(port=running.listener_port, hostname="server-of-the-test")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("checkpoints", range(0, 40, 3))
async def test_stopping_at_any_moment_leaves_nothing(checkpoints: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_server, load_server(server_environ()), registry=FlakyRegistry()))
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    gc.collect()
