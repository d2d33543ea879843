"""What a wire runs on: bytes out without waiting, bytes in without waiting, and two waits.

`connect_trio.transport` has the fast ones for sockets and WebSockets; `StreamTransport` serves any `trio.abc.Stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio
import trio.abc

Data = bytes | bytearray | memoryview


class Transport(Protocol):
    """Methods raise trio.BrokenResourceError when the connection is lost, trio.ClosedResourceError after `close`."""

    @property
    def pending(self) -> bool:
        """Whether bytes that `send_now` took still wait here: then somebody has to call `wait_writable`."""
        ...

    def send_now(self, parts: Sequence[Data]) -> int:
        """How many bytes were taken, from the front of all parts in order; 0 if none can be taken now."""
        ...

    def receive_now(self, into: memoryview) -> int | None:
        """How many bytes were put into `into`; 0 at the end of the stream, None if nothing is there now."""
        ...

    async def wait_readable(self) -> None: ...

    async def wait_writable(self) -> None: ...

    def close(self) -> None:
        """Close at once; may be called twice. Tasks that wait here get trio.ClosedResourceError."""
        ...


class StreamTransport:
    """Any trio stream (TLS, memory, a pipe). Costs copies that a socket does not need."""

    def __init__(self, stream: trio.abc.Stream, *, buffer: int = 65536) -> None:
        self._stream = stream
        self._buffer = buffer
        self._out = b""
        self._in = memoryview(b"")
        self._ended = False
        self._closed = False
        self._scope = trio.CancelScope()
        self._send_scope = trio.CancelScope()

    @property
    def pending(self) -> bool:
        return bool(self._out)

    def send_now(self, parts: Sequence[Data]) -> int:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed here")
        if self._out:
            return 0
        self._out = b"".join(parts)
        return len(self._out)

    def receive_now(self, into: memoryview) -> int | None:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed here")
        count = min(len(into), len(self._in))
        if count:
            into[:count] = self._in[:count]
            self._in = self._in[count:]
            return count
        return 0 if self._ended else None

    async def wait_readable(self) -> None:
        if self._in or self._ended:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope() as self._scope:
            data = await self._stream.receive_some(self._buffer)
            self._in, self._ended = memoryview(data), not data
        self._check_open()

    async def wait_writable(self) -> None:
        """Send what was taken. Only the wire's drain calls this, and is cancelled only with the whole wire."""
        with trio.CancelScope() as self._send_scope:
            await self._stream.send_all(self._out)
            self._out = b""
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed here")

    def close(self) -> None:
        """Stop both waits; the stream itself is closed by `aclose`."""
        self._closed = True
        self._scope.cancel()
        self._send_scope.cancel()

    async def aclose(self) -> None:
        self.close()
        await trio.aclose_forcefully(self._stream)
