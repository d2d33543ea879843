"""The agent's end: it serves the streams that proxies open."""

from __future__ import annotations

from collections.abc import Callable

from connect_trio.mux import frames
from connect_trio.mux.codes import DetachCode, RejectCode
from connect_trio.mux.endpoint import ALLOWANCE, WINDOW, Endpoint
from connect_trio.mux.frames import Answer, FrameType
from connect_trio.mux.states import State, sending
from connect_trio.mux.streams import CoreStream, StreamEnd
from connect_trio.mux.wire import Wire

MAX_ASKED = 1024  # streams that may wait for the application's answer, each with up to INITIAL bytes


class Acceptor(Endpoint):
    """Serves streams. `on_open` is given each new one, and answers it by `accept` or `reject`, now or later."""

    def __init__(
        self,
        on_open: Callable[[CoreStream], None],
        *,
        window: int = WINDOW,
        allowance: int = ALLOWANCE,
        max_asked: int = MAX_ASKED,
    ) -> None:
        super().__init__(window=window, allowance=allowance)
        self._on_open = on_open
        self._max_asked = max_asked
        self._asked: set[CoreStream] = set()
        self._tokens: set[bytes] = set()

    def _unbound_frame(self, wire: Wire, kind: int, sid: int, payload: memoryview, now: float) -> None:
        if kind not in (FrameType.OPEN, FrameType.RESUME):
            super()._unbound_frame(wire, kind, sid, payload, now)
            return
        wire.admit_id_untrusted(sid)
        ask = frames.decode_ask_untrusted(payload)
        if kind == FrameType.RESUME:  # this version keeps no detached streams
            wire.outbox.say(frames.encode_detach(sid, DetachCode.STALE))
            return
        if ask.token in self._tokens:
            wire.outbox.say(frames.encode_detach(sid, DetachCode.STALE))
            return
        if len(self._asked) >= self._max_asked:
            text = f"more than {self._max_asked} streams wait to be served"
            wire.outbox.say(frames.encode_say(FrameType.REJECT, sid, RejectCode.OVERLOADED, text))
            return
        stream = CoreStream(self, wire, sid, ask, State.ASKED)
        wire.bind(sid, stream, now)
        self._tokens.add(ask.token)
        self._asked.add(stream)
        self._on_open(stream)

    def accept(self, stream: CoreStream) -> None:
        stream.state = sending(stream.state, FrameType.ACCEPT)
        self._asked.discard(stream)
        position, limit = stream.receive.window.tell()
        answer = Answer(attempt=stream.ask.attempt, received=position, limit=limit, patience=stream.ask.patience)
        stream.outbox.say(frames.encode_answer(FrameType.ACCEPT, stream.sid, answer))
        stream.drained()

    def reject(self, stream: CoreStream, code: int, text: str) -> None:
        stream.state = sending(stream.state, FrameType.REJECT)
        stream.outbox.terminate(stream, frames.encode_say(FrameType.REJECT, stream.sid, code, text))
        self._forget(stream, StreamEnd(FrameType.REJECT, code, text, by_peer=False))

    def reset(self, stream: CoreStream, code: int, text: str) -> None:
        self._asked.discard(stream)
        super().reset(stream, code, text)

    def _maybe_complete(self, stream: CoreStream) -> None:
        if stream.complete and stream.state is State.OPEN:
            stream.outbox.terminate(stream, frames.encode(FrameType.DONE, stream.sid))
            stream.state = sending(stream.state, FrameType.DONE)
            self._unacknowledged.pop(stream, None)
            self._waiting.pop(stream, None)
            stream.conclude(StreamEnd(FrameType.DONE, by_peer=False))

    def _forget(self, stream: CoreStream, end: StreamEnd) -> None:
        super()._forget(stream, end)
        self._asked.discard(stream)
        self._tokens.discard(stream.ask.token)

    @property
    def asked(self) -> int:
        """Streams that wait for the application's answer."""
        return len(self._asked)
