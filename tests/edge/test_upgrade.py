from __future__ import annotations

import pytest
import trio

from connect_trio.dial import Failure
from connect_trio.edge.gate import Reply
from tests.support.edge import OWN, STUDIO, SWITCHED, answer, eventually, get, open_world, upgrade


async def test_after_a_101_bytes_flow_both_ways() -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade("/ws?token=1", f"Origin: http://{STUDIO}"))
        head = await tool.head()
        assert head.startswith(b"GET /ws?token=1 HTTP/1.1\r\n")
        assert b"Upgrade: websocket\r\nConnection: Upgrade\r\n" in head
        assert b"Sec-WebSocket-Key: eA==\r\n" in head
        assert b"X-Connect-Sub: sub-alice\r\n" in head
        await tool.send(
            b"HTTP/1.1 101 Fine\r\nUPGRADE: WebSocket\r\nconnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
        )
        assert await client.head() == (
            b"HTTP/1.1 101 Fine\r\nSec-WebSocket-Accept: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
        )
        for i in range(3):
            await client.send(b"ping %d" % i)
            assert await tool.exactly(6) == b"ping %d" % i
            await tool.send(b"pong %d" % i)
            assert await client.exactly(6) == b"pong %d" % i


async def test_bytes_that_came_too_early_are_not_lost() -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade() + b"early bird")
        await tool.head()
        await tool.send(SWITCHED + b"early worm")
        await client.head()
        assert await client.exactly(10) == b"early worm"
        assert await tool.exactly(10) == b"early bird"


@pytest.mark.parametrize("first", ["client", "tool"])
async def test_the_end_of_one_direction_passes_through(first: str) -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade())
        await tool.head()
        await tool.send(SWITCHED)
        await client.head()
        one, other = (client, tool) if first == "client" else (tool, client)
        await one.send(b"last words")
        await one.stream.send_eof()
        assert await other.rest() == b"last words"
        await other.send(b"an answer to them")
        await other.stream.send_eof()
        assert await one.rest() == b"an answer to them"
        await eventually(lambda: world.edge.connections == 0)


async def test_much_data_flows_both_ways_at_once() -> None:
    data = bytes(range(256)) * 20_000
    async with open_world() as world:
        client, tool = await world.request(upgrade())
        await tool.head()
        await tool.send(SWITCHED)
        await client.head()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, data)
            nursery.start_soon(tool.send, data)
            assert await tool.exactly(len(data)) == data
            assert await client.exactly(len(data)) == data


@pytest.mark.parametrize("gone", ["client", "tool"])
async def test_a_reset_of_one_side_resets_the_other(gone: str) -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade())
        await tool.head()
        await tool.send(SWITCHED)
        await client.head()
        one, other = (client, tool) if gone == "client" else (tool, client)
        one.reset()
        assert await other.is_reset()


async def test_another_answer_than_101_is_passed_on_and_ends_the_connection() -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade() + get("/smuggled"))
        await tool.head()
        await tool.send(answer(b"no", status="403 Forbidden"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"Connection: close\r\n" in head
        assert await client.rest() == b"no"
        assert await tool.rest() == b"", "the bytes after the upgrade went nowhere"


@pytest.mark.parametrize(
    "text",
    [
        SWITCHED.replace(b"websocket", b"other"),
        SWITCHED.replace(b"Upgrade: websocket\r\n", b""),
        SWITCHED.replace(b"Connection: Upgrade\r\n", b""),
    ],
    ids=["another protocol", "no protocol", "no Connection"],
)
async def test_a_101_that_does_not_fit_the_question_is_a_bad_gateway(text: bytes) -> None:
    async with open_world() as world:
        client, tool = await world.request(upgrade())
        await tool.head()
        await tool.send(text)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")
        assert await tool.is_reset()


@pytest.mark.parametrize(
    "headers",
    [
        ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAAA"),
        ("Upgrade: TLS/1.2", "Connection: Upgrade"),
        ("Upgrade: websocket",),
        ("Upgrade: websocket", "Connection: keep-alive"),
        ("Upgrade: websocket", "Connection: Upgrade", "Content-Length: 1"),
    ],
)
async def test_an_improper_upgrade_is_an_ordinary_request(headers: tuple[str, ...]) -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", *headers) + (b"x" if "Content-Length: 1" in headers else b""))
        head = await tool.head()
        assert b"Upgrade" not in head
        assert b"Connection:" not in head
        await tool.send(SWITCHED)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")


async def test_other_protocols_than_websocket_can_be_switched_to() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Upgrade: tcp, h2c", "Connection: upgrade"))
        assert b"Upgrade: tcp\r\n" in await tool.head()
        await tool.send(SWITCHED.replace(b"websocket", b"tcp") + b"hello")
        assert b"Upgrade: tcp\r\n" in await client.head()
        assert await client.exactly(5) == b"hello"


FOREIGN = {
    "another site": ("Origin: http://evil.example",),
    "a sibling": ("Origin: http://a00000001.connect.localhost:8080",),
    "Connect itself": (f"Origin: http://{OWN}",),
    "another scheme": (f"Origin: https://{STUDIO}",),
    "another port": ("Origin: http://a23ce7967.connect.localhost:9999",),
    "null": ("Origin: null",),
    "an empty one": ("Origin:",),
    "two": (f"Origin: http://{STUDIO}", "Origin: http://evil.example"),
    "none, from a browser": ("Sec-Fetch-Site: cross-site",),
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
async def test_an_upgrade_from_a_foreign_origin_is_refused(headers: tuple[str, ...]) -> None:
    async with open_world() as world:
        assert (await world.ask(upgrade("/ws", *headers))).startswith(b"HTTP/1.1 403 ")
        assert not world.dialer.targets
        assert not world.gate.requests


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        (STUDIO, (f"Origin: http://{STUDIO}", "Sec-Fetch-Site: same-origin")),
        (STUDIO, ()),
        ("a23ce7967.connect.localhost:9001", ("Origin: http://a23ce7967.connect.localhost:9001",)),
        ("a23ce7967.connect.localhost", (f"Origin: http://{STUDIO}",)),
    ],
    ids=["own origin", "no browser", "the port of one proxy", "behind a front proxy that drops the port"],
)
async def test_an_upgrade_from_the_studios_own_origin_passes(host: str, headers: tuple[str, ...]) -> None:
    async with open_world() as world:
        _, tool = await world.request(upgrade("/ws", *headers, host=host))
        await tool.head()


async def test_the_gate_is_asked_about_upgrades_too() -> None:
    async with open_world() as world:
        world.gate.verdict = Reply(status=401)
        found = await world.ask(upgrade() + b"not a request")
        assert found.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close\r\n" in found
        assert world.gate.requests[0].upgrade


async def test_an_upgrade_that_reaches_no_tool_ends_the_connection() -> None:
    async with open_world() as world:
        world.dialer.refusal = Failure(status=502, part="agent", text="It is away.")
        found = await world.ask(upgrade() + get("/smuggled"))
        assert found.startswith(b"HTTP/1.1 502 ")
        assert found.count(b"HTTP/1.1 ") == 1
