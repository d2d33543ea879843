"""Bodies on their way, in either direction: read by their framing, written with our own, never collected.

(But for `collect`, of what is meant for Connect itself.)

Each function sends `head` first, together with the part of the body that is already there. Backpressure is end to
end: nothing is read before what was read last has been taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from trio.lowlevel import checkpoint

from connect_trio.dial import Failure
from connect_trio.edge.errors import ToolFailed
from connect_trio.httpio import ChunkedBody, Inbox, RequestHead
from connect_trio.mux.buffers import Buffer
from connect_trio.transport.sockets import Data

TRUNCATED = Failure(status=502, part="tool", text="The tool ended its answer before it was complete.")
_LAST_CHUNK = b"0\r\n\r\n"


class Source(Protocol):
    """Whoever sends a body. An empty view is the end of the stream; a visitor's raises VisitorGone instead."""

    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]: ...


class Sink(Protocol):
    """Whoever receives it."""

    async def send_all(self, data: Data) -> None: ...


async def relay_length(head: bytes, length: int, inbox: Inbox, source: Source, sink: Sink) -> None:
    """A body of known length: its bytes are counted, not parsed, and pass as views of what they were received in.

    What follows the body stays in the inbox. Raises ToolFailed if the stream ends before.
    """
    ready = min(len(inbox), length)
    await sink.send_all(head + inbox.take(ready) if ready else head)
    left = length - ready
    while left:
        view, buffer = await source.receive_view()
        if not view:
            raise ToolFailed(TRUNCATED)
        try:
            if len(view) > left:
                inbox.feed(view[left:])
                view = view[:left]
            await sink.send_all(view)
            left -= len(view)
        finally:
            if buffer is not None:
                buffer.drop()
        if left:
            await checkpoint()


async def relay_chunked(head: bytes, inbox: Inbox, source: Source, sink: Sink, *, chunked: bool) -> None:
    """A chunked body, written in chunks again or, for a peer that cannot read chunks, plain.

    Raises ToolFailed if the stream ends before, HttpError if the chunks are malformed.
    """
    body = ChunkedBody(inbox)
    while True:
        out: list[Data] = [head] if head else []
        _append(out, body.take(), chunked=chunked)
        if body.ended and chunked:
            out.append(_LAST_CHUNK)
        if out:
            await sink.send_all(b"".join(out))
        if body.ended:
            return
        head = b""
        await _feed(inbox, source)
        await checkpoint()


class BodyTooLarge(Exception):
    """A body for Connect itself is longer than anything that it has a use for."""


async def collect(head: RequestHead, inbox: Inbox, source: Source, *, limit: int) -> bytes:
    """A visitor's body of at most `limit` bytes, out of the way of the next request.

    Nothing is read that cannot fit. Raises BodyTooLarge, HttpError if chunks are malformed, and what `source` raises.
    """
    if head.length is not None:
        if head.length > limit:
            raise BodyTooLarge
        while len(inbox) < head.length:
            await _feed(inbox, source)
            await checkpoint()
        return bytes(inbox.take(head.length))
    body, found = ChunkedBody(inbox), bytearray()
    while True:
        for piece in body.take():
            found += piece
        if len(found) > limit:
            raise BodyTooLarge
        if body.ended:
            return bytes(found)
        await _feed(inbox, source)
        await checkpoint()


async def _feed(inbox: Inbox, source: Source) -> None:
    view, buffer = await source.receive_view()
    if not view:
        raise ToolFailed(TRUNCATED)
    inbox.feed(view)
    if buffer is not None:
        buffer.drop()


async def relay_rest(head: bytes, inbox: Inbox, source: Source, sink: Sink, *, chunked: bool) -> None:
    """A body that lasts until the stream ends in good order."""
    out: list[Data] = [head]
    _append(out, [inbox.take(len(inbox))] if inbox else [], chunked=chunked)
    await sink.send_all(b"".join(out))
    while True:
        view, buffer = await source.receive_view()
        if not view:
            break
        try:
            await sink.send_all(b"".join((b"%x\r\n" % len(view), view, b"\r\n")) if chunked else view)
        finally:
            if buffer is not None:
                buffer.drop()
        await checkpoint()
    if chunked:
        await sink.send_all(_LAST_CHUNK)


def _append(out: list[Data], pieces: Sequence[Data], *, chunked: bool) -> None:
    """Add the pieces of a body, as one chunk if it is to be chunked."""
    size = sum(map(len, pieces))
    if not size:
        return
    if chunked:
        out.append(b"%x\r\n" % size)
    out.extend(pieces)
    if chunked:
        out.append(b"\r\n")
