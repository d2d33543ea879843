"""What asyncssh takes for its connection to the client: a stream of trio, with a bounded queue in front of it.

    transport = Transport(loop, stream, protocol, peer=("192.0.2.7", 50022))
    await transport.run()       # until the connection is over, in whatever way

Bytes that come are handed to `protocol.data_received`. What it writes is queued; beyond HIGH it is told to pause. That
does not bound what it says about itself (answers, windows), so beyond FULL nothing more is read: who does not read is
not listened to.

However a connection ends, the last words (why it is refused, an exit status) are to arrive: they have FLUSH seconds,
and the client has until then to hang up by itself, since closing on unread bytes would make its kernel drop them.
"""

from __future__ import annotations

import asyncio
from typing import Final

import trio

from connect_trio.ssh.loop import Loop

HIGH: Final = 128 * 1024
LOW: Final = 32 * 1024
FULL: Final = 1024 * 1024
FLUSH: Final = 5.0

READ: Final = 64 * 1024
"""Bytes that are read at once."""

BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Transport(asyncio.Transport):
    """peer, local: address and port, as asyncssh shows them in its log."""

    def __init__(
        self,
        loop: Loop,
        stream: trio.abc.HalfCloseableStream,
        protocol: asyncio.Protocol,
        *,
        peer: tuple[str, int],
        local: tuple[str, int] = ("", 0),
        first: bytes = b"",
    ) -> None:
        """first: bytes that were read from `stream` already."""
        super().__init__(extra={"peername": peer, "sockname": local, "socket": None})
        self._loop = loop
        self._stream = stream
        self._protocol = protocol
        self._first = first
        self._queue = bytearray()
        self._sending = 0
        self._paused = False  # the protocol
        self._closing = False
        self._read_paused = False
        self._written = trio.Event()
        self._may_read = trio.Event()
        self._may_read.set()
        self._reader = trio.CancelScope()
        self._read_over = trio.Event()
        self._sender = trio.CancelScope()
        self.received = self.sent = 0  # bytes
        self.piece = READ  # bytes that are handed over at once; others come in between

    # what asyncssh calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self._queue += data
        self._written.set()
        queued = self.get_write_buffer_size()
        if queued > HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
        if queued > FULL:
            self._update_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._queue) + self._sending

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Let what is queued out, then end. Nothing more is read."""
        if not self._closing:
            self._closing = True
            self._sender.deadline = trio.current_time() + FLUSH
            self._reader.cancel()
            self._written.set()

    def abort(self) -> None:
        """As `close`: asyncssh aborts after a DISCONNECT that the client is to read."""
        self.close()

    def kill(self) -> None:
        """End at once; what is queued is lost."""
        self._queue.clear()
        self.close()
        self._sender.cancel()

    def pause_reading(self) -> None:
        self._read_paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        self._read_paused = False
        self._update_reading()

    # the tasks

    async def run(self) -> None:
        """Carry bytes until the connection has ended; then the stream is closed. Raises nothing of its own."""
        try:
            with self._loop.entered():
                self._protocol.connection_made(self)
                self._deliver(self._first)
            self._first = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._send)
        finally:
            self._closing = True
            with self._loop.entered():
                self._protocol.connection_lost(None)
            await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            with self._reader:
                await self._read_until_end()
        except BROKEN:
            self._lost()
        finally:
            self._read_over.set()

    async def _read_until_end(self) -> None:
        while True:
            await self._may_read.wait()
            data = await self._stream.receive_some(READ)
            if not data:
                with self._loop.entered():
                    self._protocol.eof_received()
                    self.close()
                return
            start = 0
            while start < len(data):
                if start:
                    await trio.lowlevel.checkpoint()
                end = start + self.piece  # which is another one afterwards, if the protocol says so
                with self._loop.entered():
                    self._deliver(data[start:end] if start or end < len(data) else data)
                start = end

    def _deliver(self, data: bytes | bytearray) -> None:
        self.received += len(data)
        if data and not self._closing:
            self._protocol.data_received(bytes(data))

    async def _send(self) -> None:
        with self._sender:
            try:
                while self._queue or not self._closing:
                    if not self._queue:
                        self._written = trio.Event()
                        await self._written.wait()
                        continue
                    await self._send_queued()
                await self._read_over.wait()
                await self._stream.send_eof()
                while await self._stream.receive_some(READ):
                    pass
            except BROKEN:
                self._lost()

    async def _send_queued(self) -> None:
        data, self._queue = self._queue, bytearray()
        self._sending = len(data)
        try:
            await self._stream.send_all(data)
            self.sent += len(data)
        finally:
            self._sending = 0
        self._update_reading()
        if self._paused and len(self._queue) <= LOW:
            self._paused = False
            with self._loop.entered():
                self._protocol.resume_writing()

    def _lost(self) -> None:
        """There is nobody to send to."""
        self._queue.clear()
        with self._loop.entered():
            self._protocol.connection_lost(None)
            self.close()
        self._sender.cancel()

    def _update_reading(self) -> None:
        if self._read_paused or self.get_write_buffer_size() > FULL:
            if self._may_read.is_set():
                self._may_read = trio.Event()
        else:
            self._may_read.set()
