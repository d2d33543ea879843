"""One id on one wire that carries a stream, or asks to: what comes and goes when ways are lost and found.

A stream has at most one home, and the opener may have a trial beside it: another id, by which it has asked to go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connect_trio.mux import frames
from connect_trio.mux.frames import FrameType
from connect_trio.mux.outbox import Lane
from connect_trio.mux.states import State, sending

if TYPE_CHECKING:
    from connect_trio.mux.streams import CoreStream
    from connect_trio.mux.wire import Wire


class Attachment(Lane):
    """The lane of a stream's output on one wire, and what may come and go there.

    kind: OPEN or RESUME, which it began with. attempt: the number that was in it. since: when that was. told: the
    credit that was in it.
    """

    __slots__ = ("attempt", "kind", "since", "state", "stream", "told", "wire")

    def __init__(
        self, stream: CoreStream, wire: Wire, sid: int, *, kind: int, attempt: int, state: State, since: float
    ) -> None:
        super().__init__(wire.outbox, sid)
        self.stream = stream
        self.wire = wire
        self.kind = kind
        self.attempt = attempt
        self.state = state
        self.since = since
        self.told = (0, 0)

    def __repr__(self) -> str:
        return f"<Attachment {self.wire.label or 'wire'}/{self.sid} {self.state.value}>"

    def drained(self) -> None:
        if self.stream.home is self:
            self.stream.advance()

    def say_last(self, kind: FrameType, code: int = 0, text: str = "") -> None:
        """Send RESET, DONE, REJECT or DETACH; what waits here is forgotten. Raises LocalError if it may not be said."""
        self.state = sending(self.state, kind)
        self.outbox.terminate(self, _last_frame(kind, self.sid, code, text))
        if self.state is State.CLOSED:
            self.wire.unbind(self.sid)

    def answer_last(self, kind: FrameType, code: int = 0) -> None:
        """The peer has said its last frame on the id first: say the same, and the id is free."""
        self.state = State.CLOSED
        self.outbox.terminate(self, _last_frame(kind, self.sid, code, ""))
        self.wire.unbind(self.sid)

    def leave(self) -> None:
        """Nothing is said or heard on the id any more; the peer finds out by itself, or knows."""
        self.state = State.CLOSED
        self.outbox.let_go(self)
        self.wire.unbind(self.sid)


def _last_frame(kind: FrameType, sid: int, code: int, text: str) -> bytes:
    if kind is FrameType.DONE:
        return frames.encode(kind, sid)
    if kind is FrameType.DETACH:
        return frames.encode_detach(sid, code)
    return frames.encode_say(kind, sid, code, text)
