from __future__ import annotations

import json
import socket

import pytest

from connect_trio.edge.context import Limits
from connect_trio.edge.gate import Reply
from tests.support.edge import OWN, PROXY, SWITCHED, Peer, World, answer, eventually, get, open_world, upgrade


def tunnel(*headers: str) -> bytes:
    return upgrade("/_connect/tunnel", "Authorization: Bearer secret", *headers, host=OWN)


def message(found: bytes) -> str:
    error = json.loads(found.partition(b"\r\n\r\n")[2])["error"]
    assert (error["status"], error["part"]) == (502, "server")
    return str(error["message"])


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def open_tunnel(world: World) -> tuple[Peer, Peer]:
    """An agent that asked for a tunnel, and the server that was asked for it."""
    server = await world.listen()
    world.servers.append(("127.0.0.1", server.port))
    agent = await world.client()
    await agent.send(tunnel())
    return agent, await server.accept()


async def test_a_tunnel_is_handed_on_to_a_server_and_carried() -> None:
    async with open_world() as world:
        server = await world.listen()
        world.servers.append(("127.0.0.1", server.port))
        agent = await world.client()
        await agent.send(tunnel("X-Connect-Session: forged", "X_Connect_Instance: forged", "Cookie: a=b") + b"early")
        wire = await server.accept()
        head = await wire.head()
        assert head == (
            b"GET /_connect/tunnel HTTP/1.1\r\nHost: connect.localhost:8080\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
            b"X-Forwarded-For: 127.0.0.1\r\nX-Connect-Session: 23ce7967\r\nX-Connect-Instance: 0f\r\n"
            b"X-Connect-Issued: 1700000000\r\nX-Connect-Via: %b\r\n\r\n" % PROXY.hex().encode()
        )
        await wire.send(SWITCHED + b"first")
        head = await agent.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nX-Connect-Proxy: %b\r\n" % PROXY.hex().encode() in head
        assert await agent.exactly(5) == b"first"
        assert await wire.exactly(5) == b"early"
        await agent.send(b"to server")
        assert await wire.exactly(9) == b"to server"
        await agent.stream.send_eof()
        assert await wire.rest() == b""
        await wire.send(b"to agent")
        await wire.close()
        assert await agent.rest() == b"to agent"
        await eventually(lambda: world.edge.connections == 0)
        assert world.edge.scopes.live() == {}


async def test_the_gates_refusal_reaches_the_agent() -> None:
    async with open_world() as world:
        world.gate.tunnel = Reply(status=401, body=b"who are you?")
        found = await world.ask(tunnel())
        assert found.startswith(b"HTTP/1.1 401 ")
        assert found.endswith(b"who are you?")


async def test_the_next_server_is_asked_if_one_is_away_or_refuses() -> None:
    async with open_world() as world:
        refusing, willing = await world.listen(), await world.listen()
        world.servers[:] = [("127.0.0.1", port) for port in (unused_port(), refusing.port, willing.port)]
        agent = await world.client()
        await agent.send(tunnel())
        wire = await refusing.accept()
        await wire.head()
        await wire.send(answer(b"draining", status="503 Service Unavailable"))
        wire = await willing.accept()
        await wire.head()
        await wire.send(SWITCHED)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


async def test_a_tunnel_that_finds_no_server_waits_for_one() -> None:
    async with open_world() as world:
        agent = await world.client()
        await agent.send(tunnel())
        await eventually(lambda: len(world.picked) >= 2)
        server = await world.listen()
        world.servers.append(("127.0.0.1", server.port))
        wire = await server.accept()
        await wire.head()
        await wire.send(SWITCHED)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


async def test_without_a_server_the_agent_is_told_so_in_the_end() -> None:
    async with open_world(limits=Limits(server_wait=0)) as world:
        assert message(await world.ask(tunnel())) == "There is no server to take the tunnel."
        port = unused_port()
        world.servers.append(("127.0.0.1", port))
        assert f"127.0.0.1:{port} cannot be reached" in message(await world.ask(tunnel()))


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"", "the connection ended"),
        (b"SSH-2.0-x\r\n\r\n", "did not answer properly"),
        (answer(b"", status="403 Forbidden"), "answered 403"),
        (SWITCHED.replace(b"websocket", b"other"), "answered 101"),
    ],
)
async def test_a_server_that_does_not_switch_is_named(reply: bytes, text: str) -> None:
    async with open_world(limits=Limits(server_wait=0)) as world:
        agent, wire = await open_tunnel(world)
        await wire.head()
        await wire.send(reply)
        await wire.close()
        assert text in message(await agent.rest())


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async with open_world(limits=Limits(server_answer=0.05, server_wait=0, linger=0.2)) as world:
        agent, wire = await open_tunnel(world)
        await wire.head()
        assert "not in time" in message(await agent.rest())
        assert await wire.is_reset()


@pytest.mark.parametrize("gone", ["agent", "server"])
async def test_a_reset_of_one_side_resets_the_other(gone: str) -> None:
    async with open_world() as world:
        agent, wire = await open_tunnel(world)
        await wire.head()
        await wire.send(SWITCHED)
        await agent.head()
        one, other = (agent, wire) if gone == "agent" else (wire, agent)
        one.reset()
        assert await other.is_reset()


async def test_only_a_websocket_is_a_tunnel() -> None:
    async with open_world() as world:
        assert (await world.ask(get("/_connect/tunnel", host=OWN))).startswith(b"HTTP/1.1 404 ")
        assert (await world.ask(upgrade("/_connect/tunnel"))).startswith(b"HTTP/1.1 404 "), "not on a Studio's host"
        assert (await world.ask(upgrade("/_connect/other", host=OWN))).startswith(b"HTTP/1.1 404 ")
