"""Who is in by SSH while revocations are measured: asyncssh's client on our own loop, with one channel open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import trio

from benchmarks.targets import CannotMeasure
from connect_trio.ssh.bridge_keys import read_public_keys
from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import Transport

HOST = "127.0.0.1"
PATIENCE = 30.0
AGAIN = 1.0
CONNECTION, CHANNEL = "SSH connection", "SSH channel"


class SshKey:
    """A new one."""

    def __init__(self) -> None:
        self.private = asyncssh.generate_private_key("ssh-ed25519")
        [key] = read_public_keys(self.private.export_public_key().decode())
        self.fingerprint = key.fingerprint


class _Ends(asyncssh.SSHClient, asyncssh.SSHClientSession[bytes]):
    """Of a connection or a channel: when (seconds of the monotonic clock), and why."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.at = 0.0
        self.why: Exception | None = None

    def connection_made(self, _: Any) -> None:
        """Of no interest."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.at, self.why = time.monotonic(), exc
        self.over.set()


class SshStay:
    """A connection with a command that waits."""

    def __init__(self, connection: _Ends, channel: _Ends) -> None:
        self._connection = connection
        self._channel = channel

    @property
    def is_over(self) -> bool:
        return self._connection.over.is_set() or self._channel.over.is_set()

    async def until_ended(self, kind: str) -> float:
        """When it was over for its user. Raises CannotMeasure if nobody told them why."""
        ends = self._connection if kind == CONNECTION else self._channel
        with trio.fail_after(PATIENCE):
            await ends.over.wait()
            await self._connection.over.wait()
        why = self._connection.why
        if why is not None:  # asyncssh says so of a DISCONNECT by the application, and of nothing else
            raise CannotMeasure(f"an SSH connection did not end with a reason for its user, but by {why!r}")
        return ends.at


class SshClients:
    """Made by `open_ssh_clients`."""

    def __init__(self, loop: Loop, nursery: trio.Nursery, port: int) -> None:
        self._loop = loop
        self._nursery = nursery
        self._port = port

    async def come_in(self, user: str, label: str, key: SshKey) -> SshStay:
        """As users do it: again, where Platform was too busy. Raises asyncssh.Error, OSError, trio.TooSlowError."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    return await self._come_in(user, label, key)
                except asyncssh.ServiceNotAvailable:
                    await trio.sleep(AGAIN)

    async def _come_in(self, user: str, label: str, key: SshKey) -> SshStay:
        stream = await trio.open_tcp_stream(HOST, self._port)
        ends, channel_ends = _Ends(), _Ends()
        with self._loop.entered():
            waiter: asyncio.Future[None] = self._loop.create_future()
            options = asyncssh.SSHClientConnectionOptions(
                loop=self._loop.typed,
                config=None,
                client_factory=lambda: ends,
                known_hosts=None,
                username=f"{user}@{label}",
                client_keys=[key.private],
                agent_path=None,
            )
            options.waiter = waiter  # as asyncssh.connect does it
            connection = asyncssh.SSHClientConnection(self._loop.typed, options, wait="auth")
            transport = Transport(self._loop, stream, connection, peer=(HOST, self._port))

        async def wait() -> None:
            await waiter

        async def open_channel() -> None:
            await connection.create_session(lambda: channel_ends, "exec cat", encoding=None)

        self._nursery.start_soon(transport.run)
        await self._loop.aio_call(wait())
        await self._loop.aio_call(open_channel())
        return SshStay(ends, channel_ends)


@asynccontextmanager
async def open_ssh_clients(port: int) -> AsyncIterator[SshClients]:
    """port: of the proxy's SSH edge."""
    async with trio.open_nursery() as nursery:
        loop: Loop = await nursery.start(Loop().run)
        yield SshClients(loop, nursery, port)
        nursery.cancel_scope.cancel()
