"""The core of the mux under test without any I/O: wires whose bytes move only when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer, Pool
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import HEADER, HEADER_SIZE, FrameType, Goaway, Hello
from connect_trio.mux.halves import Chunk, ChunkPool
from connect_trio.mux.outbox import Outbox
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Handler, Limits, Liveness, Wire

BUFFER = 131072  # at least MAX_FRAME


@attrs.frozen
class Frame:
    kind: int
    sid: int
    payload: bytes

    def __repr__(self) -> str:
        name = FrameType(self.kind).name if self.kind in FrameType._value2member_map_ else str(self.kind)
        return f"{name}/{self.sid}({self.payload[:40].hex()})"


def parse(data: bytes) -> list[Frame]:
    """The frames of a byte stream, which must be whole."""
    out, at = [], 0
    while at < len(data):
        word, sid = HEADER.unpack_from(data, at)
        end = at + HEADER_SIZE + (word & 0xFFFFFF)
        assert end <= len(data), "a frame was cut"
        out.append(Frame(word >> 24, sid, data[at + HEADER_SIZE : end]))
        at = end
    return out


def drain(outbox: Outbox) -> bytes:
    """Everything that waits in an outbox, all of it taken."""
    out = bytearray()
    while parts := outbox.gather():
        for part in parts:
            out += part
        assert outbox.sent(sum(map(len, parts)))
    return bytes(out)


def drain_frames(wire: Wire) -> list[Frame]:
    return parse(drain(wire.outbox))


def sid_of(stream: CoreStream) -> int:
    """The id that carries an attached stream."""
    assert stream.home is not None, "the stream is detached"
    return stream.home.sid


class CountingPool(Pool):
    """A pool that knows which of its buffers are in use."""

    def __init__(self, size: int = BUFFER) -> None:
        super().__init__(size, spare=1_000_000)
        self.made: list[Buffer] = []

    def take(self) -> Buffer:
        fresh = not self.free
        buffer = super().take()
        if fresh:
            self.made.append(buffer)
        return buffer

    @property
    def in_use(self) -> int:
        return _in_use(self, self.made)


class CountingChunkPool(ChunkPool):
    def __init__(self) -> None:
        super().__init__(spare=1_000_000)
        self.made: list[Chunk] = []

    def take_chunk(self) -> Chunk:
        fresh = not self.free
        chunk = super().take_chunk()
        if fresh:
            self.made.append(chunk)
        return chunk

    @property
    def in_use(self) -> int:
        return _in_use(self, self.made)


def _in_use(pool: Pool, made: Sequence[Buffer]) -> int:
    assert all(buffer.refs >= 0 for buffer in made), "a buffer was dropped too often"
    assert len(set(map(id, pool.free))) == len(pool.free), "a buffer was given back twice"
    assert all(not buffer.refs for buffer in pool.free), "a buffer in the pool is still held"
    return len(made) - len(pool.free)


class Feed:
    """The reading half of a session: puts bytes into buffers and gives whole frames to the wire."""

    def __init__(self, wire: Wire, pool: Pool) -> None:
        self.wire = wire
        self.pool = pool
        self._buffer: Buffer | None = None
        self._filled = 0

    def __call__(self, data: bytes | memoryview, now: float) -> None:
        """Raises WireError."""
        while data:
            if self._buffer is None:
                self._buffer = self.pool.take()
            buffer = self._buffer
            count = min(len(data), self.pool.size - self._filled)
            buffer.view[self._filled : self._filled + count] = data[:count]
            data = data[count:]
            filled = self._filled + count
            used = self.wire.receive(buffer, filled, now)
            self._filled = filled - used
            assert self._filled < frames.MAX_FRAME, "more than a frame is held back"
            self._move_rest(buffer, used, filled)

    def _move_rest(self, buffer: Buffer, used: int, filled: int) -> None:
        rest = bytes(buffer.view[used:filled])
        if buffer.refs > 1 or not rest:
            buffer.drop()
            self._buffer = self.pool.take() if rest else None
        if rest:
            assert self._buffer is not None
            self._buffer.view[: len(rest)] = rest

    def close(self) -> None:
        if self._buffer is not None:
            self._buffer.drop()
            self._buffer = None


@attrs.define
class Recorder:
    """A handler that only writes down what it is told."""

    seen: list[object] = attrs.field(factory=list)

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        self.seen.append(hello)

    def on_frame(self, wire: Wire, kind: int, sid: int, buffer: Buffer, start: int, end: int, now: float) -> None:
        self.seen.append(Frame(kind, sid, bytes(buffer.view[start + HEADER_SIZE : end])))

    def on_batch_end(self, wire: Wire, now: float) -> None:
        """Not worth a note."""

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        self.seen.append(goaway)

    def on_lost(self, wire: Wire, now: float) -> None:
        self.seen.append("lost")


def hello(peer: Peer, *, streams: int = 65536) -> Hello:
    return Hello(peer=peer, instance=bytes([peer]) * 16, streams=streams)


def greeted(
    handler: Handler,
    us: Peer,
    them: Peer,
    *,
    dialled: bool,
    pool: Pool | None = None,
    now: float = 0.0,
    limits: Limits | None = None,
    liveness: Liveness | None = None,
) -> tuple[Wire, Feed]:
    """A wire on which both HELLOs have passed, and the way to feed it."""
    wire = Wire(
        handler,
        hello(us),
        dialled=dialled,
        now=now,
        limits=limits or Limits(),
        liveness=liveness or Liveness(),
        label=us.name.lower(),
    )
    drain(wire.outbox)
    feed = Feed(wire, pool or CountingPool())
    feed(frames.encode_hello(hello(them)), now)
    return wire, feed
