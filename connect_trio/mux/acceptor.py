"""The agent's end: it serves the streams that proxies open, each token once, and lets them come back by other ways."""

from __future__ import annotations

from collections.abc import Callable

from connect_trio.mux import frames
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import DetachCode, RejectCode, ResetCode
from connect_trio.mux.endpoint import ALLOWANCE, ATTEMPT_MAX, DEAD, STUB, WINDOW, Endpoint
from connect_trio.mux.errors import LocalError, StreamViolation
from connect_trio.mux.frames import Answer, Ask, FrameType, Goaway, Hello
from connect_trio.mux.states import State, sending
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.tombstones import Tombstones
from connect_trio.mux.wire import Wire

MAX_ASKED = 1024  # streams that may wait for the application's answer, each with up to INITIAL bytes
MAX_PATIENCE = 3600.0  # seconds; the longest resume time-out that is granted
ORPHAN = 120.0  # seconds that a stream is kept whose proxy's link was lost, while the proxy could come back


def waits(patience: float) -> float:
    """How long an acceptor waits for a stream that its opener resumes for `patience` seconds: never less long, though
    it may have noticed the loss earlier and the last attempt may still be on its way."""
    return (patience + STUB + 2 * DEAD + ATTEMPT_MAX) * 1.05


class Acceptor(Endpoint):
    """Serves streams. `on_open` is given each new one, and answers it by `accept` or `reject`, now or later."""

    def __init__(
        self,
        on_open: Callable[[CoreStream], None],
        *,
        window: int = WINDOW,
        allowance: int = ALLOWANCE,
        max_asked: int = MAX_ASKED,
        max_patience: float = MAX_PATIENCE,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(window=window, allowance=allowance, budget=budget)
        self._on_open = on_open
        self._max_asked = max_asked
        self._max_patience = max_patience
        self._asked: set[CoreStream] = set()
        self._streams: dict[bytes, CoreStream] = {}
        self._wires: set[Wire] = set()
        self.tombstones = Tombstones(self.timers, linger=waits(max_patience))

    @property
    def asked(self) -> int:
        """Streams that wait for the application's answer."""
        return len(self._asked)

    @property
    def streams(self) -> int:
        """Streams that have not ended."""
        return len(self._streams)

    # questions

    def _unbound_frame(self, wire: Wire, kind: int, sid: int, payload: memoryview, now: float) -> None:
        if kind not in (FrameType.OPEN, FrameType.RESUME):
            super()._unbound_frame(wire, kind, sid, payload, now)
            return
        wire.admit_id_untrusted(sid)
        ask = frames.decode_ask_untrusted(payload)
        stream, stone = self._streams.get(ask.token), self.tombstones.get(ask.token)
        known = stream or stone
        if known is not None and ask.attempt <= known.attempt:
            # What it says of offsets is not even looked at: it was true when it was said.
            wire.outbox.say(frames.encode_detach(sid, DetachCode.STALE))
        elif stone is not None:
            self._say_ended(wire, sid, kind, ask, stone.end, now)
        elif stream is not None:
            self._attach(stream, self._place(stream, wire, sid, kind, ask, now), ask, now)
        elif kind == FrameType.RESUME:
            end = StreamEnd(FrameType.RESET, ResetCode.UNKNOWN, "the agent was started anew", by_peer=False)
            self._say_ended(wire, sid, kind, ask, end, now)
        else:
            self._open(wire, sid, ask, now)

    def _place(self, stream: CoreStream, wire: Wire, sid: int, kind: int, ask: Ask, now: float) -> Attachment:
        place = Attachment(stream, wire, sid, kind=kind, attempt=ask.attempt, state=State.ASKED, since=now)
        place.told = ask.received, ask.limit
        wire.bind(sid, place, now)
        return place

    def _open(self, wire: Wire, sid: int, ask: Ask, now: float) -> None:
        if len(self._asked) >= self._max_asked:
            self._refuse(
                wire, sid, ask, RejectCode.OVERLOADED, f"more than {self._max_asked} streams wait to be served"
            )
            return
        budget = self.budget
        if budget.streams >= budget.most:
            self._refuse(wire, sid, ask, RejectCode.OVERLOADED, f"the agent has {budget.most} streams already")
            return
        self.squeeze()
        if budget.over:
            self._refuse(wire, sid, ask, RejectCode.BUDGET, "the agent's memory for streams is used up")
            return
        budget.begin()
        stream = CoreStream(self, ask, opening=False)
        stream.patience = min(ask.patience / 1000, self._max_patience)
        if ask.limit < frames.INITIAL:  # the opener lacks memory, and may keep no more than this of what it sends
            stream.receive.window.pace = max(1, ask.limit >> 1)
        self._streams[ask.token] = stream
        self._asked.add(stream)
        self._attach(stream, self._place(stream, wire, sid, FrameType.OPEN, ask, now), ask, now)
        if stream.end is None:  # the question may have been a lie
            self._on_open(stream)

    def _refuse(self, wire: Wire, sid: int, ask: Ask, code: RejectCode, text: str) -> None:
        self.counts.refused += 1
        wire.outbox.say(frames.encode_say(FrameType.REJECT, sid, code, text))
        if ask.attempt > 1:  # an earlier question may still come
            self.tombstones.bury(ask.token, ask.attempt, StreamEnd(FrameType.REJECT, code, text, by_peer=False))

    def _say_ended(self, wire: Wire, sid: int, kind: int, ask: Ask, end: StreamEnd, now: float) -> None:
        """A question about a stream that is over, or that was never here."""
        self.tombstones.bury(ask.token, ask.attempt, end, now)
        if end.cause is FrameType.REJECT and kind == FrameType.RESUME:
            end = StreamEnd(FrameType.RESET, ResetCode.UNKNOWN, "the stream was refused", by_peer=False)
        ghost = CoreStream(self, ask, opening=False)
        ghost.end = end
        self._place(ghost, wire, sid, kind, ask, now).say_last(end.cause, end.code, end.text)

    def _attach(self, stream: CoreStream, place: Attachment, ask: Ask, now: float) -> None:
        """The stream goes on here. Its former id is unmapped in the same step: what still comes there is ignored."""
        if stream.home is not None:
            stream.home.leave()
            self.counts.moved += 1
        stream.home, stream.attempt = place, ask.attempt
        self._reattached(stream, now)
        try:
            stream.send.attach(ask.received, ask.limit)
        except StreamViolation as exc:
            self._violated(stream, place.wire, exc, now)
            return
        if stream.accepted:
            self._answer(stream, place)
        self._maybe_complete(stream, now)

    def _answer(self, stream: CoreStream, place: Attachment) -> None:
        kind = FrameType.ACCEPT if place.kind == FrameType.OPEN else FrameType.RESUMED
        place.state = sending(place.state, kind)
        if place.told[0] < stream.send.window.base:  # honest if its CREDIT, which was under way elsewhere, comes first
            place.state = State.BEHIND
        received, limit = stream.receive.window.tell()
        patience = int(stream.patience * 1000)
        answer = Answer(attempt=place.attempt, received=received, limit=limit, patience=patience)
        place.outbox.say(frames.encode_answer(kind, place.sid, answer))
        stream.advance()

    def accept(self, stream: CoreStream) -> None:
        if stream not in self._asked:
            raise LocalError("the stream is not waiting to be accepted")
        self._asked.discard(stream)
        stream.accepted = True
        if stream.home is not None:
            self._answer(stream, stream.home)

    def reject(self, stream: CoreStream, code: int, text: str) -> None:
        if stream not in self._asked:
            raise LocalError("the stream is not waiting to be rejected")
        end = StreamEnd(FrameType.REJECT, code, text, by_peer=False)
        if stream.home is not None:
            stream.home.say_last(FrameType.REJECT, code, text)
        if stream.home is None or stream.attempt > 1:
            self.tombstones.bury(stream.token, stream.attempt, end)
        self._conclude(stream, end)

    # the end

    def _maybe_complete(self, stream: CoreStream, now: float) -> None:
        if stream.complete and stream.accepted and stream.home is not None and stream.end is None:
            stream.home.say_last(FrameType.DONE)
            self._bury(stream, StreamEnd(FrameType.DONE, by_peer=False), now)

    def reset(self, stream: CoreStream, code: int, text: str) -> None:
        if stream.end is not None:
            return
        if stream.home is not None:
            stream.home.say_last(FrameType.RESET, code, text)
        self._bury(stream, StreamEnd(FrameType.RESET, code, text, by_peer=False))

    def shut_down(self, text: str) -> None:
        """This process ends: whoever uses a stream learns it at once, as far as the wires take it now."""
        for stream in list(self._streams.values()):
            self.reset(stream, ResetCode.SHUTDOWN, text)
        for wire in self._wires:
            wire.outbox.kick()

    def _bury(self, stream: CoreStream, end: StreamEnd, now: float | None = None) -> None:
        self.tombstones.bury(stream.token, stream.attempt, end, now)
        self._conclude(stream, end)

    def _finish(self, stream: CoreStream, end: StreamEnd, now: float) -> None:
        if stream.end is None:
            self._bury(stream, end, now)
        self.tombstones.confirmed(stream.token, now)

    def _ended_by_peer(self, place: Attachment, kind: int, now: float) -> None:
        if kind != FrameType.DETACH:
            self.tombstones.confirmed(place.stream.token, now)

    def _conclude(self, stream: CoreStream, end: StreamEnd) -> None:
        self._asked.discard(stream)
        if self._streams.pop(stream.token, None) is not None:
            self.budget.end()
        super()._conclude(stream, end)
        stream.home = None

    # losing the way

    def _lost(self, place: Attachment, code: int, now: float) -> None:
        stream = place.stream
        if stream.home is not place or stream.end is not None:
            return
        stream.home = None
        patience = waits(stream.patience)
        self._detach(stream, code, min(patience, ORPHAN) if code == DetachCode.LINK_LOST else patience, now)

    def _overdue(self, stream: CoreStream, now: float) -> None:
        if stream.lost == DetachCode.LINK_LOST and not self._wires and self._rest(stream, now) > 0:
            self._expect(stream, now)  # a living proxy could not have come back
        else:
            super()._overdue(stream, now)

    def _rest(self, stream: CoreStream, now: float) -> float:
        """Seconds that a detached stream may still be kept, whatever happened to its opener."""
        return (now if stream.detached is None else stream.detached) + waits(stream.patience) - now

    def _expect(self, stream: CoreStream, now: float) -> None:
        """A living proxy whose link was lost comes back soon."""
        due = now + min(self._rest(stream, now), ORPHAN)
        self.timers.at((stream, "life"), due, lambda now: self._overdue(stream, now))

    # the life of wires

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        if not self._wires:  # from now on a living proxy can come back
            for stream in self._detached:
                if stream.lost == DetachCode.LINK_LOST:
                    self._expect(stream, now)
        self._wires.add(wire)

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        """The agent dials elsewhere; its streams go on."""

    def on_lost(self, wire: Wire, now: float) -> None:
        self._wires.discard(wire)
        super().on_lost(wire, now)
