"""Non-blocking sockets under trio: try first, wait only when the kernel says so.

`trio.SocketStream` takes a checkpoint and a lock on each operation, which is a third of what a small request costs.
Here an operation that succeeds at once costs one system call; who loops over them takes a checkpoint of its own
(`trio.lowlevel.checkpoint`) once in a while, so that nobody starves.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import trio
from trio.lowlevel import checkpoint, notify_closing, wait_readable, wait_writable

Data = bytes | bytearray | memoryview

# What a coroutine function gives, without a frame of its own for as long as the wait: 200 bytes for each idle tunnel.
Wait = Coroutine[Any, Any, None]


class Connection(Protocol):
    """What handshakes, heads and relays need of a connection between a proxy and a server: a `Socket`, or TLS over one.

    Methods raise trio.BrokenResourceError when it is lost, trio.ClosedResourceError after `close`.
    """

    def receive_into_now(self, into: memoryview) -> int | None:
        """Bytes read into `into`, 0 at the end of the stream, None if nothing is there now."""
        ...

    async def wait_readable(self) -> None: ...

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """Some bytes, empty at the end."""
        ...

    async def send_all(self, data: Data) -> None: ...

    def send_eof_now(self) -> None:
        """Half-close: the peer reads the end."""
        ...

    def close(self) -> None: ...

    def abort(self) -> None:
        """Close with a reset instead of an orderly end."""
        ...


class Socket:
    """One connected stream socket, owned by this object."""

    __slots__ = ("sock",)

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    @classmethod
    def adopt(cls, stream: trio.SocketStream) -> Socket:
        """Take the socket out of a trio stream, which must not be used any more."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def send_now(self, data: Data) -> int:
        """Bytes that the kernel took, 0 if none now. Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._translated(exc) from exc

    def send_parts_now(self, parts: Sequence[Data]) -> int:
        """Like `send_now` for several pieces (at most 1,024) in one system call."""
        try:
            return self.sock.sendmsg(parts)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._translated(exc) from exc

    def receive_into_now(self, into: memoryview) -> int | None:
        """Bytes read into `into`, 0 at the end of the stream, None if nothing is there now. Raises as `send_now`."""
        try:
            return self.sock.recv_into(into)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._translated(exc) from exc

    def receive_parts_now(self, into: Sequence[memoryview]) -> int | None:
        """Like `receive_into_now`, scattered over several views in order."""
        try:
            return self.sock.recvmsg_into(into)[0]
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._translated(exc) from exc

    def wait_readable(self) -> Wait:
        return _waiting(wait_readable, self.sock)

    def wait_writable(self) -> Wait:
        return _waiting(wait_writable, self.sock)

    async def send_all(self, data: Data) -> None:
        """Send everything; a checkpoint only if the kernel does not take all at once. Raises as `send_now`."""
        sent = self.send_now(data)
        if sent == len(data):
            return
        view = memoryview(data)[sent:]
        while view:
            await self.wait_writable()
            view = view[self.send_now(view) :]

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """Some bytes, empty at the end; a checkpoint only if nothing is there yet. Raises as `send_now`."""
        while True:
            try:
                return self.sock.recv(max_bytes)
            except BlockingIOError:
                await self.wait_readable()
            except OSError as exc:
                raise self._translated(exc) from exc

    def send_eof_now(self) -> None:
        """Half-close: the peer reads the end. Quiet if the connection is already gone."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close at once; tasks that wait for this socket get trio.ClosedResourceError. May be called twice."""
        if not self.closed:
            notify_closing(self.sock)
            self.sock.close()

    def abort(self) -> None:
        """Close with a reset instead of an orderly end, so that the peer sees an error and not a short answer."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def _translated(self, exc: OSError) -> Exception:
        if self.closed:
            return trio.ClosedResourceError("this socket was closed here")
        return trio.BrokenResourceError(f"connection lost: {exc.strerror or exc}")


async def _waiting(wait: Callable[[socket.socket], Awaitable[None]], sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise trio.ClosedResourceError("this socket was closed here")
    await wait(sock)


NOTSENT_LOWAT = 512 * 1024  # bytes in the kernel that are not on the way yet: above this our scheduler is decoration
TCP_NOTSENT_LOWAT = 25  # Linux and macOS number; Python 3.11 has no name for it


def keep_queue_short(sock: socket.socket | trio.socket.SocketType) -> None:
    """Let the kernel take little more than it can send, so that what is sent next is decided late."""
    with contextlib.suppress(OSError):  # not TCP, or not Linux: only fairness beside bulk suffers
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)


class SocketTransport:
    """A `connect_trio.mux.transport.Transport` on a socket."""

    __slots__ = ("_socket",)

    pending = False

    def __init__(self, sock: Socket) -> None:
        self._socket = sock
        keep_queue_short(sock.sock)

    def send_now(self, parts: Sequence[Data]) -> int:
        return self._socket.send_now(parts[0]) if len(parts) == 1 else self._socket.send_parts_now(parts)

    def receive_now(self, into: memoryview) -> int | None:
        return self._socket.receive_into_now(into)

    def wait_readable(self) -> Wait:
        return self._socket.wait_readable()

    def wait_writable(self) -> Wait:
        return self._socket.wait_writable()

    def close(self) -> None:
        self._socket.close()
