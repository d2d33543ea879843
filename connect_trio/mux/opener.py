"""The proxy's end: it alone opens streams."""

from __future__ import annotations

from connect_trio.mux import frames
from connect_trio.mux.codes import ResetCode
from connect_trio.mux.endpoint import ALLOWANCE, WINDOW, Endpoint
from connect_trio.mux.errors import StreamViolation
from connect_trio.mux.frames import Ask, FrameType
from connect_trio.mux.states import State
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.wire import Wire

ANSWER = 30.0  # seconds that an OPEN waits for its answer


class Opener(Endpoint):
    """Opens streams over wires to switches (or straight to an acceptor)."""

    def __init__(self, *, window: int = WINDOW, allowance: int = ALLOWANCE, answer: float = ANSWER) -> None:
        super().__init__(window=window, allowance=allowance)
        self._answer = answer

    def open(
        self, wire: Wire, *, token: bytes, now: float, session: str = "", kind: str = "", metadata: bytes = b""
    ) -> CoreStream:
        """A new stream, usable at once for INITIAL bytes.

        token: 16 random bytes, the name and secret of the stream. Raises LocalError when the wire takes no stream
        (gone, no ids left, as many as the peer allows), ValueError when the names are too long.
        """
        ask = Ask(token=token, attempt=1, limit=self.window, session=session, kind=kind, metadata=metadata)
        sid = wire.new_id()
        frame = frames.encode_ask(FrameType.OPEN, sid, ask)
        stream = CoreStream(self, wire, sid, ask, State.OPENING)
        wire.bind(sid, stream, now)
        self._waiting[stream] = (now + self._answer, "answer")
        self.alarm(now + self._answer)
        wire.outbox.say(frame)
        return stream

    def _answered(self, stream: CoreStream, kind: int, payload: memoryview) -> None:
        if kind == FrameType.REJECT:
            code, text = frames.decode_say_untrusted(payload)
            stream.clear()
            self._forget(stream, StreamEnd(FrameType.REJECT, code, text))
            return
        if stream.state is State.RESETTING:
            return
        answer = frames.decode_answer_untrusted(payload)
        if answer.attempt != stream.ask.attempt:
            raise StreamViolation("answer to another question")
        stream.send.credit(answer.received, answer.limit)
        if self._waiting.get(stream, (0.0, ""))[1] == "answer":
            del self._waiting[stream]
        stream.drained()

    def _done(self, stream: CoreStream) -> None:
        window = stream.send.window
        if stream.end is None:
            if not (stream.receive.window.finished and window.finished):
                raise StreamViolation("done before the end")
            stream.outbox.terminate(stream, frames.encode(FrameType.DONE, stream.sid))
        super()._done(stream)

    def _overdue(self, stream: CoreStream, why: str) -> None:
        if why == "answer":
            self.reset(stream, ResetCode.DETACHED_TIMEOUT, f"no answer from the other end within {self._answer:g} s")
        else:
            super()._overdue(stream, why)
