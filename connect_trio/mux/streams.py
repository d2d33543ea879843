"""One stream at one end: both halves, its state, and where it is attached.

A stream is also the lane of its output on the wire that it is attached to. The application (the shell) is told of
changes by two plain calls on its observer; it never waits here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import Ask, FrameType
from connect_trio.mux.halves import Chunk, ReceiveHalf, SendHalf
from connect_trio.mux.outbox import Lane
from connect_trio.mux.states import State, sending

if TYPE_CHECKING:
    from connect_trio.mux.endpoint import Endpoint
    from connect_trio.mux.wire import Wire

MAX_SMALL = 16  # small pieces that may wait in a stream's lane


@attrs.frozen
class StreamEnd:
    """How a stream ended. cause: RESET, REJECT or DETACH (the wire was lost), or DONE. by_peer: who said so."""

    cause: FrameType
    code: int = 0
    text: str = ""
    by_peer: bool = True


class Observer(Protocol):
    """Who waits for a stream. Called from inside the core: must only take note and wake tasks."""

    def readable(self) -> None:
        """Bytes or the end came, or the stream ended."""
        ...

    def writable(self) -> None:
        """There is room to write, an answer came, or the stream ended."""
        ...


class CoreStream(Lane):
    """State of one stream. `wire` and `sid` say where it is attached."""

    __slots__ = ("ask", "discarding", "end", "endpoint", "observer", "receive", "send", "state", "wire")

    def __init__(self, endpoint: Endpoint, wire: Wire, sid: int, ask: Ask, state: State) -> None:
        super().__init__(wire.outbox, sid)
        self.endpoint = endpoint
        self.wire = wire
        self.ask = ask
        self.state = state
        self.end: StreamEnd | None = None
        self.observer: Observer | None = None
        self.discarding = False
        opening = state is State.OPENING
        self.send = SendHalf(limit=frames.INITIAL if opening else ask.limit, allowance=endpoint.allowance)
        self.receive = ReceiveHalf(granted=ask.limit if opening else frames.INITIAL, window=endpoint.window)

    def __repr__(self) -> str:
        window, incoming = self.send.window, self.receive.window
        return (
            f"<CoreStream {self.wire.label or 'wire'}/{self.sid} {self.state.value} "
            f"sent={window.base}..{window.end}/{window.limit} received={incoming.taken}..{incoming.received}>"
        )

    # what the application does

    @property
    def room(self) -> int:
        """Bytes that may be written now; 0 while a chunk or many small pieces wait, which bounds what waits here."""
        queue = self.queue
        if self.end is not None or (queue and (queue[-1][1] is not None or len(queue) >= MAX_SMALL)):
            return 0
        return self.send.window.room

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send 1 to FRAME bytes, copied, for which there is `room`; they leave at the end of the turn."""
        self._writing(FrameType.DATA)
        self.push(self.send.write(self.sid, data))
        self.outbox.wake()

    def write_chunk(self, chunk: Chunk, size: int) -> None:
        """Send `size` bytes that lie in the slots of `chunk`; takes over the caller's reference."""
        self._writing(FrameType.DATA)
        self.push(self.send.write_chunk(self.sid, chunk, size), chunk)
        self.outbox.kick()

    def finish(self) -> None:
        """No more bytes follow. Raises LocalError when said twice."""
        self._writing(FrameType.FIN)
        self.push(frames.encode_fin(self.sid, self.send.window.finish()))
        self.outbox.wake()

    def _writing(self, kind: FrameType) -> None:
        if self.send.window.finished:
            raise LocalError("the stream's sending side has ended already")
        if self.state is not State.OPEN:
            self.state = sending(self.state, kind)

    def took(self) -> None:
        """The application took bytes of `receive`: give credit if enough of it is due."""
        if self.state is State.OPEN and self.receive.window.due:
            self.endpoint.tell(self)

    def accept(self) -> None:
        """Acceptor: serve the stream. Raises LocalError if it is not waiting for that."""
        self.endpoint.accept(self)

    def reject(self, code: int, text: str) -> None:
        """Acceptor: do not serve the stream. Raises LocalError if it is not waiting for that."""
        self.endpoint.reject(self, code, text)

    def reset(self, code: int = ResetCode.APP, text: str = "") -> None:
        """Drop the stream in both directions, at once. Nothing happens if it has ended."""
        if self.end is None:
            self.endpoint.reset(self, code, text)

    def abandon(self, now: float) -> None:
        """The application closes: what it wrote still goes out; what it has not read, or comes later, is a reset."""
        if self.end is not None:
            self.receive.drop()
            return
        if self.receive.queue or self.state is State.ASKED:
            self.reset(ResetCode.APP, "closed before everything was read")
            return
        if not self.send.window.finished:
            self.finish()
        self.discarding = True
        self.endpoint.linger(self, now)

    # what the endpoint does

    @property
    def complete(self) -> bool:
        """Both directions have ended and ours is acknowledged."""
        return self.send.window.fin_acknowledged and self.receive.window.finished

    def deliver(self, parts: list[memoryview], size: int, buffer: Buffer) -> None:
        self.receive.deliver(parts, size, buffer)
        if self.receive.queue and self.observer is not None:
            self.observer.readable()

    def conclude(self, end: StreamEnd) -> None:
        """The stream has ended: forget its bytes and tell the application.

        What has come may still be read (it is at most a window), unless the application itself dropped the stream.
        """
        self.end = end
        self.send.drop()
        if end.cause is not FrameType.DONE:
            self.clear()
            if not end.by_peer or self.discarding:
                self.receive.drop()
        self.notify()

    def notify(self) -> None:
        if self.observer is not None:
            self.observer.readable()
            self.observer.writable()

    def drained(self) -> None:
        if self.observer is not None:
            self.observer.writable()
