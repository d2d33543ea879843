"""The end of streams: dispatch of their frames, credit, loss of their ways, and their end. Sans-I/O; openers and
acceptors refine it.

An endpoint may have several wires, and a stream outlives each of them. DATA frames of one stream that follow each other
in a read are delivered together, so that an application that writes them on needs one system call for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from connect_trio.mux import frames
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.budget import Budget, Counts
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import DetachCode, Peer, ResetCode
from connect_trio.mux.errors import LocalError, StreamViolation, WireError
from connect_trio.mux.frames import CREDIT, DATA_HEADER_SIZE, HEADER_SIZE, OFFSET, FrameType, Goaway, Hello
from connect_trio.mux.halves import close_gaps
from connect_trio.mux.states import State, received
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.timers import Timers
from connect_trio.mux.wire import Wire

WINDOW = 1 << 20  # bytes that a stream may have on the way or unread
ALLOWANCE = 4 << 20  # bytes that one stream may keep unacknowledged, whatever its peer permits
ACKNOWLEDGE = 0.5  # seconds after which received bytes are acknowledged even if no credit is due
LINGER = 60.0  # seconds that a closed stream waits for its peer to end too, while it is attached
STUB = 30.0  # seconds that a reset stream waits for its peer's answer
ATTEMPT_MAX = 15.0  # longest time-out of an attempt to attach, seconds
DEAD = 5.0  # seconds of silence after which a wire with streams is given up

_DATA, _CREDIT, _FIN = int(FrameType.DATA), int(FrameType.CREDIT), int(FrameType.FIN)


class Endpoint(ABC):
    """Streams of one process at one side. A `Handler` of its wires."""

    opens = False

    def __init__(self, *, window: int, allowance: int, budget: Budget | None) -> None:
        if window < frames.INITIAL:
            raise ValueError(f"a window is at least {frames.INITIAL} bytes, the protocol's initial credit")
        self.window = window
        self.allowance = allowance
        self.budget = budget or Budget()
        self.counts = Counts()
        self.violations = 0
        self.timers = Timers()
        self._detached: dict[CoreStream, None] = {}  # the longest detached first
        self._squeezed = 0  # how many had been detached when there was nothing more to be had from them
        self._unacknowledged: dict[CoreStream, float] = {}
        self._run: CoreStream | None = None
        self._parts: list[memoryview] = []
        self._start = 0  # of the first part, in the buffer
        self._size = 0
        self._buffer: Buffer | None = None

    @property
    def alarm(self) -> Callable[[float], None]:
        """Called with a time when `deadline` may have moved nearer."""
        return self.timers.alarm

    @alarm.setter
    def alarm(self, alarm: Callable[[float], None]) -> None:
        self.timers.alarm = alarm

    @property
    def detached(self) -> int:
        """Streams that have no way now."""
        return len(self._detached)

    # frames

    def on_frame(self, wire: Wire, kind: int, sid: int, buffer: Buffer, start: int, end: int, now: float) -> None:
        place: Attachment | None = wire.ports.get(sid)
        if kind == _DATA and place is not None and place.state is State.ATTACHED:
            stream = place.stream
            try:
                known = stream.receive.window.data(
                    OFFSET.unpack_from(buffer.data, start + HEADER_SIZE)[0], end - start - DATA_HEADER_SIZE
                )
            except StreamViolation as exc:
                self.on_batch_end(wire, now)
                self._violated(stream, wire, exc, now)
                return
            if stream is not self._run:
                self.on_batch_end(wire, now)
                self._run, self._buffer = stream, buffer
            start += DATA_HEADER_SIZE + known
            if start < end:
                if not self._parts:
                    self._start = start
                self._parts.append(buffer.view[start:end])
                self._size += end - start
            return
        self.on_batch_end(wire, now)
        payload = buffer.view[start + HEADER_SIZE : end]
        if place is None:
            self._unbound_frame(wire, kind, sid, payload, now)
            return
        try:
            self._stream_frame(place, kind, payload, buffer, now)
        except StreamViolation as exc:
            self._violated(place.stream, wire, exc, now)

    def on_batch_end(self, wire: Wire, now: float) -> None:
        """Deliver what was collected for one stream."""
        stream = self._run
        if stream is None:
            return
        parts, size, buffer = self._parts, self._size, self._buffer
        self._run, self._parts, self._size, self._buffer = None, [], 0, None
        if not size or buffer is None or stream.end is not None:
            return
        if stream.discarding:
            self.reset(stream, ResetCode.APP, "nobody reads this stream any more")
            return
        if len(parts) > 1 and stream.receive.sink is None:
            parts = [close_gaps(parts, self._start, buffer)]
        stream.deliver(parts, size, buffer)
        window = stream.receive.window
        if window.lulled:
            window.more(now)
        if window.due:
            self.tell(stream)
        elif stream not in self._unacknowledged:
            self._unacknowledged[stream] = now + ACKNOWLEDGE
            self.timers.alarm(now + ACKNOWLEDGE)

    def _unbound_frame(self, wire: Wire, kind: int, sid: int, payload: memoryview, now: float) -> None:
        """A frame on an id that nobody uses: late ones are ignored, one that was never announced breaks the framing."""
        if not wire.known_id(sid):
            raise WireError(f"{FrameType(kind).name} on stream id {sid}, which was never opened")

    def _stream_frame(self, place: Attachment, kind: int, payload: memoryview, buffer: Buffer, now: float) -> None:
        stream, before = place.stream, place.state
        state = received(before, kind)
        if before is State.ENDING:
            if state is State.CLOSED:
                place.leave()
                self._ended_by_peer(place, kind, now)
            return
        if kind == _CREDIT:
            self._credit(place, *CREDIT.unpack(payload))
        elif kind == _FIN:
            self._fin(stream, OFFSET.unpack(payload)[0])
        elif kind == _DATA:
            self._early_data(stream, payload, buffer)
        elif kind == FrameType.RESET:
            code, text = frames.decode_say_untrusted(payload)
            place.answer_last(FrameType.RESET, code)
            self._finish(stream, StreamEnd(FrameType.RESET, code, text), now)
        elif kind == FrameType.DETACH:
            code, _ = frames.decode_say_untrusted(payload)
            place.answer_last(FrameType.DETACH, code)
            self._lost(place, code, now)
        elif kind == FrameType.DONE:
            self._done(place, now)
        else:
            self._answered(place, kind, payload, now)
        if stream.end is None:
            self._maybe_complete(stream, now)

    def _credit(self, place: Attachment, position: int, limit: int) -> None:
        stream = place.stream
        stream.send.credit(position, limit)
        if place.state is State.BEHIND:
            if position >= stream.send.window.base:
                place.state = State.ATTACHED
            elif position != place.told[0]:  # a switch makes CREDIT of its own, with the last that it has heard
                raise StreamViolation(f"told {position} where it had acknowledged {stream.send.window.base}")
        stream.advance()

    def _fin(self, stream: CoreStream, offset: int) -> None:
        if stream.receive.window.fin(offset):
            self.tell(stream)
            if stream.observer is not None:
                stream.observer.readable()
        elif stream.receive.window.unacknowledged:
            self.tell(stream)

    def _early_data(self, stream: CoreStream, payload: memoryview, buffer: Buffer) -> None:
        """DATA before this end has accepted."""
        offset = OFFSET.unpack_from(payload)[0]
        part = payload[frames.OFFSET_SIZE + stream.receive.window.data(offset, len(payload) - frames.OFFSET_SIZE) :]
        if part:
            stream.deliver([part], len(part), buffer)

    def _done(self, place: Attachment, now: float) -> None:
        raise StreamViolation("DONE of an opener that comes first")

    def _answered(self, place: Attachment, kind: int, payload: memoryview, now: float) -> None:
        """ACCEPT, RESUMED or REJECT: only openers ask."""
        raise StreamViolation(f"{FrameType(kind).name} without a question")

    @abstractmethod
    def _ended_by_peer(self, place: Attachment, kind: int, now: float) -> None:
        """The peer has answered our last frame on an id, which is free now."""

    @abstractmethod
    def _maybe_complete(self, stream: CoreStream, now: float) -> None:
        """Something was received that may have been the last there is."""

    @abstractmethod
    def _lost(self, place: Attachment, code: int, now: float) -> None:
        """An attachment is no more; the stream lives."""

    @abstractmethod
    def _finish(self, stream: CoreStream, end: StreamEnd, now: float) -> None:
        """The peer has ended the stream (on an id that is free already): conclude and forget it."""

    def _violated(self, stream: CoreStream, wire: Wire, exc: StreamViolation, now: float) -> None:
        self.violations += 1
        self.reset(stream, ResetCode.PROTOCOL, str(exc))
        peer = wire.peer
        if peer is None or peer.peer != Peer.SWITCH:  # behind a switch, one liar must not end the wire of all
            wire.count_lie(str(exc), now)

    # what applications do, by way of CoreStream

    def tell(self, stream: CoreStream) -> None:
        """Send CREDIT, if the stream is attached; it replaces one that has not left yet."""
        self._unacknowledged.pop(stream, None)
        home = stream.home
        if home is not None and stream.accepted and stream.end is None:
            home.outbox.credit(home.sid, *stream.receive.window.tell())

    def accept(self, stream: CoreStream) -> None:
        raise LocalError("only an acceptor accepts streams")

    def reject(self, stream: CoreStream, code: int, text: str) -> None:
        raise LocalError("only an acceptor rejects streams")

    @abstractmethod
    def reset(self, stream: CoreStream, code: int, text: str) -> None:
        """Drop both halves, say why, and keep the token until the peer has answered. Quiet if it has ended."""

    def linger(self, stream: CoreStream, now: float) -> None:
        """The application has closed: the peer has a while to end its side too."""
        if stream.detached is None and stream.accepted:
            self.timers.at((stream, "life"), now + LINGER, lambda now: self._not_ended(stream))

    def _not_ended(self, stream: CoreStream) -> None:
        self.reset(stream, ResetCode.APP, "closed here, and not ended by the other side in time")

    # losing the way

    def _detach(self, stream: CoreStream, code: int, patience: float, now: float) -> None:
        """The stream has lost its home: it is kept for a while."""
        stream.lost = code
        if stream.detached is not None or stream.end is not None:
            return
        stream.detached = now
        self._detached[stream] = None
        self.counts.detached += 1
        self.timers.at((stream, "life"), now + patience, lambda now: self._overdue(stream, now))
        if stream.observer is not None:
            stream.observer.writable()
        if self.budget.over:
            self.squeeze()

    def _overdue(self, stream: CoreStream, now: float) -> None:
        """A stream was detached for as long as it may be."""
        self.reset(stream, ResetCode.DETACHED_TIMEOUT, "the way to the other end was lost for too long")

    def _reattached(self, stream: CoreStream, now: float) -> None:
        """The stream has a home (again)."""
        if stream.detached is not None:
            stream.detached = None
            del self._detached[stream]
            self.counts.resumed += 1
        self.timers.cancel((stream, "life"))
        if stream.discarding and stream.end is None:
            self.linger(stream, now)

    def squeeze(self) -> None:
        """Over the budget: those that are detached for longest and hold something go, until the rest fits."""
        if self._squeezed == self.counts.detached:
            return  # nobody was detached since, and those that are gain nothing
        for stream in list(self._detached):
            if not self.budget.over:
                return
            if stream.holds:
                self.reset(stream, ResetCode.BUDGET, "detached, while the memory was needed for others")
        self._squeezed = self.counts.detached

    def _conclude(self, stream: CoreStream, end: StreamEnd) -> None:
        """The stream has ended for its application."""
        self._detached.pop(stream, None)
        self._unacknowledged.pop(stream, None)
        self.timers.cancel((stream, "life"))
        if end.cause is FrameType.RESET and not end.by_peer:
            self.counts.resets[end.code] += 1
        stream.conclude(end)

    # the life of wires

    @abstractmethod
    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        """The peer is there."""

    @abstractmethod
    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        """Nothing new is opened on the wire (`wire.closing`); its streams go on."""

    def on_lost(self, wire: Wire, now: float) -> None:
        self.on_batch_end(wire, now)
        for place in list(wire.ports.values()):
            place.leave()
            self._lost(place, DetachCode.LOST, now)

    # time

    def tick(self, now: float) -> None:
        """Acknowledge what waits for it and end what has waited long enough."""
        overdue = []
        for stream, due in self._unacknowledged.items():
            if due > now:
                break
            overdue.append(stream)
        for stream in overdue:
            del self._unacknowledged[stream]
            if stream.receive.window.unacknowledged:
                stream.receive.window.lull(now)
                self.tell(stream)
        self.timers.run(now)

    def deadline(self) -> float | None:
        """When `tick` has something to do; 0 for at once, None for never."""
        first = next(iter(self._unacknowledged.values()), None)
        waiting = self.timers.deadline()
        if first is None or waiting is None:
            return waiting if first is None else first
        return min(first, waiting)
