"""Streams that a proxy opens reach the tool, or a refusal that says why; through the whole mux."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from connect_trio.agent.forward import Forwarder
from connect_trio.agent.tool import PATIENCE, Tool, free_port
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.stream import MuxStream, StreamBroken
from tests.support.mux import Chain, open_chain
from tests.support.tools import listening_tool

_tokens = itertools.count(1)


@attrs.frozen
class Bench:
    """An opener whose streams a forwarder serves, through a switch."""

    chain: Chain
    tool: Tool

    def open(self, kind: str = "http") -> MuxStream:
        token = next(_tokens).to_bytes(16, "big")
        chain = self.chain
        return MuxStream(
            chain.opener.open(chain.wire, token=token, now=trio.current_time(), session="23ce7967", kind=kind)
        )

    async def until_nothing_is_left(self) -> None:
        """Wait until no wire has a stream."""
        with trio.fail_after(60):
            while any(side.wire.ports for side in self.chain.sides):
                await trio.sleep(0.01)


@asynccontextmanager
async def bench(port: int) -> AsyncIterator[Bench]:
    tool = Tool(port, start_timeout=60)
    async with open_chain(switched=True) as chain, trio.open_nursery() as nursery:
        forwarder = Forwarder(tool, nursery)

        nursery.start_soon(chain.hand_over, forwarder.on_open)
        yield Bench(chain, tool)
        nursery.cancel_scope.cancel()


async def receive_all(stream: MuxStream) -> bytes:
    return b"".join([part async for part in stream])


async def test_bytes_reach_the_tool_and_come_back() -> None:
    async with listening_tool() as port, bench(port) as ours:
        stream = ours.open()
        data = bytes(range(256)) * 8_000
        got: list[bytes] = []

        async def receive() -> None:
            got.append(await receive_all(stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await stream.send_all(data)
            await stream.send_eof()
        assert got == [data]
        await stream.aclose()
        await ours.until_nothing_is_left()


async def test_an_end_passes_to_the_tool_while_its_answer_still_comes() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        asked = b"".join([part async for part in stream])
        await stream.send_all(b"you asked: " + asked)

    async with listening_tool(serve) as port, bench(port) as ours:
        stream = ours.open()
        await stream.send_all(b"question")
        await stream.send_eof()
        assert await receive_all(stream) == b"you asked: question"
        await ours.until_nothing_is_left()


async def test_an_end_of_the_tool_passes_while_bytes_still_go_to_it() -> None:
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"banner")
        await stream.send_eof()
        asked.append(b"".join([part async for part in stream]))

    async with listening_tool(serve) as port, bench(port) as ours:
        stream = ours.open()
        assert await receive_all(stream) == b"banner"
        await stream.send_all(b"still talking")
        await stream.send_eof()
        await ours.until_nothing_is_left()
    assert asked == [b"still talking"]


@pytest.mark.parametrize("kind", ["shell", "tcp", "", "HTTP"])
async def test_an_unknown_kind_is_refused(kind: str) -> None:
    async with listening_tool() as port, bench(port) as ours:
        with pytest.raises(StreamBroken, match="this agent serves no streams of the kind") as caught:
            await ours.open(kind).wait_accepted()
        assert (caught.value.end.cause, caught.value.end.code) == (FrameType.REJECT, RejectCode.UNSUPPORTED)
        await ours.until_nothing_is_left()


async def test_a_stream_waits_for_a_tool_that_starts_slowly(autojump_clock: trio.testing.MockClock) -> None:
    port = free_port()
    async with bench(port) as ours:
        stream = ours.open()
        await stream.send_all(b"sent before the tool was there")
        await trio.sleep(PATIENCE / 2)
        async with listening_tool(port=port):
            await stream.wait_accepted()
            assert await stream.receive_some() == b"sent before the tool was there"


async def test_a_tool_that_never_listens_is_a_refusal_that_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(free_port()) as ours:
        with pytest.raises(StreamBroken, match="the tool is still starting") as caught:
            await ours.open().wait_accepted()
        assert (caught.value.end.cause, caught.value.end.code) == (FrameType.REJECT, RejectCode.UNREACHABLE)
        await ours.until_nothing_is_left()


async def test_a_tool_that_has_ended_is_a_refusal_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with bench(free_port()) as ours:
        ours.tool.problem = "the tool exited with code 3"
        with pytest.raises(StreamBroken, match="the tool exited with code 3"):
            await ours.open().wait_accepted()
        assert trio.current_time() == 0


@pytest.mark.parametrize("leave", ["reset", "close_now"])
async def test_a_visitor_who_left_before_the_tool_was_there_leaves_nothing(
    autojump_clock: trio.testing.MockClock, leave: str
) -> None:
    port = free_port()
    served: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        served.append(b"".join([part async for part in stream]))

    async with bench(port) as ours:
        stream = ours.open()
        await trio.sleep(1)
        getattr(stream, leave)()
        await trio.sleep(1)
        async with listening_tool(serve, port=port):
            await ours.until_nothing_is_left()
            await trio.sleep(1)
    assert served in ([], [b""])


async def test_a_visitor_who_leaves_cuts_the_tools_connection() -> None:
    cut = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"ready")
        with pytest.raises(trio.BrokenResourceError):
            await receive_forever(stream)
        cut.set()

    async with listening_tool(serve) as port, bench(port) as ours:
        stream = ours.open()
        assert await stream.receive_some() == b"ready"
        stream.reset("the visitor left")
        await cut.wait()
        await ours.until_nothing_is_left()


async def receive_forever(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        continue
    raise AssertionError("the end, and not a reset")


async def test_a_tool_that_resets_is_an_error_and_not_a_short_answer() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half an ans")
        await stream.receive_some()
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with listening_tool(serve) as port, bench(port) as ours:
        stream = ours.open()
        assert await stream.receive_some() == b"half an ans"
        await stream.send_all(b"go on")
        with pytest.raises(StreamBroken, match="the tool's connection ended"):
            await receive_all(stream)
        await ours.until_nothing_is_left()


async def test_many_streams_do_not_mix() -> None:
    async with listening_tool() as port, bench(port) as ours:

        async def visit(number: int) -> None:
            stream = ours.open()
            data = b"%04d" % number * 10_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                got = bytearray()
                while len(got) < len(data):
                    got += await stream.receive_some()
            assert got == data
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(visit, number)
        await ours.until_nothing_is_left()
