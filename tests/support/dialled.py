"""An agent that dials a server's port of tunnels itself, byte by byte, as a proxy would for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from connect_trio.mux import frames
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import HEADER, HEADER_SIZE, FrameType, Hello
from connect_trio.transport.proofs import Purpose
from tests.support.trust import open_trusted

SESSION = "23ce7967"

INSTANCE = "ab" * 16

CLUSTER_KEY = "a key for the servers of a test 0123456789"


def ask(
    session: str = SESSION,
    instance: str = INSTANCE,
    carrier: str = "connect-mux",
    avoid: str | None = None,
    issued: str | None = "0",
) -> bytes:
    """The head of a tunnel's request, as a proxy sends it."""
    since = "" if issued is None else f"X-Connect-Issued: {issued}\r\n"
    avoided = "" if avoid is None else f"X-Connect-Avoid: {avoid}\r\n"
    return (
        f"GET /_connect/tunnel HTTP/1.1\r\nHost: h\r\nUpgrade: {carrier}\r\nConnection: Upgrade\r\n{avoided}"
        f"X-Connect-Session: {session}\r\nX-Connect-Instance: {instance}\r\n{since}\r\n"
    ).encode("latin-1")


class DialledTunnel:
    """A tunnel of raw bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise trio.BrokenResourceError("the server closed the tunnel")
        self._rest += data

    async def greet(
        self, *, session: str = SESSION, instance: str = INSTANCE, slot: int = 0, epoch: int = 1, issued: int = 0
    ) -> None:
        """Ask for the tunnel, be let in, and say HELLO."""
        await self.stream.send_all(ask(session, instance, issued=str(issued)))
        while b"\r\n\r\n" not in self._rest:
            await self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        await self.say_hello(instance=instance, slot=slot, epoch=epoch)

    async def say_hello(self, *, instance: str = INSTANCE, slot: int = 0, epoch: int = 1) -> None:
        hello = Hello(peer=Peer.ACCEPTOR, instance=bytes.fromhex(instance), slot=slot, generation=epoch)
        await self.stream.send_all(frames.encode_hello(hello))

    async def hear(self) -> tuple[int, bytes]:
        """Type and payload of the next frame. Raises trio.BrokenResourceError at the end."""
        while len(self._rest) < HEADER_SIZE:
            await self._more()
        word, _ = HEADER.unpack_from(self._rest)
        size = HEADER_SIZE + (word & 0xFFFFFF)
        while len(self._rest) < size:
            await self._more()
        payload, self._rest = self._rest[HEADER_SIZE:size], self._rest[size:]
        return word >> 24, payload

    async def asked(self) -> bytes:
        """What the next PING says."""
        while True:
            kind, payload = await self.hear()
            if kind == FrameType.PING:
                return payload

    async def answer(self, payload: bytes) -> None:
        await self.stream.send_all(frames.encode(FrameType.PONG, 0, payload))

    async def prove(self) -> None:
        """Answer the first PING."""
        await self.answer(await self.asked())

    async def serve_nothing(self) -> None:
        """Hear everything and answer nothing until the server closes the tunnel."""
        try:
            while True:
                await self.hear()
        except trio.BrokenResourceError:
            return

    async def serve(self) -> bytes:
        """Answer every PING until the server closes the tunnel; the payload of its GOAWAY, if it said one."""
        goaway = b""
        try:
            while True:
                kind, payload = await self.hear()
                if kind == FrameType.PING:
                    await self.answer(payload)
                elif kind == FrameType.GOAWAY:
                    goaway = payload
        except trio.BrokenResourceError:
            return goaway


@asynccontextmanager
async def dialled_tunnel(
    port: int,
    *,
    session: str = SESSION,
    instance: str = INSTANCE,
    slot: int = 0,
    epoch: int = 1,
    issued: int = 0,
    key: str | None = None,
) -> AsyncIterator[DialledTunnel]:
    """A tunnel that has proven to work. key: as for `open_trusted`."""
    async with await open_trusted(port, Purpose.TUNNEL, key) as stream:
        tunnel = DialledTunnel(stream)
        with trio.fail_after(60):
            await tunnel.greet(session=session, instance=instance, slot=slot, epoch=epoch, issued=issued)
            await tunnel.prove()
        yield tunnel
