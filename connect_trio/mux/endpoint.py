"""The end of streams: dispatch of their frames, credit, and their end. Sans-I/O; openers and acceptors refine it.

An endpoint may have several wires. DATA frames of one stream that follow each other in a read are delivered together,
so that an application that writes them on needs one system call for all.
"""

from __future__ import annotations

from collections.abc import Callable

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import DetachCode, Peer, ResetCode
from connect_trio.mux.errors import LocalError, StreamViolation, WireError
from connect_trio.mux.frames import CREDIT, DATA_HEADER_SIZE, HEADER_SIZE, OFFSET, FrameType, Goaway, Hello
from connect_trio.mux.halves import close_gaps
from connect_trio.mux.states import State, received, sending
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.wire import Wire

WINDOW = 1 << 20  # bytes that a stream may have on the way or unread
ALLOWANCE = 4 << 20  # bytes that one stream may keep unacknowledged, whatever its peer permits
ACKNOWLEDGE = 0.5  # seconds after which received bytes are acknowledged even if no credit is due
LINGER = 60.0  # seconds that a closed stream waits for its peer to end too
STUB = 30.0  # seconds that a reset stream waits for its peer's answer

_DATA, _CREDIT, _FIN = int(FrameType.DATA), int(FrameType.CREDIT), int(FrameType.FIN)


