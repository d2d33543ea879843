"""Visitors who come back do so after 1012 only, and callers tell a request that failed from one to be asked again."""

from __future__ import annotations

import trio

from tests.support.survival_flows import Door
from tests.support.survival_returns import RESTART, Caller, Returning
from tests.support.survival_tool import BLOCK, CLOSE, Frames, SurvivalTool, frame
from tests.support.tools import listening_tool

ME = 7
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


async def head(stream: trio.SocketStream) -> None:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += await stream.receive_some(1)


class Closing:
    """Echoes a message, and closes the second one's WebSocket with these codes, one connection after the other."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)

    async def serve(self, stream: trio.SocketStream) -> None:
        await head(stream)
        await stream.send_all(SWITCHED)
        frames = Frames()
        come = 0
        async for data in stream:
            for opcode, payload in frames.feed(bytes(data)):
                come += 1
                if come == 2 and self._codes:
                    await stream.send_all(frame(CLOSE, self._codes.pop(0).to_bytes(2, "big")))
                    return
                await stream.send_all(frame(opcode, payload))


async def talk(tool: Closing) -> Returning:
    """A conversation until it ends or has had six messages back."""
    async with listening_tool(tool.serve) as port, trio.open_nursery() as nursery:
        conversation = Returning(ME, Door(port, "localhost", ""))
        await conversation.open()
        nursery.start_soon(conversation.run)
        while conversation.error is None and conversation.back < 6:
            if conversation.sent == conversation.back:
                conversation.send()
            await trio.sleep(0.01)
        conversation.leave()
        nursery.cancel_scope.cancel()
    return conversation


async def test_a_conversation_comes_back_after_a_restart() -> None:
    conversation = await talk(Closing(RESTART, RESTART))
    assert conversation.error is None
    assert len(conversation.restarts) == 2
    assert conversation.unanswered == 2


async def test_a_conversation_does_not_come_back_after_anything_else() -> None:
    conversation = await talk(Closing(1001))
    assert conversation.error is not None
    assert "closed with 1001" in conversation.error


async def test_a_caller_counts_answers() -> None:
    async with listening_tool(SurvivalTool().serve) as port, trio.open_nursery() as nursery:
        caller = Caller(ME, Door(port, "localhost", ""), pause=0.01)
        nursery.start_soon(caller.run)
        while caller.answered < 3 and caller.error is None:
            await trio.sleep(0.01)
        caller.stopping.set()
    assert caller.error is None
    assert caller.stale == 0


async def test_a_caller_notices_a_wrong_answer() -> None:
    async def lie(stream: trio.SocketStream) -> None:
        await head(stream)
        left = BLOCK
        while left > 0:
            left -= len(await stream.receive_some(left))
        body = b'{"seen": 1, "wrong": 0}'
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with listening_tool(lie) as port:
        caller = Caller(ME, Door(port, "localhost", ""))
        await caller.run()
    assert caller.error is not None
    assert "the tool saw {'seen': 1, 'wrong': 0}" in caller.error


async def test_a_caller_notices_a_first_request_that_is_not_answered() -> None:
    async with listening_tool(head) as port:
        caller = Caller(ME, Door(port, "localhost", ""))
        await caller.run()
    assert caller.error is not None
    assert caller.stale == 0
