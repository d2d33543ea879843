"""SSH by asyncssh, inside trio: all that the rest of the edge sees of it.

    async with open_engine(host_key, login_timeout=60) as engine:
        await engine.serve(stream, visitor, peer=("192.0.2.7", 50022))

asyncssh and asyncio are known here and in the modules `bridge_*`, `loop` and `transport`, and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncssh
import trio

from connect_trio.ssh.bridge_connection import Connection, FromTcp, FromUnix, OpenKind, Owner, ToAgent
from connect_trio.ssh.bridge_keys import HostKey
from connect_trio.ssh.bridge_options import SOFTWARE, server_options
from connect_trio.ssh.client import ChannelRefused, Handler, Visitor, Why
from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import BROKEN, Transport

WINDOW: Final = 256 * 1024

LAST_WORD: Final = 2.0
"""Seconds that a client who is turned away has to take notice."""

# Its messages are for debugging, and tell users' commands.
logging.getLogger("asyncssh").setLevel(logging.WARNING)


class BridgeClient:
    """`client.Client` over a connection of asyncssh."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def nursery(self) -> trio.Nursery:
        return self._connection.nursery

    def banner(self, text: str) -> None:
        with self._connection.miniloop.entered():
            if not self._connection.entered:
                self._connection.send_auth_banner(text + "\r\n")

    def disconnect(self, why: Why, text: str) -> None:
        with self._connection.miniloop.entered():
            self._connection.disconnect(why, text)

    async def open_tcp(self, handler: Handler, listened: tuple[str, int], peer: tuple[str, int]) -> None:
        await self._open(FromTcp(listened, peer), handler)

    async def open_unix(self, handler: Handler, path: str) -> None:
        await self._open(FromUnix(path), handler)

    async def open_agent(self, handler: Handler) -> None:
        await self._open(ToAgent(), handler)

    async def _open(self, kind: OpenKind, handler: Handler) -> None:
        try:
            await self._connection.miniloop.aio_call(self._connection.open_channel(kind, handler))
        except asyncssh.ChannelOpenError as exc:
            raise ChannelRefused(exc.reason) from None


class Engine:
    """Serves SSH connections; made by `open_engine`."""

    def __init__(self, loop: Loop, options: asyncssh.SSHServerConnectionOptions, window: Callable[[], int]) -> None:
        self._loop = loop
        self._options = options
        self._window = window

    async def serve(self, stream: trio.abc.HalfCloseableStream, visitor: Visitor, *, peer: tuple[str, int]) -> None:
        """Serve one client until its connection has ended, which closes `stream`. Raises nothing of its own."""
        async with trio.open_nursery() as nursery:
            with self._loop.entered():
                connection = Connection(self._loop, self._options)
                connection.visitor = visitor
                connection.window = self._window
                connection.nursery = nursery
                connection.transport = Transport(self._loop, stream, connection, peer=peer)
                visitor.began(BridgeClient(connection))
            await connection.transport.run()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_engine(
    host_key: HostKey,
    *,
    login_timeout: float,
    window: Callable[[], int] = lambda: WINDOW,
    rekey_bytes: int | None = None,
) -> AsyncIterator[Engine]:
    """An engine for as long as the block lasts; connections should have ended before.

    login_timeout: seconds until a client must be logged in. window: bytes that a new channel may keep of what the
    client sends. rekey_bytes: after how many bytes new keys are agreed on, None for the usual.
    """
    async with trio.open_nursery() as nursery:
        loop: Loop = await nursery.start(Loop().run)
        with loop.entered():
            options = server_options(loop, host_key.key, Owner, login_timeout=login_timeout, rekey_bytes=rekey_bytes)
        yield Engine(loop, options, window)
        nursery.cancel_scope.cancel()


async def turn_away(stream: trio.abc.HalfCloseableStream, why: Why, text: str) -> None:
    """Say to a client that it is not served, without any cryptography, and close. Takes LAST_WORD seconds at most."""
    reason = text.encode()
    payload = bytes([1]) + int(why).to_bytes(4) + len(reason).to_bytes(4) + reason + bytes(4)
    padding = -(5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    packet = (1 + len(payload) + padding).to_bytes(4) + bytes([padding]) + payload + bytes(padding)
    with trio.move_on_after(LAST_WORD):
        try:
            await stream.send_all(f"SSH-2.0-{SOFTWARE}\r\n".encode() + packet)
            await stream.send_eof()
            while await stream.receive_some(4096):
                pass
        except BROKEN:
            pass
    await trio.aclose_forcefully(stream)
