"""A wire whose other end is played by the test, byte by byte, over a real socket pair."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from connect_trio.mux import frames
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import HEADER, HEADER_SIZE
from connect_trio.mux.hub import Hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Handler, Wire
from connect_trio.transport.sockets import Socket, SocketTransport
from tests.support.core import Frame, hello


class RawPeer:
    """The test's end. `session` is under test; `reason` is what its `run` returned."""

    def __init__(self, session: MuxSession, stream: trio.SocketStream) -> None:
        self.session = session
        self.stream = stream
        self.reason: str | None = None
        self.ended = trio.Event()
        self._rest = b""

    async def run(self) -> None:
        self.reason = await self.session.run()
        self.ended.set()

    async def say(self, *data: bytes) -> None:
        await self.stream.send_all(b"".join(data))

    async def hear(self) -> Frame | None:
        """The next frame, None at the end."""
        while len(self._rest) < HEADER_SIZE or len(self._rest) < self._size():
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                assert not self._rest, "the connection ended inside a frame"
                return None
            self._rest += data
        word, sid = HEADER.unpack_from(self._rest)
        size = self._size()
        frame = Frame(word >> 24, sid, self._rest[HEADER_SIZE:size])
        self._rest = self._rest[size:]
        return frame

    def _size(self) -> int:
        return HEADER_SIZE + int.from_bytes(self._rest[1:4], "big")

    async def hear_all(self) -> list[Frame]:
        """Everything until the connection ends."""
        out = []
        while (frame := await self.hear()) is not None:
            out.append(frame)
        return out


@asynccontextmanager
async def raw_peer(
    hub: Hub, handler: Handler, us: Peer, them: Peer, *, dialled: bool, greet: bool = True
) -> AsyncIterator[RawPeer]:
    """A running session; both HELLOs have been said unless `greet` is off."""
    ours, theirs = socket.socketpair()
    wire = Wire(handler, hello(us), dialled=dialled, now=trio.current_time(), label=us.name.lower())
    session = MuxSession(hub, wire, SocketTransport(Socket(ours)))
    theirs.setblocking(False)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream:
        peer = RawPeer(session, stream)
        hub.nursery.start_soon(peer.run)
        if greet:
            await peer.say(frames.encode_hello(hello(them)))
            await peer.hear()
        yield peer
        session.close("the test is over")
