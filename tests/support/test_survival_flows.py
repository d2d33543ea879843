"""The flows of survival tests notice what they are there to notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.support.survival_flows import Conversation, Door, message
from tests.support.survival_tool import BINARY, BLOCK, CLOSE, Checked, Frames, content, frame
from tests.support.tools import Serve, listening_tool

MESSAGES = 3
ME = 7

Lie = Callable[[list[bytes]], list[bytes]]
"""Makes of the frames that a tool is to send those that it sends."""


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (lambda frames: frames[1:], f"instead of message 0 there came message 1 of conversation {ME}"),
        (lambda frames: [frames[0], *frames], f"instead of message 1 there came message 0 of conversation {ME}"),
        (lambda frames: frames[::-1], f"instead of message 0 there came message 2 of conversation {ME}"),
        (lambda frames: [frames[0][:-1] + b"?"], "instead of message 0 there came b'"),
        (
            lambda _: [frame(BINARY, message(ME + 1, 0))],
            f"instead of message 0 there came message 0 of conversation {ME + 1}",
        ),
        (lambda frames: [*frames, frames[2]], f"instead of message 3 there came message 2 of conversation {ME}"),
        (lambda frames: frames[:1], "the connection ended (sent 3, back 1)"),
        (lambda _: [frame(CLOSE, (1012).to_bytes(2, "big") + b"restart")], "closed with 1012 restart (sent 3, back 0)"),
    ],
    ids=["lost", "twice", "out of order", "changed", "another's", "twice at the end", "cut", "closed"],
)
async def test_a_conversation_notices_what_is_wrong(lie: Lie, said: str) -> None:
    async with listening_tool(lying(lie)) as port:
        conversation = Conversation(ME, Door(port, "localhost", ""))
        await conversation.open()
        for _ in range(MESSAGES):
            conversation.send()
        await conversation.run()
    assert conversation.error is not None
    assert said in conversation.error


def test_a_checked_stream_knows_where_it_first_was_wrong() -> None:
    whole = content(1, 0, 4 * BLOCK)
    lost = Checked(1)
    for piece in (whole[:BLOCK], whole[BLOCK + 8 :]):
        lost.check(piece)
    assert lost.wrong == BLOCK
    twice = Checked(1)
    for piece in (whole[:BLOCK], whole[:BLOCK], whole[BLOCK:]):
        twice.check(piece)
    assert twice.wrong == BLOCK
    right = Checked(1)
    for begin in range(0, len(whole), 1001):
        right.check(whole[begin : begin + 1001])
    assert (right.wrong, right.seen) == (None, len(whole))


def test_no_stream_has_anything_that_another_has() -> None:
    words = [content(stream, 8 * word, 8) for stream in range(3) for word in range(1000)]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_frames_are_found_in_whatever_pieces_they_come(size: int, masked: bool) -> None:
    payload = content(0, 1, size)
    data = 2 * frame(BINARY, payload, masked=masked)
    frames = Frames()
    found = [one for byte in data for one in frames.feed(bytes([byte]))]
    assert found == 2 * [(BINARY, payload)]
    assert Frames().feed(data) == found


def lying(lie: Lie) -> Serve:
    """A tool that takes MESSAGES messages and sends back what `lie` makes of them."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        frames, come = Frames(), list[bytes]()
        while len(come) < MESSAGES:
            come += [payload for _, payload in frames.feed(await stream.receive_some(BLOCK))]
        await stream.send_all(b"".join(lie([frame(BINARY, payload) for payload in come])))

    return serve
