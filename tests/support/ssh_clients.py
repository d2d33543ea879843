"""SSH clients that tests have in their hand: asyncssh's, on a loop of ours, and bytes without any cryptography."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import trio

from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import Transport
from tests.support.ssh import LABEL

VERSION = b"SSH-2.0-test\r\n"
KEXINIT, IGNORE, DISCONNECT = 20, 2, 1


def packet(kind: int, payload: bytes = b"") -> bytes:
    """One that is not encrypted."""
    body = bytes([kind]) + payload
    padding = 8 - (5 + len(body)) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack("!IB", 1 + len(body) + padding, padding) + body + bytes(padding)


def string(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def kexinit(*, strict: bool = False) -> bytes:
    kex = b"curve25519-sha256" + (b",kex-strict-c-v00@openssh.com" if strict else b"")
    lists = [kex, b"ssh-ed25519", *[b"aes128-gcm@openssh.com"] * 2, *[b"hmac-sha2-256-etm@openssh.com"] * 2]
    lists += [b"none", b"none", b"", b""]
    return packet(KEXINIT, bytes(16) + b"".join(map(string, lists)) + bytes(5))


class Output(asyncssh.SSHClientSession[bytes]):
    """What a session says. received: bytes of it."""

    def __init__(self) -> None:
        self.received = 0
        self.over = trio.Event()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self.received += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


class Client:
    """A client that is logged in. transport: by which it can be made not to read."""

    def __init__(self, loop: Loop, connection: asyncssh.SSHClientConnection, transport: Transport) -> None:
        self.loop = loop
        self.connection = connection
        self.transport = transport
        self.over = trio.Event()

    async def session(self, command: str, *, window: int = 2 * 1024 * 1024, **options: Any) -> tuple[Any, Output]:
        """A channel, and its output. options: as asyncssh has them."""
        opening: Any = self.connection.create_session(Output, command, encoding=None, window=window, **options)
        channel, output = await self.loop.aio_call(opening)
        return channel, output


@asynccontextmanager
async def client_of(
    port: int,
    key: Path,
    *,
    user: str = f"alice@{LABEL}",
    buffer: int | None = None,
    connection: type[asyncssh.SSHClientConnection] = asyncssh.SSHClientConnection,
) -> AsyncIterator[Client]:
    """A client that is logged in. buffer: bytes that its kernel may keep of what comes, None for the usual."""
    async with trio.open_nursery() as nursery:
        loop: Loop = await nursery.start(Loop().run)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        if buffer is not None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        with loop.entered():
            waiter: asyncio.Future[None] = loop.create_future()
            options = asyncssh.SSHClientConnectionOptions(
                loop=loop.typed,
                config=None,
                known_hosts=None,
                username=user,
                client_keys=[str(key)],
                agent_path=None,
                keepalive_interval=0,
            )
            options.waiter = waiter  # as asyncssh.connect does it
            made = connection(loop.typed, options, wait="auth")
            transport = Transport(loop, stream, made, peer=("127.0.0.1", port))
        client = Client(loop, made, transport)

        async def run() -> None:
            await transport.run()
            client.over.set()

        async def wait() -> None:
            await waiter

        nursery.start_soon(run)
        await loop.aio_call(wait())
        try:
            yield client
        finally:
            transport.kill()
            nursery.cancel_scope.cancel()
