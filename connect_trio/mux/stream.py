"""`MuxStream`: one stream of the mux as a `trio.abc.HalfCloseableStream`."""

from __future__ import annotations

import operator

import trio
import trio.abc

from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import RejectCode, ResetCode, name_of
from connect_trio.mux.frames import FrameType
from connect_trio.mux.halves import CHUNK, FRAME, ChunkPool
from connect_trio.mux.hub import Parking
from connect_trio.mux.streams import CoreStream, StreamEnd

DEFAULT_RECEIVE = 65536

chunks = ChunkPool()


class StreamBroken(trio.BrokenResourceError):
    """The stream ended before its application was done; `end` says how and why."""

    def __init__(self, end: StreamEnd) -> None:
        kind = RejectCode if end.cause is FrameType.REJECT else ResetCode
        super().__init__(f"stream ended by {end.cause.name}: {end.text or name_of(kind, end.code)}")
        self.end = end


class MuxStream(trio.abc.HalfCloseableStream):
    """A reliable byte stream to the process at the other end of the mux.

    Usable as soon as it exists: bytes sent early are on their way, a refusal shows in the next call. At most one task
    may send and one receive at a time (trio.BusyResourceError). A cancelled `send_all` leaves a whole number of frames
    sent. While the way to the other end is lost the stream is `detached`: both wait, and go on when another is found.
    All methods raise StreamBroken (a trio.BrokenResourceError) when the stream was reset or refused, and
    trio.ClosedResourceError after `aclose`.
    """

    __slots__ = ("_accepted", "_attached", "_closed", "_readable", "_sending", "_writable", "core")

    def __init__(self, core: CoreStream) -> None:
        self.core = core
        self._readable = Parking()
        self._writable = Parking()
        self._accepted: trio.Event | None = None
        self._attached: trio.Event | None = None
        self._sending = False
        self._closed = False
        core.observer = self

    def __repr__(self) -> str:
        return f"<MuxStream {self.core!r}>"

    # the core's side

    def readable(self) -> None:
        self._readable.unpark()

    def writable(self) -> None:
        self._writable.unpark()
        core = self.core
        if self._accepted is not None and (core.accepted or core.end is not None):
            self._accepted.set()
        if self._attached is not None and (core.attached or core.end is not None):
            self._attached.set()
            self._attached = None

    # sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            view = memoryview(data).cast("B")
            while view:
                view = view[self._send_part(view, await self.wait_room()) :]
        finally:
            self._sending = False

    def _send_part(self, view: memoryview, room: int) -> int:
        size = min(room, len(view), CHUNK)
        if size <= FRAME or self.core.tight:
            size = min(size, FRAME)
            self.core.write(view[:size])
            return size
        chunk = chunks.take_chunk()
        for i, slot in enumerate(chunk.slots):
            part = view[i * FRAME : min((i + 1) * FRAME, size)]
            if not part:
                break
            slot[: len(part)] = part
        self.core.write_chunk(chunk, size)
        return size

    async def wait_room(self) -> int:
        """Wait until bytes may be written; how many. No checkpoint if that is now."""
        while not (room := self.core.room):
            self._check_sendable()
            await self._writable.park()
        return room

    async def wait_acknowledged(self) -> None:
        """Wait until the other process has received everything that was sent here, or the stream has ended."""
        window = self.core.send.window
        while self.core.end is None and window.base < window.end:
            await self._writable.park()

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self.wait_room()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if not self.core.send.window.finished:
            self._check_sendable()
            self.core.finish()

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        if self.core.send.window.finished:
            raise trio.ClosedResourceError("send_eof was called on this stream")
        if self.core.end is not None:
            raise StreamBroken(self.core.end)

    # receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        if not await self._wait_readable():
            return b""
        data = self.core.receive.take_some(max_bytes or DEFAULT_RECEIVE)
        self.core.took()
        return data

    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]:
        """Received bytes without a copy, and the buffer to `drop()` when they are done with; empty at the end.

        No checkpoint if bytes are there already. Where the buffer is None the bytes may be kept.
        """
        if not self.core.receive.queue and not await self._wait_readable():
            return b"", None
        piece = self.core.receive.take()
        assert piece is not None
        self.core.took()
        return piece

    async def _wait_readable(self) -> bool:
        """Wait until bytes are there (True) or the end is (False)."""
        core = self.core
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed here")
            if core.receive.queue:
                return True
            end = core.end
            if core.receive.window.finished and (end is None or end.by_peer or end.cause is FrameType.DONE):
                return False
            if end is not None:
                raise StreamBroken(end)
            await self._readable.park()

    # the end

    async def wait_accepted(self) -> None:
        """Return when the other end has accepted the stream; raises StreamBroken if it did not."""
        core = self.core
        if core.accepted or core.end is not None:
            await trio.lowlevel.checkpoint()
        else:
            if self._accepted is None:
                self._accepted = trio.Event()
            await self._accepted.wait()
        self.check_alive()

    async def wait_change(self) -> None:
        """Return when an answer came, a way was lost, there is room to write, or the stream has ended."""
        await self._writable.park()

    @property
    def detached(self) -> bool:
        """Whether the way to the other end is lost at the moment: nothing moves until another one is found."""
        return self.core.end is None and not self.core.attached

    async def wait_attached(self) -> None:
        """Return when bytes can pass (again); raises StreamBroken if the stream has ended."""
        core = self.core
        while self.detached:
            if self._attached is None:
                self._attached = trio.Event()
            await self._attached.wait()
        await trio.lowlevel.checkpoint()
        if core.end is not None:
            self.check_alive()

    @property
    def healthy(self) -> bool:
        """Whether another conversation could use it: attached, open both ways, nothing unread."""
        core = self.core
        return not (
            self._closed
            or core.end is not None
            or core.home is None
            or core.receive.queue
            or core.receive.window.finished
            or core.send.window.finished
            or core.home.wire.closing is not None
        )

    @property
    def expendable(self) -> bool:
        """Whether the stream is given up, and not resumed, when its way is lost: its only value is to be there."""
        return self.core.expendable

    @expendable.setter
    def expendable(self, value: bool) -> None:
        self.core.expendable = value

    def reset(self, text: str = "") -> None:
        """End both directions at once. Never waits."""
        self.core.reset(ResetCode.APP, text)

    async def aclose(self) -> None:
        """Close: what was sent still arrives, followed by the end; what was not read is dropped."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def close_now(self) -> None:
        """`aclose` without its checkpoint."""
        if not self._closed:
            self._closed = True
            self.core.abandon(trio.current_time())
            self._readable.unpark()
            self._writable.unpark()

    def check_alive(self) -> None:
        """Raises StreamBroken if the stream was reset or refused."""
        if self.core.end is not None and self.core.end.cause is not FrameType.DONE:
            raise StreamBroken(self.core.end)
