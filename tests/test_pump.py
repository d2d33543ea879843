"""A socket and a stream, spliced: whatever one of them does, the other one shows."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from connect_trio.mux import session, stream
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.pump import splice
from connect_trio.transport.sockets import Socket
from tests.support.core import CountingChunkPool, CountingPool
from tests.support.mux import Chain, open_chain


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        near = await trio.open_tcp_stream("127.0.0.1", port)
        return near, await listener.accept()


@attrs.define
class Spliced:
    """`visitor` is the far end of the stream, `tool` the far end of the socket; `done` is set when the splice ends."""

    chain: Chain
    visitor: MuxStream
    near: MuxStream
    tool: trio.SocketStream
    scope: trio.CancelScope
    done: trio.Event


@asynccontextmanager
async def open_spliced(*, switched: bool = False, window: int = 1 << 20) -> AsyncIterator[Spliced]:
    async with open_chain(switched=switched, window=window) as chain, trio.open_nursery() as nursery:
        visitor, near = await chain.pair()
        ours, tool = await tcp_pair()
        done, scope = trio.Event(), trio.CancelScope()

        async def run() -> None:
            with scope:
                await splice(Socket.adopt(ours), near, nursery)
            done.set()

        nursery.start_soon(run)
        async with tool:
            with trio.fail_after(60):
                yield Spliced(chain, visitor, near, tool, scope, done)
        nursery.cancel_scope.cancel()


async def read_all(source: trio.abc.ReceiveStream) -> bytes:
    return b"".join([part async for part in source])


async def test_the_end_passes_in_each_direction_by_itself() -> None:
    async with open_spliced() as s:
        await s.visitor.send_all(b"question")
        await s.visitor.send_eof()
        assert await read_all(s.tool) == b"question"
        await s.tool.send_all(b"answer")
        await s.tool.send_eof()
        assert await read_all(s.visitor) == b"answer"
        await s.done.wait()
        await s.visitor.aclose()


async def test_the_tool_may_end_first() -> None:
    async with open_spliced() as s:
        await s.tool.send_all(b"greeting")
        await s.tool.send_eof()
        assert await read_all(s.visitor) == b"greeting"
        await s.visitor.send_all(b"still heard")
        await s.visitor.send_eof()
        assert await read_all(s.tool) == b"still heard"
        await s.done.wait()


@pytest.mark.parametrize("switched", [False, True])
async def test_a_reset_of_the_stream_aborts_the_socket(switched: bool) -> None:
    async with open_spliced(switched=switched) as s:
        await s.visitor.send_all(b"question")
        assert await s.tool.receive_some() == b"question"
        s.visitor.reset("enough")
        with pytest.raises(trio.BrokenResourceError):
            await s.tool.receive_some()
        await s.done.wait()


async def test_the_loss_of_the_wire_is_nothing_that_the_tool_notices(autojump_clock: trio.testing.MockClock) -> None:
    async with open_spliced() as s:
        s.chain.sides[0].session.close("lost")
        with trio.move_on_after(30):
            await s.tool.receive_some()
            raise AssertionError("the tool's connection ended")


async def test_an_error_of_the_socket_resets_the_stream() -> None:
    async with open_spliced() as s:
        await s.tool.send_all(b"some")
        assert await s.visitor.receive_some() == b"some"
        Socket.adopt(s.tool).abort()
        with pytest.raises(StreamBroken, match="the tool's connection ended"):
            await s.visitor.receive_some()
        await s.done.wait()


async def test_a_reset_reaches_a_tool_that_does_not_read() -> None:
    async with open_spliced() as s:
        with trio.move_on_after(0.2):
            await s.visitor.send_all(bytes(50 << 20))
        s.visitor.reset("enough")
        await s.done.wait()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(s.tool)


@pytest.mark.parametrize("switched", [False, True])
async def test_a_tool_that_stops_reading_is_bounded_by_the_window(switched: bool) -> None:
    async with open_spliced(switched=switched) as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.visitor.send_all, bytes(64 << 20))
        await trio.testing.wait_all_tasks_blocked(0.05)
        receive = s.near.core.receive
        assert receive.window.received < 32 << 20, "the kernel's buffers and a window, not everything"
        assert receive.window.buffered <= receive.window.window
        other, theirs = await s.chain.pair()
        await other.send_all(b"not held up")
        assert await theirs.receive_some() == b"not held up"
        got = 0
        while got < 64 << 20:
            got += len(await s.tool.receive_some(1 << 20))


async def test_a_visitor_that_stops_reading_is_bounded_by_the_window() -> None:
    async with open_spliced() as s, trio.open_nursery() as nursery:
        nursery.start_soon(s.tool.send_all, bytes(64 << 20))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert s.near.core.send.window.end == 1 << 20
        got = 0
        while got < 64 << 20:
            got += len(await s.visitor.receive_some(1 << 20))


@pytest.mark.parametrize("size", [100, 20_000])
async def test_the_answer_of_a_tool_that_does_not_read_the_rest_gets_through(size: int) -> None:
    """An upload that the tool refuses: it answers and closes with bytes unread, so that its kernel resets."""
    for _ in range(5):
        async with open_spliced() as s, trio.open_nursery() as nursery:

            async def upload(visitor: MuxStream = s.visitor) -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    await visitor.send_all(bytes(8 << 20))

            nursery.start_soon(upload)
            await s.tool.receive_some(1000)
            await s.tool.send_all(bytes(size))
            await s.tool.aclose()
            got = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while part := await s.visitor.receive_some():
                    got += len(part)
            assert got == size
            nursery.cancel_scope.cancel()


async def test_what_the_tool_said_before_its_connection_broke_gets_through(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 5  # the acknowledgement takes half a second; jumping would outrun the sockets
    for _ in range(8):
        async with open_spliced(switched=True) as s:
            await s.tool.send_all(b"last words")
            Socket.adopt(s.tool).abort()
            await s.done.wait()
            assert await s.visitor.receive_some() == b"last words"
            with pytest.raises(StreamBroken, match="the tool's connection ended"):
                await s.visitor.receive_some()


async def test_a_cancelled_splice_leaves_neither_side_waiting() -> None:
    async with open_spliced() as s:
        await s.visitor.send_all(b"x")
        assert await s.tool.receive_some() == b"x"
        s.scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await s.tool.receive_some()
        with pytest.raises(StreamBroken, match="connection to the tool was closed"):
            await s.visitor.receive_some()


Pace = Callable[[random.Random], Awaitable[object]]


async def fast(rng: random.Random) -> None:
    """No pause."""


async def slow(rng: random.Random) -> None:
    for _ in range(rng.randrange(8)):
        await trio.lowlevel.checkpoint()
    if not rng.randrange(20):
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("window", [1 << 16, 1 << 20])
@pytest.mark.parametrize("paces", [(fast, fast), (slow, fast), (fast, slow), (slow, slow)])
async def test_random_data_arrives_both_ways(
    switched: bool, window: int, paces: tuple[Pace, Pace], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{switched}{window}{paces[0].__name__}{paces[1].__name__}")
    received, sent = CountingPool(session.RECEIVE_BUFFER), CountingChunkPool()
    monkeypatch.setattr(session, "receive_buffers", received)
    monkeypatch.setattr(stream, "chunks", sent)
    monkeypatch.setattr("connect_trio.pump.chunks", sent)
    texts = [rng.randbytes(3_000_000) for _ in paces]
    async with open_spliced(switched=switched, window=window) as s:
        ends: list[trio.abc.HalfCloseableStream] = [s.visitor, s.tool]
        got: list[bytes] = [b"", b""]

        async def send(which: int) -> None:
            at = 0
            while at < len(texts[which]):
                size = rng.choice((1, 100, 5000, 70_000, 500_000))
                await ends[which].send_all(texts[which][at : at + size])
                at += size
                await paces[which](rng)
            await ends[which].send_eof()

        async def receive(which: int) -> None:
            out = bytearray()
            while part := await ends[which].receive_some(rng.choice((100, 4096, 65536, 1 << 20))):
                out += part
                await paces[which](rng)
            got[1 - which] = bytes(out)

        async with trio.open_nursery() as nursery:
            for which in (0, 1):
                nursery.start_soon(send, which)
                nursery.start_soon(receive, which)
        assert got == texts
        await s.done.wait()
        await s.visitor.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not s.chain.wire.ports
        assert not sent.in_use
        assert not received.in_use
