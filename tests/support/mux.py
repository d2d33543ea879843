"""Two processes' worth of mux in one test: an opener and an acceptor, with or without a switch between them."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio
import trio.abc

from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.switch import Switch
from connect_trio.mux.transport import StreamTransport, Transport
from connect_trio.mux.wire import Handler, Wire
from connect_trio.transport.sockets import Socket, SocketTransport

_tokens = itertools.count(1)


def hello(peer: Peer, name: str = "") -> Hello:
    return Hello(peer=peer, instance=bytes([peer]) * 16, name=name)


@attrs.define
class Side:
    """One end of a wire under test."""

    session: MuxSession
    wire: Wire


def start_side(hub: Hub, handler: Handler, transport: Transport, *, peer: Peer, dialled: bool) -> Side:
    wire = Wire(handler, hello(peer), dialled=dialled, now=trio.current_time(), label=peer.name.lower())
    session = MuxSession(hub, wire, transport)
    hub.nursery.start_soon(session.run)
    return Side(session, wire)


def socket_transports() -> tuple[SocketTransport, SocketTransport]:
    left, right = socket.socketpair()
    return SocketTransport(Socket(left)), SocketTransport(Socket(right))


def lockstep_transports() -> tuple[StreamTransport, StreamTransport]:
    """A wire without any buffer of its own: a send returns when the other side has read it."""
    left, right = trio.testing.lockstep_stream_pair()
    return StreamTransport(left), StreamTransport(right)


@attrs.define
class Chain:
    """An opener and an acceptor that share wires. `accepted` gives streams as they are opened."""

    hub: Hub
    opener: Opener
    acceptor: Acceptor
    wire: Wire
    accepted: trio.MemoryReceiveChannel[CoreStream]
    sides: list[Side]

    async def pair(self) -> tuple[MuxStream, MuxStream]:
        """A stream, opened and accepted."""
        token = next(_tokens).to_bytes(16, "big")
        near = self.opener.open(self.wire, token=token, now=trio.current_time(), session="s", kind="test")
        ours = MuxStream(near)
        core = await self.accepted.receive()
        theirs = MuxStream(core)
        core.accept()
        return ours, theirs

    async def hand_over(self, on_open: Callable[[CoreStream], object]) -> None:
        """Give streams to who serves them, as an agent does: there it has them as they come, here a moment later, in
        which one may have ended."""
        async for core in self.accepted:
            if core.end is None:
                on_open(core)


@asynccontextmanager
async def open_chain(*, switched: bool = False, lockstep: bool = False, window: int = 1 << 20) -> AsyncIterator[Chain]:
    """Opener and acceptor on one wire, or with a switch between two wires."""
    transports = lockstep_transports if lockstep else socket_transports
    sender, receiver = trio.open_memory_channel[CoreStream](1000)
    async with open_hub() as hub:
        opener = Opener(window=window)
        acceptor = Acceptor(sender.send_nowait, window=window)
        hub.add(opener)
        hub.add(acceptor)
        opener.alarm = acceptor.alarm = hub.alarm
        near, far = transports()
        sides = [start_side(hub, opener, near, peer=Peer.OPENER, dialled=True)]
        if switched:
            tunnels: list[Wire] = []
            switch = Switch(lambda session, link: tunnels[0])
            sides.append(start_side(hub, switch, far, peer=Peer.SWITCH, dialled=False))
            near, far = transports()
            sides.append(start_side(hub, switch, near, peer=Peer.SWITCH, dialled=False))
            tunnels.append(sides[-1].wire)
        sides.append(start_side(hub, acceptor, far, peer=Peer.ACCEPTOR, dialled=switched))
        yield Chain(hub, opener, acceptor, sides[0].wire, receiver, sides)
