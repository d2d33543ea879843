"""One wire on one transport: a reader, and a flush that never waits.

Invariants:
1. Only this file touches the transport. `flush_now` is synchronous: no cancellation can cut a frame.
2. The reader never waits for an application; windows bound what it can be made to hold.
3. An idle wire holds no receive buffer and needs one task, its reader.
4. Bytes that the transport refuses wait in their lanes; one task then waits for the transport, and goes.
5. Whatever ends the wire, `run` returns the reason after everybody concerned was told.
"""

from __future__ import annotations

import logging

import trio

from connect_trio.mux.buffers import Buffer, Pool
from connect_trio.mux.codes import GoawayCode
from connect_trio.mux.errors import WireError
from connect_trio.mux.hub import Hub
from connect_trio.mux.transport import Transport
from connect_trio.mux.wire import Wire

RECEIVE_BUFFER = 512 * 1024  # smaller ones cost throughput: the frame that is cut at the end is copied to the front
SHORT_READ = 64 * 1024
OVERFLOW = "the peer does not read its control frames"

logger = logging.getLogger(__name__)
receive_buffers = Pool(RECEIVE_BUFFER)


class MuxSession:
    """Runs one wire. Make it, then `await run()`; it can be ended from anywhere by `close`."""

    def __init__(self, hub: Hub, wire: Wire, transport: Transport) -> None:
        self.wire = wire
        self._hub = hub
        self._transport = transport
        self._dirty = False
        self._draining = False
        self._reason = ""
        self._scope = trio.CancelScope()
        outbox = wire.outbox
        outbox.wake, outbox.kick, outbox.direct = self._wake, self.flush_now, self._direct
        wire.alarm = self._alarm

    def __repr__(self) -> str:
        return f"<MuxSession {self.wire!r}>"

    async def run(self, early: bytes = b"") -> str:
        """Read until the wire ends; why it did. The transport is closed then.

        early: what the peer sent before this session existed, at most RECEIVE_BUFFER bytes.
        """
        self._wake()
        self._alarm()
        try:
            with self._scope:
                await self._read(early)
        except WireError as exc:
            self._end(str(exc), exc.code)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._reason = self._reason or str(exc)
        finally:
            self._hub.forget(self)
            self.wire.lost(trio.current_time())
            self._transport.close()
        return self._reason

    def close(self, reason: str, code: GoawayCode | None = None) -> None:
        """End the wire now: the peer gets a GOAWAY if there is a code and the transport takes it at once."""
        if not (self.wire.gone or self._scope.cancel_called):
            self._end(reason, code)

    def _end(self, reason: str, code: GoawayCode | None) -> None:
        self._reason = self._reason or reason
        if code is not None:
            self.wire.goaway(code, reason)
        self.flush_now()
        self._scope.cancel()

    # input

    async def _read(self, early: bytes) -> None:
        transport, wire = self._transport, self.wire
        buffer: Buffer | None = None
        filled = 0
        try:
            if early:
                buffer = receive_buffers.take()
                buffer.view[: len(early)] = early
                used = wire.receive(buffer, len(early), trio.current_time())
                buffer, filled = _move_rest(buffer, used, len(early))
            while True:
                if buffer is None:
                    buffer = receive_buffers.take()
                room = RECEIVE_BUFFER - filled
                count = transport.receive_now(buffer.view[filled:])
                if transport.pending:
                    self.flush_now()  # it had something of its own to answer, such as a WebSocket's ping
                if count == 0:
                    self._reason = self._reason or "the peer closed the connection"
                    return
                if count is not None:
                    filled += count
                    used = wire.receive(buffer, filled, trio.current_time())
                    buffer, filled = _move_rest(buffer, used, filled)
                    if count == room or count > SHORT_READ:
                        await trio.lowlevel.checkpoint()
                        continue
                # Nothing is left, or so it seems after a short read: to ask again would cost more than to wait.
                if not filled:
                    buffer.drop()
                    buffer = None
                await transport.wait_readable()
        finally:
            if buffer is not None:
                buffer.drop()

    # output

    def _wake(self) -> None:
        if self._draining:
            if self.wire.outbox.overflow:  # no flush comes by while the transport takes nothing
                self._fail(OVERFLOW)
        elif not self._dirty:
            self._dirty = True
            self._hub.mark(self)

    def _direct(self, view: memoryview) -> int:
        """The switch's short cut: one run of frames, sent as it lies."""
        if self._draining:
            return 0
        try:
            count = self._transport.send_now((view,))
            if self._transport.pending:
                self.flush_now()
            return count
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._fail(str(exc))
            return 0

    def flush_now(self) -> None:
        """Send what waits; if the transport takes no more, a task waits for it."""
        self._dirty = False
        if not self._draining and not self.wire.gone and not self._flush():
            self._draining = True
            self._hub.nursery.start_soon(self._drain, name="mux drain")

    def _flush(self) -> bool:
        """Send until nothing is left (True) or the transport takes no more (False). Never waits, never raises."""
        outbox, transport = self.wire.outbox, self._transport
        if outbox.overflow:
            self._fail(OVERFLOW)
            return True
        try:
            while parts := outbox.gather():
                if not outbox.sent(transport.send_now(parts)):
                    return False
            return not transport.pending
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._fail(str(exc))
            return True

    async def _drain(self) -> None:
        """Wait until the transport takes more, as often as needed."""
        try:
            while not self.wire.gone:
                await self._transport.wait_writable()
                if self._flush():
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._fail(str(exc))
        finally:
            self._draining = False

    def _fail(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._scope.cancel()

    # time

    def _alarm(self) -> None:
        self._hub.schedule(self, self.wire.deadline(trio.current_time()))

    def tick(self, now: float) -> float:
        try:
            self.wire.tick(now)
        except WireError as exc:
            self._end(str(exc), exc.code)
        return max(now + 0.001, self.wire.deadline(now))


def _move_rest(buffer: Buffer, used: int, filled: int) -> tuple[Buffer, int]:
    """Where to read next: the partial frame moves to the front, of another buffer if somebody keeps views of this."""
    rest = filled - used
    if buffer.refs > 1:
        fresh = receive_buffers.take()
        fresh.view[:rest] = buffer.view[used:filled]
        buffer.drop()
        return fresh, rest
    if rest and used:
        buffer.view[:rest] = buffer.view[used:filled]
    return buffer, rest
