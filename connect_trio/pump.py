"""A socket and a stream of the mux, spliced: bytes both ways, half-close and resets too.

Out of the socket, bytes are read straight into the buffers that are sent and kept; into the socket, the mux's reader
writes them itself, and a task exists only while the socket takes no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from connect_trio.mux.halves import CHUNK, FRAME, SMALL
from connect_trio.mux.hub import Parking
from connect_trio.mux.stream import MuxStream, chunks
from connect_trio.transport.sockets import Socket

MAX_PARTS = 64
LAST_WORDS = 5.0  # seconds for what the tool said before its connection broke to reach the other end of the mux


async def splice(sock: Socket, stream: MuxStream, nursery: trio.Nursery) -> None:
    """Carry bytes both ways until both directions have ended; then both are closed.

    An error of the socket resets the stream, and a reset of the stream aborts the socket. `nursery` owns the task that
    waits while the socket is full. Cancelled, it resets the stream and aborts the socket.
    """
    outlet = _Outlet(sock, stream, nursery)
    try:
        outlet.start()
        await _feed(sock, stream)
        await outlet.finished()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        try:
            # A reset overtakes what waits to be sent: the answer, perhaps, of a tool that did not read the question.
            with trio.move_on_after(LAST_WORDS):
                await stream.wait_acknowledged()
        finally:
            stream.reset(f"the tool's connection ended: {exc}")
            sock.abort()
    except BaseException:
        stream.reset("the connection to the tool was closed")
        sock.abort()
        raise
    finally:
        outlet.stop()
        sock.close()
        stream.close_now()


async def _feed(sock: Socket, stream: MuxStream) -> None:
    """From the socket into the stream, until the socket's end."""
    core = stream.core
    while True:
        room = core.room or await stream.wait_room()
        chunk = chunks.take_chunk()
        try:
            if room >= CHUNK:
                count = sock.receive_parts_now(chunk.slots)
            else:
                count = sock.receive_into_now(chunk.slots[0][: min(room, FRAME)])
        except BaseException:
            chunk.drop()
            raise
        if count is None:
            chunk.drop()
            await sock.wait_readable()
            continue
        if not count:
            chunk.drop()
            core.finish()
            return
        if count <= SMALL:
            core.write(chunk.slots[0][:count])
            chunk.drop()
            await sock.wait_readable()  # a short read has most likely emptied the socket
        elif core.tight and count <= FRAME:
            core.write(chunk.slots[0][:count])
            chunk.drop()
            await trio.lowlevel.checkpoint()
        else:
            core.write_chunk(chunk, count)
            await trio.lowlevel.checkpoint()


class _Outlet:
    """From the stream into the socket."""

    def __init__(self, sock: Socket, stream: MuxStream, nursery: trio.Nursery) -> None:
        self._sock = sock
        self._stream = stream
        self._receive = stream.core.receive
        self._nursery = nursery
        self._pumping = False
        self._deaf = False  # the socket's other end reads no more: what still comes is thrown away
        self._ended = False
        self._done = Parking()

    def start(self) -> None:
        self._receive.sink = self._sink
        self._stream.core.observer = self
        self.readable()

    def stop(self) -> None:
        self._receive.sink = None
        self._stream.core.observer = self._stream

    # The observer of the stream; sending is still the stream's own business.

    def writable(self) -> None:
        self._stream.writable()

    def readable(self) -> None:
        core = self._stream.core
        if core.end is not None and core.end.cause.name != "DONE":
            self._sock.abort()
            self._done.unpark()
        elif self._receive.queue:
            if not self._pumping:
                self._pumping = True
                self._nursery.start_soon(self._pump, name="splice pump")
        elif self._receive.window.finished and not self._pumping and not self._ended:
            self._ended = True
            self._sock.send_eof_now()
            self._done.unpark()

    def _sink(self, parts: Sequence[memoryview]) -> int:
        """Called by the mux's reader: what the socket takes now."""
        if self._deaf:
            return sum(map(len, parts))
        try:
            if len(parts) == 1:
                return self._sock.send_now(parts[0])
            return self._sock.send_parts_now(parts[:MAX_PARTS])
        except trio.BrokenResourceError:
            # It may have said all it had to say before it stopped listening: let that go its way.
            self._deaf = True
            return sum(map(len, parts))
        except trio.ClosedResourceError:
            return 0

    async def _pump(self) -> None:
        """Finish what the reader could not write at once."""
        core, receive = self._stream.core, self._receive
        try:
            while receive.queue:
                views = receive.views(MAX_PARTS)
                try:
                    count = sum(map(len, views)) if self._deaf else self._sock.send_parts_now(views)
                except trio.BrokenResourceError:
                    self._deaf = True
                    continue
                if count:
                    receive.advance(count)
                    core.took()
                    await trio.lowlevel.checkpoint()
                else:
                    await self._sock.wait_writable()
        except trio.ClosedResourceError:
            return  # the splice has ended
        finally:
            self._pumping = False
        self.readable()

    async def finished(self) -> None:
        """Wait until everything that came, and the end, is with the socket. Raises StreamBroken."""
        while not self._ended:
            self._stream.check_alive()
            await self._done.park()
