"""TLS over a connected socket, as a transport of the mux and as one end of a relay."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import trio

from connect_trio.mux.transport import Data, StreamTransport


class Secure(StreamTransport):
    """A `Transport` and a `sockets.Connection` over TLS: closing it closes the socket underneath too.

    The end of the stream may come without TLS' closing message, as over HTTPS: who reads knows where the mux, or a
    head, ends.
    """

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(stream)
        self._secure = stream
        self.socket = stream.transport_stream.socket

    @classmethod
    def client(cls, stream: trio.SocketStream, context: ssl.SSLContext, host: str) -> Secure:
        """host: whom the certificate must name."""
        return cls(trio.SSLStream(stream, context, server_hostname=host, https_compatible=True))

    @classmethod
    def server(cls, sock: socket.socket, context: ssl.SSLContext) -> Secure:
        """Takes the socket over."""
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        return cls(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    async def handshake(self) -> None:
        """Raises trio.BrokenResourceError, whose cause names what is wrong."""
        await self._secure.do_handshake()

    def receive_into_now(self, into: memoryview) -> int | None:
        return self.receive_now(into)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """Some bytes, empty at the end."""
        view = memoryview(bytearray(max_bytes))
        while (count := self.receive_now(view)) is None:
            await self.wait_readable()
        return bytes(view[:count])

    async def send_all(self, data: Data) -> None:
        """Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        await self._secure.send_all(data)

    def send_eof_now(self) -> None:
        """Half-close: the peer reads the end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        super().close()
        self.socket.close()

    def abort(self) -> None:
        """Close with a reset."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def why(exc: BaseException) -> str:
    """What went wrong: trio wraps what TLS found in an error without a text."""
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
    return str(exc) or str(cause or "") or type(exc).__name__
