"""The two halves of a stream at one end: what was written and is kept until acknowledged, what came and was not taken.

Payload is handled as (view, buffer) pieces and never joined. What is kept is the very buffer that was sent from, so
keeping it costs no copy; small pieces are copied, so that a few bytes do not pin a large buffer. What is kept is framed
already: to send it again on another attachment, only the ids are written anew, where they lie.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from connect_trio.mux.budget import Budget
from connect_trio.mux.buffers import Buffer, Pool
from connect_trio.mux.frames import DATA_HEADER, DATA_HEADER_SIZE, OFFSET_SIZE, STREAM_ID, FrameType, encode_data
from connect_trio.mux.windows import ReceiveWindow, SendWindow

FRAME = 16384  # payload bytes of the DATA frames that this side makes; small, so that streams take turns
CHUNK_FRAMES = 16
CHUNK = FRAME * CHUNK_FRAMES
SMALL = 4096  # received or written pieces up to this size are copied
MAX_KEPT = 16384  # pieces that a stream keeps unacknowledged: single bytes must not cost an object each without bound

_DATA_WORD = int(FrameType.DATA) << 24

Piece = tuple[memoryview | bytes, Buffer | None]


class Chunk(Buffer):
    """A buffer for frames to be sent: payload is read straight into `slots`, headers are packed into the gaps."""

    __slots__ = ("slots",)

    def __init__(self, pool: Pool) -> None:
        super().__init__(CHUNK_FRAMES * (DATA_HEADER_SIZE + FRAME), pool)
        step = DATA_HEADER_SIZE + FRAME
        self.slots = [self.view[i * step + DATA_HEADER_SIZE : (i + 1) * step] for i in range(CHUNK_FRAMES)]

    def frame(self, sid: int, offset: int, size: int) -> memoryview:
        """Pack the headers for `size` payload bytes in the slots; the run of frames that they make."""
        at, data = 0, self.data
        while size:
            count = min(size, FRAME)
            DATA_HEADER.pack_into(data, at, _DATA_WORD | OFFSET_SIZE + count, sid, offset)
            at += DATA_HEADER_SIZE + count
            offset += count
            size -= count
        return self.view[:at]


class ChunkPool(Pool):
    """Chunks, last in first out."""

    def __init__(self, *, spare: int = 32) -> None:
        super().__init__(CHUNK_FRAMES * (DATA_HEADER_SIZE + FRAME), spare=spare)

    def take_chunk(self) -> Chunk:
        if not self.free:
            return Chunk(self)
        chunk = self.free.pop()
        chunk.refs = 1
        assert isinstance(chunk, Chunk)
        return chunk


Kept = tuple[int, memoryview | bytes, Buffer | None]  # end offset, whole DATA frames, the buffer they lie in


class SendHalf:
    """What the application wrote. `kept` holds it until the peer has received it; `again` what of it is still to be
    sent on the attachment that the stream has now."""

    __slots__ = ("again", "kept", "window")

    def __init__(self, *, limit: int, allowance: int, budget: Budget) -> None:
        self.window = SendWindow(limit=limit, allowance=allowance, budget=budget)
        self.kept: deque[Kept] | tuple[()] = ()
        self.again: deque[Kept] | tuple[()] = ()

    @property
    def room(self) -> int:
        """Bytes that may be written now; 0 while something older is still to be sent."""
        window = self.window
        if window.position < window.end or len(self.kept) >= MAX_KEPT:
            return 0
        return window.room

    def write(self, sid: int, data: bytes | bytearray | memoryview) -> bytes:
        """One DATA frame with a copy of `data`, 1 to FRAME bytes, for which there is room."""
        offset = self.window.wrote(len(data))
        frame = encode_data(sid, offset, bytes(data))
        self._keep(frame, None)
        return frame

    def write_chunk(self, sid: int, chunk: Chunk, size: int) -> memoryview:
        """The frames for `size` payload bytes that lie in the chunk's slots. Counts one reference for keeping them."""
        offset = self.window.wrote(size)
        run = chunk.frame(sid, offset, size)
        self._keep(run, chunk.keep())
        return run

    def _keep(self, frames: memoryview | bytes, buffer: Buffer | None) -> None:
        window = self.window
        window.position = window.end
        if self.kept:
            self.kept.append((window.end, frames, buffer))
        else:
            self.kept = deque(((window.end, frames, buffer),))

    def attach(self, received: int, limit: int) -> None:
        """Begin anew on another attachment, from what the peer holds. Raises StreamViolation."""
        self.window.attach(received, limit)
        self._release()
        position = self.window.position
        self.again = deque(piece for piece in self.kept if piece[0] > position) or ()

    def credit(self, received: int, limit: int) -> None:
        """Raises StreamViolation."""
        self.window.credit(received, limit)
        self._release()

    def _release(self) -> None:
        kept, base = self.kept, self.window.base
        while kept and kept[0][0] <= base:
            buffer = kept.popleft()[2]
            if buffer is not None:
                buffer.drop()
        if not kept:
            self.kept = ()

    def next_run(self, sid: int) -> tuple[memoryview | bytes, Buffer | None] | None:
        """Frames to be sent again, addressed to `sid`, as far as the limit allows; with a reference to their buffer."""
        window = self.window
        while self.again:
            end, frames, buffer = self.again[0]
            if end <= window.position:
                self.again.popleft()
                continue
            start, stop, position = _span(frames, window.position, window.limit)
            if start == stop:
                return None
            window.position = position
            run = readdress(memoryview(frames)[start:stop], sid)
            return run, (buffer.keep() if buffer is not None else None)
        self.again = ()
        return None

    def drop(self) -> None:
        """Forget everything: the stream was reset."""
        for _, _, buffer in self.kept:
            if buffer is not None:
                buffer.drop()
        self.kept = self.again = ()
        self.window.drop()


