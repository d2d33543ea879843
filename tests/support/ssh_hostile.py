"""An SSH client that says what it likes once it is logged in, and only notes what it is told."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import trio
from asyncssh.packet import SSHPacket

from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import Transport
from tests.support.ssh import PATIENCE, SshBench
from tests.support.ssh_clients import Client, client_of, string

GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
OPEN, OPENED, OPEN_FAILED, ADJUST, DATA, STDERR, EOF, CLOSE, REQUEST, SUCCESS, FAILURE = range(90, 101)
MINE = 77  # the number of a channel at this end
WIDE = 2**31 - 1


def number(value: int) -> bytes:
    return struct.pack("!I", value)


class Hostile(asyncssh.SSHClientConnection):
    """heard: types and contents of messages about channels and requests. why: the connection has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard: list[tuple[int, bytes]] = []
        self.why: Exception | None = None
        self._channels = _Everything(self)  # type: ignore[assignment]

    def note(self, kind: int, packet: SSHPacket) -> bool:
        self.heard.append((kind, bytes(packet.get_remaining_payload())))
        return True

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        if pkttype < GLOBAL_REQUEST or pkttype not in range(80, 101):
            return super().process_packet(pkttype, pktid, packet)
        return self.note(pkttype, packet)

    def _force_close(self, exc: Exception | None) -> None:
        self.why = self.why or exc
        super()._force_close(exc)


class _Channel:
    def __init__(self, connection: Hostile) -> None:
        self._connection = connection

    def log_received_packet(self, *_: object) -> None: ...

    def process_packet(self, pkttype: int, _: int, packet: SSHPacket) -> bool:
        return self._connection.note(pkttype, packet)


class _Everything(dict[int, _Channel]):
    """Every channel is one."""

    def __init__(self, connection: Hostile) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, key: int) -> _Channel:
        return _Channel(self._connection)


class Attacker:
    def __init__(self, client: Client) -> None:
        self.client = client
        connection = client.connection
        assert isinstance(connection, Hostile)
        self.connection = connection

    def say(self, kind: int, *parts: bytes) -> None:
        with self.client.loop.entered():
            self.connection.send_packet(kind, *parts)

    def request(self, channel: int, name: bytes, *parts: bytes, answer: bool = True) -> None:
        self.say(REQUEST, number(channel), string(name), bytes([answer]), *parts)

    def heard(self, *kinds: int) -> list[tuple[int, bytes]]:
        return [message for message in self.connection.heard if message[0] in kinds]

    async def until(self, *kinds: int, count: int = 1) -> list[tuple[int, bytes]]:
        """Those of these kinds, once there are so many, or the connection is over."""
        with trio.fail_after(PATIENCE):
            while len(self.heard(*kinds)) < count and not self.client.over.is_set():
                await trio.sleep(0.01)
        return self.heard(*kinds)

    async def open(self, kind: bytes, *parts: bytes, window: int = WIDE, size: int = 32768) -> tuple[int, bytes]:
        """What is answered."""
        before = len(self.heard(OPENED, OPEN_FAILED))
        self.say(OPEN, string(kind), number(MINE), number(window), number(size), *parts)
        answers = await self.until(OPENED, OPEN_FAILED, count=before + 1)
        assert len(answers) > before, self.connection.why
        return answers[-1]

    async def session(self, *, window: int = WIDE, size: int = 32768) -> int:
        """The server's number of a new session channel."""
        kind, payload = await self.open(b"session", window=window, size=size)
        assert kind == OPENED, payload
        return int.from_bytes(payload[4:8])

    async def is_well(self) -> bool:
        """Whether the connection still answers."""
        before = len(self.heard(REQUEST_FAILURE, REQUEST_SUCCESS))
        if self.client.over.is_set():
            return False
        self.say(GLOBAL_REQUEST, string(b"anybody@there"), b"\1")
        return len(await self.until(REQUEST_FAILURE, REQUEST_SUCCESS, count=before + 1)) > before

    async def ends(self) -> None:
        with trio.fail_after(PATIENCE):
            await self.client.over.wait()


@asynccontextmanager
async def attacker_of(bench: SshBench) -> AsyncIterator[Attacker]:
    """alice, who is logged in, and means no good."""
    async with client_of(bench.port, Path(bench.home / "id_ed25519"), connection=Hostile) as client:
        yield Attacker(client)


async def why_it_ends(port: int, connection: type[asyncssh.SSHClientConnection]) -> str:
    """What a client is told when the server ends its connection before the login."""
    told: list[str] = []

    class Told(connection):  # type: ignore[misc, valid-type]
        def _force_close(self, exc: Exception | None) -> None:
            told.append(str(exc))
            super()._force_close(exc)

    async with trio.open_nursery() as nursery:
        loop: Loop = await nursery.start(Loop().run)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with loop.entered():
            options = asyncssh.SSHClientConnectionOptions(
                loop=loop.typed, config=None, known_hosts=None, username="alice", client_keys=[], agent_path=None
            )
            options.waiter = loop.create_future()
            made = Told(loop.typed, options, wait="auth")
            transport = Transport(loop, stream, made, peer=("127.0.0.1", port))
        with trio.fail_after(PATIENCE):
            await transport.run()
        options.waiter.cancel()
        nursery.cancel_scope.cancel()
    return told[0]
