"""The WebSocket carrier against trio-websocket, and against bytes that no good peer sends."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream
from wsproto import ConnectionType
from wsproto.connection import Connection

from connect_trio.mux.transport import Transport
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.tunnels import accept_tunnel
from connect_trio.transport.websocket import MESSAGE, WebSocketTransport, connect_websocket
from tests.support.examples import examples
from tests.support.transports import (
    PATIENCE,
    fill,
    read_exactly,
    read_some,
    read_to_end,
    socket_pair,
    tcp_pair,
    write_all,
)

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
Independent = Callable[[], AbstractAsyncContextManager[tuple[WebSocketConnection, Transport]]]


@asynccontextmanager
async def independent_client() -> AsyncIterator[tuple[WebSocketConnection, Transport]]:
    """A client of trio-websocket, and our server's side."""
    near, far = await tcp_pair()
    theirs = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    inner = SocketTransport(Socket(far))
    ours: list[Transport] = []

    async def accept() -> None:
        request, opened = await accept_tunnel(inner)
        assert request.carrier == b"websocket"
        ours.append(opened.transport)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as handshake:
                handshake.start_soon(accept)
                client = await wrap_client_stream(nursery, theirs, "connect.test", "/_connect/tunnel")
            yield client, ours[0]
            nursery.cancel_scope.cancel()
    inner.close()
    await trio.aclose_forcefully(theirs)


@asynccontextmanager
async def independent_server() -> AsyncIterator[tuple[WebSocketConnection, Transport]]:
    """A server of trio-websocket, and our client's side."""
    near, far = await tcp_pair()
    theirs = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    inner = SocketTransport(Socket(far))
    accepted: list[WebSocketConnection] = []

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                request = await wrap_server_stream(nursery, theirs)
                assert (b"x-sent", b"along") in request.headers
                accepted.append(await request.accept())

            async with trio.open_nursery() as handshake:
                handshake.start_soon(serve)
                ours, _ = await connect_websocket(
                    inner, host="connect.test", target="/t", headers=[(b"X-Sent", b"along")]
                )
            yield accepted[0], ours
            nursery.cancel_scope.cancel()
    inner.close()
    await trio.aclose_forcefully(theirs)


both_sides = pytest.mark.parametrize("independent", [independent_client, independent_server])


@both_sides
async def test_bytes_pass_to_and_from_an_independent_peer(independent: Independent) -> None:
    async with independent() as (peer, ours):
        for message in (b"x", b"y" * 125, b"z" * 126, b"w" * 70_000):
            await peer.send_message(message)
            assert await read_exactly(ours, len(message)) == message
            await write_all(ours, message)
            assert await message_bytes(peer, len(message)) == message


@both_sides
async def test_an_independent_peers_ping_is_answered(independent: Independent) -> None:
    async with independent() as (peer, ours):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.ping, b"are you there")
            await trio.testing.wait_all_tasks_blocked()
            assert ours.receive_now(memoryview(bytearray(10))) is None
        await peer.send_message(b"after")
        assert await read_exactly(ours, 5) == b"after"


@both_sides
async def test_an_independent_peers_close_is_answered_and_is_the_end(independent: Independent) -> None:
    async with independent() as (peer, ours):
        await peer.send_message(b"last words")

        async def read() -> None:
            assert await read_to_end(ours) == b"last words"
            ours.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await peer.aclose(1001, "going away")
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            ours.send_now((b"too late",))


@both_sides
async def test_our_close_ends_an_independent_peer(independent: Independent) -> None:
    async with independent() as (peer, ours):
        await write_all(ours, b"bye")
        ours.close()
        assert await message_bytes(peer, 3) == b"bye"
        with pytest.raises(ConnectionClosed):
            await peer.get_message()


@both_sides
async def test_text_messages_are_refused(independent: Independent) -> None:
    async with independent() as (peer, ours):
        await peer.send_message("text")
        with pytest.raises(trio.BrokenResourceError, match="a text message came"):
            await read_some(ours)