def _span(frames: memoryview | bytes, position: int, limit: int) -> tuple[int, int, int]:
    """Where in a run of DATA frames those lie that end behind `position` and not behind `limit`; the offset after them.

    A frame that is known in part is sent whole: the receiver cuts the overlap off.
    """
    start = at = 0
    while at < len(frames):
        word, _, offset = DATA_HEADER.unpack_from(frames, at)
        size = (word & 0xFFFFFF) - OFFSET_SIZE
        if offset + size > limit:
            break
        at += DATA_HEADER_SIZE + size
        if offset + size <= position:
            start = at
        else:
            position = offset + size
    return start, at, position


def readdress(run: memoryview, sid: int) -> memoryview | bytes:
    """A run of DATA frames with another id: written where they lie, or into a copy if that cannot be changed.

    Nobody else may still have to send these frames under the former id (`Outbox.let_go`).
    """
    into: memoryview | bytearray = bytearray(run) if run.readonly else run
    at = 0
    while at < len(into):
        word, _, _ = DATA_HEADER.unpack_from(into, at)
        STREAM_ID.pack_into(into, at + 4, sid)
        at += DATA_HEADER_SIZE + (word & 0xFFFFFF) - OFFSET_SIZE
    return bytes(into) if isinstance(into, bytearray) else into


class ReceiveHalf:
    """What came and the application has not taken.

    `sink` is the application's short cut: it is offered the views of what just came, takes what it can without waiting
    and returns how many bytes that was, or -1 if it has dropped the stream. Only what it refuses is queued.
    """

    __slots__ = ("budget", "queue", "sink", "window")

    def __init__(self, *, granted: int, window: int, budget: Budget) -> None:
        self.window = ReceiveWindow(granted=granted, window=window, budget=budget)
        self.budget = budget
        self.queue: deque[Piece] | tuple[()] = ()
        self.sink: Callable[[Sequence[memoryview]], int] | None = None

    def deliver(self, parts: list[memoryview], size: int, buffer: Buffer) -> None:
        """Payload of one stream, in order and already counted by the window; all views lie in `buffer`."""
        if self.sink is not None and not self.queue:
            taken = self.sink(parts)
            if taken < 0:
                return
            self.window.take(taken)
            if taken == size:
                return
            size -= taken
            at = 0
            while taken >= len(parts[at]):
                taken -= len(parts[at])
                at += 1
            parts = parts[at:]
            parts[0] = parts[0][taken:]
        self.budget.add(size)
        queue = self.queue if isinstance(self.queue, deque) else deque()
        # A stream that does not keep up must not pin whole receive buffers for its share of them: four times its
        # window at the most.
        if size * 4 < len(buffer.data):
            _append_copy(queue, b"".join(parts))
        else:
            for part in parts:
                if len(part) <= SMALL:
                    _append_copy(queue, bytes(part))
                else:
                    queue.append((part, buffer.keep()))
        self.queue = queue

    def take(self) -> Piece | None:
        """The next piece, counted as taken; the caller drops its buffer when done."""
        if not self.queue:
            return None
        piece = self.queue.popleft()
        if not self.queue:
            self.queue = ()
        self._took(len(piece[0]))
        return piece

    def _took(self, count: int) -> None:
        self.window.take(count)
        self.budget.free(count)

    def take_some(self, most: int) -> bytes:
        """At most `most` bytes as a copy, empty if nothing is there."""
        if not isinstance(self.queue, deque):
            return b""
        data, buffer = self.queue[0]
        if len(data) > most:
            self.queue[0] = (memoryview(data)[most:], buffer)
            self._took(most)
            return bytes(data[:most])
        self.take()
        copy = bytes(data)
        if buffer is not None:
            buffer.drop()
        return copy

    def views(self, most: int) -> list[memoryview | bytes]:
        """Up to `most` pieces that wait, for one gathered write; then tell `advance` how much of it went."""
        return [self.queue[i][0] for i in range(min(len(self.queue), most))]

    def advance(self, count: int) -> None:
        """The first `count` waiting bytes were taken."""
        self._took(count)
        queue = self.queue
        while count and queue:
            data, buffer = queue.popleft()
            if count < len(data):
                queue.appendleft((memoryview(data)[count:], buffer))
                return
            count -= len(data)
            if buffer is not None:
                buffer.drop()
        if not queue:
            self.queue = ()

    def drop(self) -> None:
        """Forget what was not taken."""
        for data, buffer in self.queue:
            self.budget.free(len(data))
            if buffer is not None:
                buffer.drop()
        self.queue = ()


def close_gaps(parts: list[memoryview], start: int, buffer: Buffer) -> memoryview:
    """One view of what lies in `buffer` from `start` on in parts, once it is moved together over the headers.

    Nobody else may hold views of these bytes. Whoever takes one piece at a time then needs one system call for all of
    them, which is worth much more than a copy within the cache.
    """
    view, at = buffer.view, start + len(parts[0])
    for part in parts[1:]:
        end = at + len(part)
        view[at:end] = part
        at = end
    return view[start:at]


def _append_copy(queue: deque[Piece], data: bytes) -> None:
    """Small pieces join the one before: a peer that sends single bytes must not cost an object for each."""
    if queue:
        last, buffer = queue[-1]
        if buffer is None and len(last) + len(data) <= SMALL:
            queue[-1] = (b"".join((last, data)), None)
            return
    queue.append((data, None))
