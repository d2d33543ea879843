"""The proxy's end: it alone opens streams, and finds another way for those that have lost theirs.

It says OPEN until the first ACCEPT and RESUME from then on. Which wire to ask over is the shell's business: `homeless`
names each stream that needs one, and the shell answers with `attempt`, now or later.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from connect_trio.mux import frames
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import DetachCode, ResetCode
from connect_trio.mux.endpoint import ALLOWANCE, ATTEMPT_MAX, STUB, WINDOW, Endpoint
from connect_trio.mux.errors import LocalError, StreamViolation
from connect_trio.mux.frames import Answer, Ask, FrameType, Goaway, Hello
from connect_trio.mux.states import State
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.wire import Wire

ANSWER = 30.0  # seconds that an OPEN, and those that repeat it, wait for an answer
PATIENCE = 600.0  # seconds that a stream may be detached
ATTEMPT = 1.0  # seconds that a RESUME waits for its answer, at first

_NOT_FORWARDED = (DetachCode.NO_ROUTE, DetachCode.DRAINING)


class Opener(Endpoint):
    """Opens and resumes streams over wires to switches (or straight to an acceptor).

    homeless: called with each stream that has neither home nor trial and needs an `attempt`, with the wire it lost
    (None if that is not known). leaving: called with a wire whose peer wants its streams elsewhere.
    """

    opens = True

    def __init__(
        self,
        *,
        window: int = WINDOW,
        allowance: int = ALLOWANCE,
        answer: float = ANSWER,
        patience: float = PATIENCE,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(window=window, allowance=allowance, budget=budget)
        self.streams: set[CoreStream] = set()
        self.homeless: Callable[[CoreStream, Wire | None], None] = _nobody
        self.leaving: Callable[[Wire], None] = _stay
        self._answer = answer
        self._patience = patience

    def prepare(self, *, token: bytes, session: str = "", kind: str = "", metadata: bytes = b"") -> CoreStream:
        """A stream that has not asked anybody yet; then call `attempt`.

        token: 16 random bytes, the name and secret of the stream. Raises ValueError when the names are too long, and
        LocalError when there are as many streams as there may be.
        """
        if self.budget.streams >= self.budget.most:
            self.counts.refused += 1
            raise LocalError(f"there are {self.budget.most} streams already, as many as there may be")
        ask = Ask(
            token=token,
            attempt=1,
            limit=min(self.window, self.budget.share),
            patience=int(self._patience * 1000),
            session=session,
            kind=kind,
            metadata=metadata,
        )
        frames.check_ask(ask)
        stream = CoreStream(self, ask, opening=True)
        stream.patience = self._patience
        self.streams.add(stream)
        self.budget.begin()
        return stream

    def open(
        self, wire: Wire, *, token: bytes, now: float, session: str = "", kind: str = "", metadata: bytes = b""
    ) -> CoreStream:
        """A new stream, usable at once for INITIAL bytes. Raises as `prepare` and `attempt`."""
        stream = self.prepare(token=token, session=session, kind=kind, metadata=metadata)
        try:
            self.attempt(stream, wire, now)
        except LocalError:
            self._forget(stream)
            raise
        return stream

    def attempt(self, stream: CoreStream, wire: Wire, now: float) -> None:
        """Ask to carry the stream over `wire`: for one that is detached, or to move one whose home still works.

        Raises LocalError when the wire takes no stream (gone, no ids left, as many as the peer allows), when an answer
        is waited for already, or when there is nothing to ask (any more).
        """
        if stream.trial is not None or stream not in self.streams or (stream.home and not stream.accepted):
            raise LocalError("the stream waits for an answer already, or needs none")
        sid = wire.new_id()
        kind = FrameType.RESUME if stream.accepted or stream.end is not None else FrameType.OPEN
        stream.attempt += 1
        stream.tries += 1
        place = Attachment(stream, wire, sid, kind=kind, attempt=stream.attempt, state=State.ASKING, since=now)
        place.told = received, limit = stream.receive.window.tell()
        ask = stream.ask
        if stream.attempt > 1 or limit != ask.limit:
            ask = attrs.evolve(ask, attempt=stream.attempt, received=received, limit=limit)
        wire.bind(sid, place, now)
        stream.trial = place
        wire.outbox.say(frames.encode_ask(kind, sid, ask))
        if stream.end is not None:
            place.say_last(FrameType.RESET, stream.end.code, stream.end.text)
        elif kind is FrameType.RESUME:
            patience = min(ATTEMPT_MAX, max(ATTEMPT, 4 * stream.round_trip) * 2 ** min(stream.tries - 1, 8))
            self.timers.at((stream, "attempt"), now + patience, lambda now: self._unanswered(place, now))
        elif stream.attempt == 1:
            stream.home = place  # the initial window may be used before the answer
            self.timers.at((stream, "life"), now + self._answer, lambda now: self._not_answered(stream))
            stream.advance()

    def _not_answered(self, stream: CoreStream) -> None:
        text = f"no answer from the other end within {self._answer:g} s"
        self.reset(stream, ResetCode.DETACHED_TIMEOUT, text)

    def _unanswered(self, place: Attachment, now: float) -> None:
        """A RESUME had its time: perhaps another way works."""
        place.say_last(FrameType.DETACH, DetachCode.MOVED)
        self._lost(place, DetachCode.LOST, now)

    # answers

    def _answered(self, place: Attachment, kind: int, payload: memoryview, now: float) -> None:
        stream = place.stream
        if kind == FrameType.REJECT:
            if place.kind != FrameType.OPEN:
                raise StreamViolation("REJECT of a stream that was accepted")
            code, text = frames.decode_say_untrusted(payload)
            place.leave()
            self._finish(stream, StreamEnd(FrameType.REJECT, code, text), now)
            return
        answer = frames.decode_answer_untrusted(payload)
        expected = FrameType.ACCEPT if place.kind == FrameType.OPEN else FrameType.RESUMED
        if place is not stream.trial or answer.attempt != place.attempt or kind != expected:
            raise StreamViolation("answer to another question")
        if answer.received < stream.send.window.base:
            raise StreamViolation(f"told {answer.received} where it had acknowledged {stream.send.window.base}")
        self._attach(stream, place, answer, now)

    def _attach(self, stream: CoreStream, place: Attachment, answer: Answer, now: float) -> None:
        """The acceptor has left the old home, if there is one, for this."""
        if stream.home is place:
            stream.send.credit(answer.received, answer.limit)
        else:
            stream.send.attach(answer.received, answer.limit)
        old, stream.home, stream.trial = stream.home, place, None
        place.state = State.ATTACHED
        self.timers.cancel((stream, "attempt"))
        if old is not None and old is not place:
            old.say_last(FrameType.DETACH, DetachCode.MOVED)
            self.counts.moved += 1
        if stream.accepted:
            stream.round_trip = now - place.since
        else:
            stream.accepted = True
            stream.patience = min(self._patience, answer.patience / 1000)
        stream.tries, stream.search = 0, None
        self._reattached(stream, now)
        if place.told != stream.receive.window.pair:
            self.tell(stream)  # what was told over the old way since RESUME left may never have arrived
        stream.advance()

    def _done(self, place: Attachment, now: float) -> None:
        stream = place.stream
        if not (stream.receive.window.finished and stream.send.window.finished):
            raise StreamViolation("done before the end")
        place.answer_last(FrameType.DONE)
        self._finish(stream, StreamEnd(FrameType.DONE), now)

    def _ended_by_peer(self, place: Attachment, kind: int, now: float) -> None:
        if kind == FrameType.DETACH:
            self._lost(place, DetachCode.LOST, now)
        else:
            self._finish(place.stream, StreamEnd(FrameType.RESET, ResetCode.APP), now)

    def _maybe_complete(self, stream: CoreStream, now: float) -> None:
        """The acceptor says DONE first."""

    # losing the way

    def _lost(self, place: Attachment, code: int, now: float) -> None:
        stream = place.stream
        if stream.trial is place:
            stream.trial = None
            self.timers.cancel((stream, "attempt"))
            if stream.home is not None and stream.home is not place:
                if code in _NOT_FORWARDED:
                    stream.tries = 0  # nothing was lost
                    self.tell(stream)  # what only the question told is not told yet
                else:
                    stream.home.say_last(FrameType.DETACH, DetachCode.MOVED)  # the acceptor may have left it already
                    stream.home = None
        if stream.home is place:
            stream.home = None
        if stream.home is not None or stream not in self.streams:
            return
        stream.lost = code
        if stream.end is None and stream.accepted:
            if stream.expendable:
                self.reset(stream, ResetCode.APP, "unused, and its way was lost")
                return
            self._detach(stream, code, stream.patience, now)
        elif stream.observer is not None:
            stream.observer.writable()
        if stream.trial is None:
            self.homeless(stream, place.wire)

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        """Streams may have been opened already."""

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        self.leaving(wire)

    # the end

    def reset(self, stream: CoreStream, code: int, text: str) -> None:
        if stream.end is not None:
            return
        places = {place for place in (stream.home, stream.trial) if place is not None}
        for place in places:
            place.say_last(FrameType.RESET, code, text)
        self.timers.cancel((stream, "attempt"))
        self._conclude(stream, StreamEnd(FrameType.RESET, code, text, by_peer=False))
        if not stream.attempt:  # nobody knows it
            self._forget(stream)
            return
        self.timers.after((stream, "life"), STUB, lambda now: self._forget(stream))
        if not places:
            self.homeless(stream, None)

    def _finish(self, stream: CoreStream, end: StreamEnd, now: float) -> None:
        if stream.end is None:
            self._conclude(stream, end)
        self._forget(stream)

    def _forget(self, stream: CoreStream) -> None:
        if stream in self.streams:
            self.streams.discard(stream)
            self.budget.end()
        self.timers.cancel((stream, "life"))
        self.timers.cancel((stream, "attempt"))
        for place in (stream.home, stream.trial):
            if place is not None and place.state is not State.CLOSED:
                place.say_last(FrameType.DETACH, DetachCode.MOVED)
        stream.home = stream.trial = None


def _nobody(stream: CoreStream, wire: Wire | None) -> None:
    """Nobody looks for ways (yet)."""


def _stay(wire: Wire) -> None:
    """Nobody moves streams (yet)."""