# The rest speaks frames byte by byte.


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True) -> bytes:
    """One frame as a client sends it (RFC 6455, section 5.2), with a mask of zeroes."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    extended = b"" if size < 126 else struct.pack("!H" if size < 65536 else "!Q", size)
    return bytes([opcode | final << 7, short | masked << 7]) + extended + (bytes(4) if masked else b"") + payload


@asynccontextmanager
async def server_side() -> AsyncIterator[tuple[Transport, WebSocketTransport]]:
    """Raw bytes of a client, and our established server side."""
    async with socket_pair() as (client, inner):
        with trio.fail_after(PATIENCE):
            yield client, WebSocketTransport(inner, Connection(ConnectionType.SERVER))


async def test_the_pieces_of_a_fragmented_message_are_just_bytes() -> None:
    async with server_side() as (client, ours):
        message = frame(BINARY, b"one ", final=False) + frame(PING, b"between") + frame(0, b"two ", final=False)
        await write_all(client, message + frame(0, b"three"))
        assert await read_exactly(ours, 13) == b"one two three"
        assert await read_some(client) == frame(PONG, b"between", masked=False)


async def test_empty_messages_are_nothing_at_all() -> None:
    async with server_side() as (client, ours):
        await write_all(client, frame(BINARY), frame(BINARY, b"x"))
        assert await read_some(ours) == b"x"


@pytest.mark.parametrize(
    "wrong",
    [
        frame(BINARY, b"not masked", masked=False),
        frame(3, b"reserved opcode"),
        frame(PING, b"x" * 126),
        frame(0, b"continues nothing"),
        frame(BINARY | 0x40, b"reserved bit"),
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100),
    ],
)
async def test_what_breaks_the_framing_ends_the_connection(wrong: bytes) -> None:
    async with server_side() as (client, ours):
        await write_all(client, wrong)
        with pytest.raises(trio.BrokenResourceError, match="not a WebSocket any more"):
            await read_some(ours)


async def test_a_close_frame_ends_reading_and_writing() -> None:
    async with server_side() as (client, ours):
        await write_all(client, frame(BINARY, b"data"), frame(CLOSE, struct.pack("!H", 1000)))
        assert await read_to_end(ours) == b"data"
        assert await read_some(client) == frame(CLOSE, struct.pack("!H", 1000), masked=False)
        with pytest.raises(trio.BrokenResourceError, match="the peer closed the WebSocket"):
            ours.send_now((b"x",))


async def test_the_end_is_there_to_be_read_although_the_peer_keeps_the_connection() -> None:
    async with server_side() as (client, ours):
        await write_all(client, frame(BINARY, b"data"), frame(CLOSE))
        await ours.wait_readable()
        assert ours.receive_now(memoryview(bytearray(100))) == 4
        await ours.wait_readable()
        assert ours.receive_now(memoryview(bytearray(100))) == 0


async def test_a_connection_cut_within_a_frame_is_the_end() -> None:
    async with server_side() as (client, ours):
        await write_all(client, frame(BINARY, b"x" * 50)[:20])
        client.close()
        assert await read_to_end(ours) == b"x" * 14


async def test_one_send_makes_one_message_of_bounded_size() -> None:
    async with server_side() as (client, ours):
        assert ours.send_now((b"ab", bytearray(b"cd"), memoryview(b"ef"))) == 6
        assert await read_exactly(client, 8) == frame(BINARY, b"abcdef", masked=False)
        assert ours.send_now((b"x" * MESSAGE, b"y")) == MESSAGE


async def test_a_peer_that_does_not_read_makes_us_hold_one_message() -> None:
    async with server_side() as (client, ours):
        sent = fill(ours, b"x" * MESSAGE)
        assert ours.pending
        assert held(ours) <= MESSAGE + 14
        expected = frame(BINARY, b"x" * MESSAGE, masked=False) * (sent // MESSAGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, ours)
            assert await read_exactly(client, len(expected)) == expected
        assert not ours.pending


async def test_a_peer_that_pings_without_reading_makes_us_hold_one_answer() -> None:
    async with server_side() as (client, ours):
        fill(ours, b"x" * MESSAGE)
        before = held(ours)
        for i in range(200):
            await write_all(client, frame(PING, b"%0125d" % i))
            assert ours.receive_now(memoryview(bytearray(10))) is None
        assert held(ours) - before <= 127
        newest = frame(PONG, b"%0125d" % 199, masked=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, ours)
            out = bytearray()
            while not out.endswith(newest):
                out += await read_some(client)


def held(transport: WebSocketTransport) -> int:
    """Bytes that wait in the transport itself."""
    pong = transport._pong
    return len(transport._out) + len(pong or b"")


class Trickle:
    """A transport in memory that takes and gives as few bytes at a time as it is told."""

    pending = False

    def __init__(self, incoming: bytes, steps: list[int]) -> None:
        self.incoming = incoming
        self.outgoing = bytearray()
        self._steps = steps
        self._at = 0

    def _step(self) -> int:
        self._at += 1
        return self._steps[self._at % len(self._steps)]

    def send_now(self, parts: Sequence[bytes | bytearray | memoryview]) -> int:
        data = b"".join(parts)[: self._step()]
        self.outgoing += data
        return len(data)

    def receive_now(self, into: memoryview) -> int | None:
        data = self.incoming[: min(len(into), self._step())]
        self.incoming = self.incoming[len(data) :]
        into[: len(data)] = data
        return len(data) if data or not self.incoming else None

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.incoming = b""


steps = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)
messages = st.lists(
    st.tuples(st.sampled_from([BINARY, PING, PONG]), st.binary(max_size=125), st.booleans()), max_size=20
)


@examples(60)
@given(messages, steps, st.integers(1, 50))
def test_any_cut_of_the_bytes_gives_the_same_stream(
    sent: list[tuple[int, bytes, bool]], cuts: list[int], most: int
) -> None:
    incoming, expected, open_message = b"", b"", False
    for opcode, payload, final in sent:
        if opcode == BINARY:
            incoming += frame(0 if open_message else BINARY, payload, final=final)
            expected += payload
            open_message = not final
        else:
            incoming += frame(opcode, payload)
    transport = WebSocketTransport(Trickle(incoming, cuts), Connection(ConnectionType.SERVER))
    assert trio.run(lambda: read_to_end(transport, size=most)) == expected


@examples(60)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=12), steps)
def test_any_cut_of_the_output_gives_whole_frames(sent: list[bytes], cuts: list[int]) -> None:
    inner = Trickle(b"", cuts)
    transport = WebSocketTransport(inner, Connection(ConnectionType.SERVER))

    async def send() -> None:
        for data in sent:
            await write_all(transport, data)

    trio.run(send)
    assert inner.outgoing == b"".join(frame(BINARY, data, masked=False) for data in sent)


@examples(80)
@given(st.binary(max_size=2000), steps)
def test_no_bytes_make_it_fail_in_another_way(noise: bytes, cuts: list[int]) -> None:
    transport = WebSocketTransport(Trickle(noise, cuts), Connection(ConnectionType.SERVER))

    async def read() -> None:
        try:
            await read_to_end(transport)
        except trio.BrokenResourceError:
            return

    trio.run(read)


async def message_bytes(peer: WebSocketConnection, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        message = await peer.get_message()
        assert isinstance(message, bytes)
        out += message
    return bytes(out)
