"""A visitor's connection as the edge uses it: try first, wait with a deadline, say clearly that it is gone."""

from __future__ import annotations

import contextlib
import enum
import select
import socket
from collections.abc import Awaitable, Callable

import trio
from trio.lowlevel import checkpoint

from connect_trio.dial import ToolStream
from connect_trio.edge.errors import VisitorGone
from connect_trio.edge.scopes import Hold
from connect_trio.httpio import StrictInbox
from connect_trio.identity.activity import Presence
from connect_trio.mux.buffers import Buffer, Pool
from connect_trio.transport.sockets import Data, Socket

_HEAD_READ = 64 * 1024
_SMALL = 4096
_HANG_UP_EVENT = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a broken connection is seen

# A laptop may sleep for a while and find its connection alive, but a visitor that is gone for good is found out.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 300, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 15}


class Phase(enum.Enum):
    """What a connection is doing: resting between requests, sending a head, being answered, carrying bytes."""

    RESTING = enum.auto()
    HEAD = enum.auto()
    ANSWER = enum.auto()
    SWITCHED = enum.auto()


class Visitor:
    """One visitor's TCP connection, owned by the task that serves it.

    peer: address of whoever connected. inbox: received and not yet read. life: the scope of everything that is done
    for this connection. phase: what it is doing. watched: whether somebody who hangs up must be noticed although
    nothing is read from or written to the connection. tool: the stream that its request goes by. left: it is gone.
    presence: who it was let in as last. moved: whether bytes have passed since the last `sample`. hold: of what is open
    now, or was last: why it was ended, if it was.
    """

    __slots__ = (
        "_buffers",
        "_hung_up_at",
        "_stall",
        "hold",
        "inbox",
        "left",
        "life",
        "moved",
        "peer",
        "phase",
        "presence",
        "socket",
        "tool",
        "watched",
    )

    def __init__(self, sock: Socket, peer: str, *, head_size: int, stall: float, buffers: Pool) -> None:
        self.socket = sock
        self.peer = peer
        self.inbox = StrictInbox(head_size)
        self.life = trio.CancelScope()
        self.watched = False
        self.phase = Phase.RESTING
        self._hung_up_at: float | None = None
        self.left = False
        self.hold: Hold | None = None
        self.tool: ToolStream | None = None
        self.presence: Presence | None = None
        self.moved = False
        self._buffers = buffers
        self._stall = stall

    async def fill(self) -> bool:
        """Wait for bytes and put them into the inbox; False at the end of the stream. Raises VisitorGone."""
        try:
            await self.socket.wait_readable()
            data = await self.socket.receive_some(_HEAD_READ)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise VisitorGone("while it sent a head") from exc
        self.inbox.feed(data)
        return bool(data)

    async def receive(self, seconds: float) -> tuple[memoryview | bytes, Buffer | None]:
        """Received bytes and the buffer to drop afterwards; empty at the end of the stream.

        Raises VisitorGone if nothing comes for so many seconds.
        """
        while True:
            buffer = self._buffers.take()
            try:
                count = self.socket.receive_into_now(buffer.view)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                buffer.drop()
                raise VisitorGone("its connection was lost") from exc
            self.moved = True
            if count and count <= _SMALL:  # whoever has to wait with it is not to keep a whole buffer for it
                data = bytes(buffer.view[:count])
                buffer.drop()
                return data, None
            if count:
                return buffer.view[:count], buffer
            buffer.drop()
            if count == 0:
                return b"", None
            with trio.move_on_after(seconds) as scope:
                await self._wait(self.socket.wait_readable)
            if scope.cancelled_caught:
                raise VisitorGone("it stalled in a body")

    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]:
        """Part of a body and the buffer to drop afterwards. Raises VisitorGone, also at the end of the stream."""
        view, buffer = await self.receive(self._stall)
        if not view:
            raise VisitorGone("its connection ended within a body")
        return view, buffer

    async def send_all(self, data: Data) -> None:
        """Send everything; returns without a checkpoint if the kernel takes it at once. Raises VisitorGone."""
        sent = self._send_now(data)
        if sent == len(data):
            return
        view = memoryview(data)[sent:]
        while view:
            with trio.move_on_after(self._stall) as scope:
                await self._wait(self.socket.wait_writable)
            if scope.cancelled_caught:
                raise VisitorGone("it does not read its answer")
            view = view[self._send_now(view) :]

    def _send_now(self, data: Data) -> int:
        self.moved = True
        try:
            return self.socket.send_now(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise VisitorGone("while it was sent an answer") from exc

    @staticmethod
    async def _wait(wait: Callable[[], Awaitable[None]]) -> None:
        try:
            await wait()
        except trio.ClosedResourceError as exc:
            raise VisitorGone("its connection was closed here") from exc

    async def linger(self, seconds: float) -> None:
        """End our side and take in what still comes, so that the visitor can read what it was sent last.

        Closing with unread bytes resets the connection, and a reset can overtake an answer (RFC 9112, section 9.6).
        """
        self.inbox.take(len(self.inbox))
        self.socket.send_eof_now()
        with trio.move_on_after(seconds), contextlib.suppress(VisitorGone):
            while True:
                _, buffer = await self.receive_view()
                if buffer is not None:
                    buffer.drop()
                await checkpoint()

    def watch(self) -> None:
        """The request was received whole; from here on `look` finds out whether the visitor still waits for it."""
        self._hung_up_at = None
        self.watched = True

    def _hang_up_events(self) -> int:
        poll = select.poll()
        poll.register(self.socket.sock, _HANG_UP_EVENT)
        found = poll.poll(0)
        return found[0][1] if found else 0

    def look(self, now: float, grace: float) -> None:
        """End the work for a visitor that is gone. Called every now and then while it is `watched`.

        One that only ended its sending side may still read, so it is given `grace` seconds.
        """
        events = self._hang_up_events()
        if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            self._leave()
        elif not events & _HANG_UP_EVENT:
            self._hung_up_at = None
        elif self._hung_up_at is None:
            self._hung_up_at = now
        elif now - self._hung_up_at >= grace:
            self._leave()

    def hold_clocks(self, seconds: float) -> None:
        """So much time has passed; it does not count where the way to the tool is lost, which is nobody's fault here.

        Called every now and then.
        """
        if self.tool is not None and self.tool.detached:
            self.life.deadline += seconds
            if self._hung_up_at is not None:
                self._hung_up_at += seconds

    def sample(self, now: float) -> None:
        """Whoever's bytes have passed since the last time was active. Called every few seconds: not by each of them."""
        if self.moved:
            self.moved = False
            if self.presence is not None:
                self.presence.touch(now)

    def _leave(self) -> None:
        self.left = True
        self.life.cancel()


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out that a silent visitor is gone, after about twenty minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
