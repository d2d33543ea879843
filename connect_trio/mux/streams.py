"""One stream at one end: both halves, how it ended, and where it is attached.

A stream lives in its endpoint, not on a wire: `home` is the attachment that carries it now, None while it is detached.
The application (the shell) is told of changes by two plain calls on its observer; it never waits here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from connect_trio.mux import frames
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import Ask, FrameType
from connect_trio.mux.halves import CHUNK, Chunk, ReceiveHalf, SendHalf
from connect_trio.mux.states import State

if TYPE_CHECKING:
    from connect_trio.mux.endpoint import Endpoint
    from connect_trio.mux.wire import Wire

MAX_SMALL = 16  # small pieces that may wait in a stream's lane


@attrs.frozen
class StreamEnd:
    """How a stream ended. cause: RESET, REJECT or DONE. by_peer: who said so."""

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
        """There is room to write, an answer came, a way was found or lost, or the stream ended."""
        ...


class CoreStream:
    """State of one stream.

    accepted: the acceptor's application serves it. attempt: the number of the newest OPEN or RESUME. trial: the
    opener's attachment that has asked and waits for the answer; for its first OPEN that is its home as well. patience:
    seconds that it may be detached. expendable: nobody would miss it, so it is given up when its way is lost.
    `detached`: since when it has no home, None while it has one or has ended. lost: the code of the DETACH by which it
    lost its last way. tries: attempts since it lost its home. round_trip: of its last answered RESUME, seconds.
    search: for whoever looks for ways, what is known since the stream lost its home; None when it has found one.
    """

    __slots__ = (
        "accepted",
        "ask",
        "attempt",
        "detached",
        "discarding",
        "end",
        "endpoint",
        "expendable",
        "home",
        "lost",
        "observer",
        "patience",
        "receive",
        "round_trip",
        "search",
        "send",
        "trial",
        "tries",
    )

    def __init__(self, endpoint: Endpoint, ask: Ask, *, opening: bool) -> None:
        self.endpoint = endpoint
        self.ask = ask
        self.accepted = False
        self.attempt = 0
        self.home: Attachment | None = None
        self.trial: Attachment | None = None
        self.end: StreamEnd | None = None
        self.observer: Observer | None = None
        self.discarding = False
        self.expendable = False
        self.patience = 0.0
        self.detached: float | None = None
        self.lost = 0
        self.tries = 0
        self.search: object | None = None
        self.round_trip = 0.0
        budget = endpoint.budget
        self.send = SendHalf(
            limit=frames.INITIAL if opening else ask.limit, allowance=endpoint.allowance, budget=budget
        )
        self.receive = ReceiveHalf(
            granted=ask.limit if opening else frames.INITIAL, window=endpoint.window, budget=budget
        )

    def __repr__(self) -> str:
        window, incoming = self.send.window, self.receive.window
        return (
            f"<CoreStream {self.home or 'detached'} accepted={self.accepted} "
            f"sent={window.base}..{window.position}..{window.end}/{window.limit} "
            f"received={incoming.taken}..{incoming.received}>"
        )

    @property
    def token(self) -> bytes:
        return self.ask.token

    @property
    def wire(self) -> Wire | None:
        """The wire that carries the stream now."""
        return self.home.wire if self.home is not None else None

    @property
    def attached(self) -> bool:
        """Whether bytes can pass now."""
        return self.home is not None and self.accepted

    @property
    def asked(self) -> bool:
        """Acceptor: whether the application has not answered yet."""
        return not (self.accepted or self.endpoint.opens)

    # what the application does

    @property
    def room(self) -> int:
        """Bytes that may be written now; 0 while detached, and while a chunk or many small pieces wait, which bounds
        what waits here."""
        home = self.home
        if home is None or self.end is not None or home.state is State.ASKED:
            return 0
        queue = home.queue
        if queue and (queue[-1][1] is not None or len(queue) >= MAX_SMALL):
            return 0
        return self.send.room

    @property
    def tight(self) -> bool:
        """Whether less than a chunk may be kept: then pieces of it had better be copied than keep it whole."""
        return self.endpoint.budget.share < CHUNK

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send 1 to FRAME bytes, copied, for which there is `room`; they leave at the end of the turn."""
        home = self._writing()
        home.push(self.send.write(home.sid, data))
        home.outbox.wake()
        if self.endpoint.budget.over:
            self.endpoint.squeeze()

    def write_chunk(self, chunk: Chunk, size: int) -> None:
        """Send `size` bytes that lie in the slots of `chunk`; takes over the caller's reference."""
        home = self._writing()
        home.push(self.send.write_chunk(home.sid, chunk, size), chunk)
        home.outbox.kick()
        if self.endpoint.budget.over:
            self.endpoint.squeeze()

    def _writing(self) -> Attachment:
        if self.home is None or self.send.window.finished or self.home.state is State.ASKED:
            raise LocalError("the stream cannot be written to now: there is no room")
        return self.home

    def finish(self) -> None:
        """No more bytes follow. Raises LocalError when said twice, or before the acceptor has accepted."""
        if self.send.window.finished:
            raise LocalError("the stream's sending side has ended already")
        if self.asked:
            raise LocalError("the stream was not accepted yet")
        self.send.window.finish()
        self.advance()

    def advance(self) -> None:
        """Hand the home attachment what it has not got yet, as far as it may take it; then the application's turn."""
        home, window = self.home, self.send.window
        if home is not None and self.end is None and window.behind and home.state is not State.ASKED:
            pushed = False
            while len(home.queue) < MAX_SMALL and (run := self.send.next_run(home.sid)) is not None:
                home.push(*run)
                pushed = True
            # The end needs no credit, but the switch must first know of what was acknowledged elsewhere.
            if window.finished and window.position == window.end <= window.limit:
                home.push(frames.encode_fin(home.sid, window.end))
                window.position += 1
                pushed = True
            if pushed:
                home.outbox.wake()
        if self.observer is not None:
            self.observer.writable()

    def took(self) -> None:
        """The application took bytes of `receive`: give credit if enough of it is due."""
        if self.receive.window.due and self.home is not None and self.accepted and self.end is None:
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
        if self.receive.queue or self.asked:
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

    @property
    def holds(self) -> int:
        """Bytes that the stream keeps: unacknowledged ones and unread ones."""
        sent = self.send.window
        return sent.end - sent.base + sum(len(data) for data, _ in self.receive.queue)

    def deliver(self, parts: list[memoryview], size: int, buffer: Buffer) -> None:
        self.receive.deliver(parts, size, buffer)
        if self.receive.queue:
            if self.endpoint.budget.over:
                self.endpoint.squeeze()
            if self.observer is not None:
                self.observer.readable()

    def conclude(self, end: StreamEnd) -> None:
        """The stream has ended: forget its bytes and tell the application.

        What has come may still be read (it is at most a window), unless the application itself dropped the stream.
        """
        self.end = end
        self.detached = None
        self.send.drop()
        if end.cause is not FrameType.DONE:
            if self.home is not None:
                self.home.clear()
            if not end.by_peer or self.discarding:
                self.receive.drop()
        self.notify()

    def notify(self) -> None:
        if self.observer is not None:
            self.observer.readable()
            self.observer.writable()
