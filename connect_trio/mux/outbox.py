"""What leaves a wire, and in which order: one owner of each wire's output.

The next bytes are chosen at the last moment, when the transport takes them: first the rest of a frame that was cut,
then control frames, then the streams in turn by bytes. A frame, once begun, is finished before anything else. Nothing
here waits, so no cancellation can cut a frame.

A lane is the queue of one stream on one wire. Its pieces are runs of whole frames; a piece of a pooled buffer holds one
reference to it. While streams compete, a turn ends with the frame that reaches `QUANTUM` bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from connect_trio.mux.buffers import Buffer
from connect_trio.mux.frames import HEADER, HEADER_SIZE, encode_credit

QUANTUM = 65536
GATHER = 262144  # most bytes handed to the transport at once
MAX_PARTS = 256
MAX_CONTROL = 1 << 20  # bytes of control frames that may wait before the wire is given up

Data = bytes | memoryview
Piece = tuple[Data, Buffer | None, int]  # whole frames, the buffer they lie in, a mark for `Lane.sent` (0: none)


def boundary(frames: Data, at: int) -> int:
    """The end of the frame that contains byte `at` of a run of whole frames."""
    end = 0
    while end <= at:
        end += HEADER_SIZE + (HEADER.unpack_from(frames, end)[0] & 0xFFFFFF)
    return end


class Lane:
    """What waits to go out under one stream id.

    The queue is an empty tuple while nothing waits: an empty deque costs 760 bytes, a hundred times per idle process.
    """

    __slots__ = ("outbox", "queue", "queued", "sid")

    def __init__(self, outbox: Outbox, sid: int) -> None:
        self.outbox = outbox
        self.sid = sid
        self.queue: deque[Piece] | tuple[()] = ()
        self.queued = False

    def push(self, data: Data, buffer: Buffer | None = None, mark: int = 0) -> None:
        """Queue whole frames; takes over one reference to `buffer`."""
        if self.queue:
            self.queue.append((data, buffer, mark))
        else:
            self.queue = deque(((data, buffer, mark),))
        if not self.queued:
            self.queued = True
            self.outbox.ready.append(self)

    def clear(self) -> None:
        """Forget what has not begun to go out."""
        for _, buffer, _ in self.queue:
            if buffer is not None:
                buffer.drop()
        self.queue = ()

    def sent(self, mark: int) -> None:
        """A piece with this mark is wholly with the transport."""

    def drained(self) -> None:
        """Nothing waits any more."""


class Outbox:
    """The output of one wire, in order.

    `direct` is the shell's short cut: it sends one view at once and returns how many bytes the transport took. `wake`
    is called when something waits: the shell sends it at the end of the turn, with what else comes until then. `kick`
    is called instead when enough waits to be worth a system call of its own.
    """

    __slots__ = ("control", "control_size", "credits", "direct", "head", "kick", "overflow", "ready", "taken", "wake")

    def __init__(self) -> None:
        self.control: list[bytes] = []
        self.control_size = 0
        self.overflow = False  # the peer makes us say more than it reads: the shell gives the wire up
        self.credits: dict[int, bytes] = {}
        self.ready: deque[Lane] = deque()
        self.head: tuple[Data, Buffer | None, int, Lane | None] | None = None
        self.taken: list[tuple[Data, Buffer | None, int, Lane | None]] = []
        self.direct: Callable[[memoryview], int] | None = None
        self.wake: Callable[[], None] = _nobody
        self.kick: Callable[[], None] = _nobody

    @property
    def idle(self) -> bool:
        return not (self.ready or self.control or self.credits) and self.head is None

    def say(self, frame: bytes) -> None:
        """Queue a control frame."""
        self.control.append(frame)
        self.control_size += len(frame)
        self.overflow = self.overflow or self.control_size > MAX_CONTROL
        self.wake()

    def credit(self, sid: int, received: int, limit: int) -> None:
        """Queue CREDIT; a newer one replaces it, since the numbers are absolute."""
        self.credits[sid] = encode_credit(sid, received, limit)
        self.wake()

    def terminate(self, lane: Lane, frame: bytes) -> None:
        """Queue the last frame of an id: it overtakes what waits there, which is forgotten."""
        self.let_go(lane)
        self.say(frame)

    def let_go(self, lane: Lane) -> None:
        """Forget what waits under an id. The frame that was cut, if it is one of these, is finished from a copy:
        whoever keeps the bytes may address them anew."""
        lane.clear()
        self.credits.pop(lane.sid, None)
        if self.head is not None and self.head[3] is lane:
            data, buffer, mark, _ = self.head
            if buffer is not None:
                self.head = (bytes(data), None, mark, lane)
                buffer.drop()

    def gather(self) -> list[Data]:
        """Views of what should go out now, empty if nothing waits; then tell `sent` how much of it went."""
        if self.taken:  # the transport failed before `sent` could be told
            self.sent(0)
        parts = self._begin()
        size = sum(map(len, parts))
        ready, taken = self.ready, self.taken
        while ready and size < GATHER and len(parts) < MAX_PARTS:
            lane = ready.popleft()
            if not lane.queue:
                lane.queued = False
                continue
            data, buffer, mark = lane.queue.popleft()
            if len(data) > QUANTUM and ready:
                cut = boundary(data, QUANTUM - 1)
                if cut < len(data):
                    lane.queue.appendleft((memoryview(data)[cut:], buffer and buffer.keep(), mark))
                    data, mark = memoryview(data)[:cut], 0
            parts.append(data)
            taken.append((data, buffer, mark, lane))
            size += len(data)
            if lane.queue:
                ready.append(lane)
            else:
                lane.queued = False
                lane.queue = ()
        return parts

    def _begin(self) -> list[Data]:
        """The rest of a cut frame and all control frames."""
        parts: list[Data] = []
        if self.head is not None:
            parts.append(self.head[0])
            self.taken.append(self.head)
        if self.control or self.credits:
            control = b"".join((*self.control, *self.credits.values()))
            self.control.clear()
            self.credits.clear()
            self.control_size = 0
            parts.append(control)
            self.taken.append((control, None, 0, None))
        return parts

    def sent(self, count: int) -> bool:
        """The transport took `count` bytes of what `gather` gave; whether that was all of it."""
        taken, headed = self.taken, self.head is not None
        for at, (data, buffer, mark, lane) in enumerate(taken):
            if count < len(data):
                self._give_back(taken[at:], count, headed and at == 0)
                self.taken = []
                return False
            count -= len(data)
            if headed and at == 0:
                self.head = None
            if buffer is not None:
                buffer.drop()
            if lane is not None:
                if mark:
                    lane.sent(mark)
                if not lane.queue:
                    lane.drained()
        self.taken = []
        return True

    def _give_back(self, rest: list[tuple[Data, Buffer | None, int, Lane | None]], count: int, headed: bool) -> None:
        """Finish the frame that was cut first; what has not begun returns to the front of its queue."""
        data, buffer, mark, lane = rest[0]
        if headed:
            self.head = (memoryview(data)[count:], buffer, mark, lane)
            del rest[0]
        elif count:
            del rest[0]
            end = boundary(data, count)
            whole = end == len(data)
            if not whole:
                rest.insert(0, (memoryview(data)[end:], buffer and buffer.keep(), mark, lane))
            self.head = (memoryview(data)[count:end], buffer, mark if whole else 0, lane)
        for data, buffer, mark, lane in reversed(rest):
            if lane is None:
                self.control.insert(0, bytes(data))
                self.control_size += len(data)
                continue
            if lane.queue:
                lane.queue.appendleft((data, buffer, mark))
            else:
                lane.queue = deque(((data, buffer, mark),))
            if not lane.queued:
                lane.queued = True
                self.ready.appendleft(lane)

    def begin_head(self, data: memoryview, buffer: Buffer, mark: int, lane: Lane) -> None:
        """The rest of a frame whose beginning went out by `direct`; takes over one reference to `buffer`."""
        self.head = (data, buffer, mark, lane)

    def close(self) -> None:
        """The wire is gone: forget everything and give the buffers back."""
        if self.head is not None and self.head[1] is not None:
            self.head[1].drop()
        for _, buffer, _, _ in self.taken[1:] if self.head is not None else self.taken:
            if buffer is not None:
                buffer.drop()
        self.taken = []
        self.head = None
        self.control.clear()
        self.credits.clear()
        self.control_size = 0
        for lane in self.ready:
            lane.clear()
            lane.queued = False
        self.ready.clear()
        self.direct = None
        self.wake = self.kick = _nobody


def _nobody() -> None:
    """Nobody waits for this outbox (yet, or any more)."""
