"""Many WebSockets at once, and one whose visitor does not read."""

from __future__ import annotations

import json
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio_websocket

from tests.support import echo_tool
from tests.support.e2e import FULL, DevStack, MiB, dev_stack, with_tool
from tests.support.visits import HERE, Visitor, web_socket

CONNECTIONS = 200 if FULL else 50
MESSAGES = 8
LARGEST = MiB
AHEAD = 3
"""Messages that a client sends before it must have one back."""

STANDSTILL = 30.0 if FULL else 3.0
HELD = 32 * MiB
"""What may be on its way to a visitor that does not read, of the 64 MiB that would come: a window of the mux, of up to
16 MiB, and the buffers of four sockets, whose sizes the kernel chooses."""

TIMEOUT = 500 if FULL else 100


@pytest.fixture(scope="module")
def stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("websockets")
    tool = [sys.executable, "-P", str(Path(echo_tool.__file__)), "{port}"]
    with dev_stack(*with_tool(mode, tool), root=root, name=f"websockets-{mode}") as stack:
        yield stack


@pytest.fixture
def alice(stack: DevStack) -> Visitor:
    visitor = Visitor()
    visitor.log_in(stack.private["url"], "alice")
    return visitor


async def test_many_connections_lose_nothing_and_keep_the_order(stack: DevStack, alice: Visitor) -> None:
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            for number in range(CONNECTIONS):
                nursery.start_soon(echo, stack, alice, random.Random(number))


async def test_a_visitor_that_does_not_read_holds_a_window_and_nobody_up(stack: DevStack, alice: Visitor) -> None:
    with trio.fail_after(TIMEOUT):
        async with web_socket(alice, stack.private["url"] + "flood-report") as reports:
            lazy = await open_lazy(alice, stack.private["url"] + "flood")
            with lazy:
                await wait_for_standstill(reports, 0.5)
                # Meanwhile others come and go, over the same tunnel.
                for number in range(4):
                    await echo(stack, alice, random.Random(number))
                report = await wait_for_standstill(reports, STANDSTILL)
                assert echo_tool.BLOCK <= report["written"] <= HELD
                # What was held up is not lost.
                assert await read_flood(lazy) == list(range(echo_tool.FLOOD))


async def echo(stack: DevStack, visitor: Visitor, chance: random.Random) -> None:
    """Some messages of any size and of both kinds, several on the way at once; each must come back in its turn."""
    messages = [make_message(chance) for _ in range(MESSAGES)]
    ahead = trio.Semaphore(AHEAD)
    async with web_socket(visitor, stack.private["url"] + "echo") as connection, trio.open_nursery() as nursery:

        async def send() -> None:
            for message in messages:
                await ahead.acquire()
                await connection.send_message(message)

        nursery.start_soon(send)
        for message in messages:
            # Without a comparison of megabytes in the error message.
            assert (await connection.get_message() == message) is True
            ahead.release()


def make_message(chance: random.Random) -> bytes | str:
    """Up to LARGEST bytes; small ones are as likely as large ones."""
    size = int(LARGEST ** chance.random()) - 1 if chance.random() < 0.9 else LARGEST
    return chance.randbytes(size) if chance.random() < 0.7 else chance.randbytes(size // 2).hex()


async def open_lazy(visitor: Visitor, url: str) -> socket.socket:
    """A WebSocket that has been opened, has sent one message, and from which nobody has read anything more."""
    host = url.removeprefix("http://").partition("/")[0]
    path = url.removeprefix(f"http://{host}")
    client = socket.socket()
    client.connect((HERE, visitor.port_for(url)))
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        f"Cookie: {visitor.cookie_header(url)}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    client.sendall("\r\n".join([*head, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    client.sendall(b"\x82\x80" + bytes(4))  # an empty masked message (RFC 6455 section 5.2): begin
    await trio.lowlevel.checkpoint()
    return client


async def read_flood(client: socket.socket) -> list[int]:
    """The numbers of the messages that come, in order."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    buffer = bytearray()
    numbers: list[int] = []
    header = 10  # FIN and opcode, 127, and a length of 64 bits
    size = header + echo_tool.BLOCK
    while len(numbers) < echo_tool.FLOOD:
        part = await stream.receive_some(MiB)
        assert part, f"the connection ended after message {len(numbers)}"
        buffer += part
        while len(buffer) >= size:
            assert buffer[:2] == b"\x82\x7f"
            numbers.append(int.from_bytes(buffer[header : header + echo_tool.NUMBER], "big"))
            del buffer[:size]
    return numbers


async def wait_for_standstill(reports: trio_websocket.WebSocketConnection, seconds: float) -> dict[str, float]:
    """The flood's report once its present write has waited so long."""
    while True:
        await reports.send_message("?")
        report: dict[str, float] = json.loads(await reports.get_message())
        if report["waits"] >= seconds:
            return report
        await trio.sleep(0.05)