class Endpoint:
    """Streams of one process at one side. A `Handler` of its wires."""

    def __init__(self, *, window: int = WINDOW, allowance: int = ALLOWANCE) -> None:
        if window < frames.INITIAL:
            raise ValueError(f"a window is at least {frames.INITIAL} bytes, the protocol's initial credit")
        self.window = window
        self.allowance = allowance
        self.violations = 0
        self._unacknowledged: dict[CoreStream, float] = {}
        self._waiting: dict[CoreStream, tuple[float, str]] = {}
        self.alarm: Callable[[float], None] = _nobody  # called with a time when `deadline` may have moved nearer
        self._run: CoreStream | None = None
        self._parts: list[memoryview] = []
        self._start = 0  # of the first part, in the buffer
        self._size = 0
        self._buffer: Buffer | None = None

    # frames

    def on_frame(self, wire: Wire, kind: int, sid: int, buffer: Buffer, start: int, end: int, now: float) -> None:
        stream: CoreStream | None = wire.ports.get(sid)
        if kind == _DATA and stream is not None and stream.state is State.OPEN:
            try:
                known = stream.receive.window.data(
                    OFFSET.unpack_from(buffer.data, start + HEADER_SIZE)[0], end - start - DATA_HEADER_SIZE
                )
            except StreamViolation as exc:
                self._violated(stream, exc, now)
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
        if stream is None:
            self._unbound_frame(wire, kind, sid, payload, now)
            return
        try:
            self._stream_frame(stream, kind, payload, buffer, now)
        except StreamViolation as exc:
            self._violated(stream, exc, now)

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
        if stream.state is State.OPEN:
            if window.due:
                self.tell(stream)
            elif stream not in self._unacknowledged:
                self._unacknowledged[stream] = now + ACKNOWLEDGE
                self.alarm(now + ACKNOWLEDGE)

    def _unbound_frame(self, wire: Wire, kind: int, sid: int, payload: memoryview, now: float) -> None:
        """A frame on an id that nobody uses: late ones are ignored, one that was never announced breaks the framing."""
        if not wire.known_id(sid):
            raise WireError(f"{FrameType(kind).name} on stream id {sid}, which was never opened")

    def _stream_frame(self, stream: CoreStream, kind: int, payload: memoryview, buffer: Buffer, now: float) -> None:
        state = received(stream.state, kind)
        if state is not State.CLOSED:  # who is told below looks at it; an end is concluded with its reason
            stream.state = state
        if kind == _CREDIT:
            self._credit(stream, *CREDIT.unpack(payload))
        elif kind == _FIN:
            self._fin(stream, OFFSET.unpack(payload)[0])
        elif kind == _DATA:
            self._early_data(stream, payload, buffer)
        elif kind == FrameType.RESET:
            self._peer_reset(stream, payload)
        elif kind == FrameType.DETACH:
            self._detached(stream, payload)
        elif kind == FrameType.DONE:
            self._done(stream)
        else:
            self._answered(stream, kind, payload)
        if stream.end is None:
            self._maybe_complete(stream)

    def _credit(self, stream: CoreStream, position: int, limit: int) -> None:
        if stream.end is not None:
            return
        stream.send.credit(position, limit)
        stream.drained()

    def _fin(self, stream: CoreStream, offset: int) -> None:
        if stream.end is None and stream.receive.window.fin(offset):
            if stream.state is State.OPEN:
                self.tell(stream)
            if stream.observer is not None:
                stream.observer.readable()

    def _early_data(self, stream: CoreStream, payload: memoryview, buffer: Buffer) -> None:
        """DATA before this end has accepted, or after it has ended the stream."""
        if stream.end is not None or stream.state is State.DONE_SENT:
            return
        offset = OFFSET.unpack_from(payload)[0]
        part = payload[frames.OFFSET_SIZE + stream.receive.window.data(offset, len(payload) - frames.OFFSET_SIZE) :]
        if part:
            stream.deliver([part], len(part), buffer)

    def _peer_reset(self, stream: CoreStream, payload: memoryview) -> None:
        code, text = frames.decode_say_untrusted(payload)
        if stream.end is None:  # else it is the answer to ours
            stream.outbox.terminate(stream, frames.encode_say(FrameType.RESET, stream.sid, code))
        self._forget(stream, StreamEnd(FrameType.RESET, code, text))

    def _detached(self, stream: CoreStream, payload: memoryview) -> None:
        code, _ = frames.decode_say_untrusted(payload)
        if stream.end is None:
            stream.outbox.terminate(stream, frames.encode_detach(stream.sid, DetachCode.LOST))
        self._forget(stream, StreamEnd(FrameType.DETACH, code, "the way to the other end was lost"))

    def _done(self, stream: CoreStream) -> None:
        if stream.end is None and not (stream.receive.window.finished and stream.send.window.finished):
            raise StreamViolation("done before the end")
        self._forget(stream, StreamEnd(FrameType.DONE))

    def _answered(self, stream: CoreStream, kind: int, payload: memoryview) -> None:
        """ACCEPT or REJECT: only openers ask."""
        raise StreamViolation(f"{FrameType(kind).name} without a question")

    def _maybe_complete(self, stream: CoreStream) -> None:
        """Acceptors say DONE first."""

    def _violated(self, stream: CoreStream, exc: StreamViolation, now: float) -> None:
        self.violations += 1
        self.reset(stream, ResetCode.PROTOCOL, str(exc))
        peer = stream.wire.peer
        if peer is None or peer.peer != Peer.SWITCH:  # behind a switch, one liar must not end the wire of all
            stream.wire.count_lie(str(exc), now)

    # what applications do, by way of CoreStream

    def tell(self, stream: CoreStream) -> None:
        """Send CREDIT; it replaces one that has not left yet."""
        self._unacknowledged.pop(stream, None)
        stream.outbox.credit(stream.sid, *stream.receive.window.tell())

    def accept(self, stream: CoreStream) -> None:
        raise LocalError("only an acceptor accepts streams")

    def reject(self, stream: CoreStream, code: int, text: str) -> None:
        raise LocalError("only an acceptor rejects streams")

    def reset(self, stream: CoreStream, code: int, text: str) -> None:
        """Drop both halves, say why, and keep the id until the peer has answered."""
        if stream.end is not None:
            return
        stream.state = sending(stream.state, FrameType.RESET)
        self._unacknowledged.pop(stream, None)
        stream.outbox.terminate(stream, frames.encode_say(FrameType.RESET, stream.sid, code, text))
        self._wait(stream, STUB, "stub")
        stream.conclude(StreamEnd(FrameType.RESET, code, text, by_peer=False))

    def linger(self, stream: CoreStream, now: float) -> None:
        """The application has closed: the peer has a while to end its side too."""
        self._waiting[stream] = (now + LINGER, "linger")
        self.alarm(now + LINGER)

    def _wait(self, stream: CoreStream, seconds: float, why: str) -> None:
        """The time is filled in at the next tick: whoever resets a stream need not know it."""
        self._waiting[stream] = (-seconds, why)
        self.alarm(0.0)

    def _forget(self, stream: CoreStream, end: StreamEnd) -> None:
        stream.state = State.CLOSED
        stream.wire.unbind(stream.sid)
        self._unacknowledged.pop(stream, None)
        self._waiting.pop(stream, None)
        if stream.end is None:
            stream.conclude(end)

    # the life of wires

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        """The peer is there."""

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        """Nothing new is opened on the wire (`wire.closing`); its streams go on."""

    def on_lost(self, wire: Wire, now: float) -> None:
        self._run, self._parts, self._size, self._buffer = None, [], 0, None
        for stream in list(wire.ports.values()):
            self._forget(stream, StreamEnd(FrameType.DETACH, DetachCode.LOST, "the connection was lost"))

    # time

    def tick(self, now: float) -> None:
        """Acknowledge what waits for it and end what has waited long enough."""
        for stream, due in list(self._unacknowledged.items()):
            if due > now:
                break
            del self._unacknowledged[stream]
            if stream.state is State.OPEN and stream.receive.window.unacknowledged:
                self.tell(stream)
        for stream, (due, why) in list(self._waiting.items()):
            if due < 0:
                self._waiting[stream] = (now - due, why)
            elif due <= now:
                del self._waiting[stream]
                self._overdue(stream, why)

    def _overdue(self, stream: CoreStream, why: str) -> None:
        if why == "stub":
            self._forget(stream, StreamEnd(FrameType.RESET, ResetCode.APP))
        elif why == "linger":
            self.reset(stream, ResetCode.APP, "closed here, and not ended by the other side in time")

    def deadline(self) -> float | None:
        """When `tick` has something to do; 0 for at once, None for never."""
        first = next(iter(self._unacknowledged.values()), None)
        if not self._waiting:
            return first
        waiting = max(0.0, min(due for due, _ in self._waiting.values()))
        return waiting if first is None else min(first, waiting)


def _nobody(due: float) -> None:
    """Nobody keeps the clock for this endpoint (yet)."""
