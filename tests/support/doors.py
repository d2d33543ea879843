"""A door with a listener before it, and diallers: a server's port and its proxies, without what they are for."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.sockets import Connection, Socket
from connect_trio.transport.trusted import Dialler, Door
from tests.support.tools import listener_on

HERE = "127.0.0.1"


@attrs.define
class Entrance:
    """A door with a listener before it. admitted: the connections that came through."""

    port: int
    nursery: trio.Nursery
    admitted: list[Connection] = attrs.field(factory=list)
    turned_away: int = 0

    async def reach(self, *, admitted: int = 0, turned_away: int = 0) -> None:
        with trio.fail_after(60):
            while (len(self.admitted), self.turned_away) != (admitted, turned_away):
                await trio.sleep(0.005)


@asynccontextmanager
async def entrance(door: Door) -> AsyncIterator[Entrance]:
    listener = listener_on()
    made: Entrance

    async def admit(stream: trio.SocketStream) -> None:
        connection = await door.admit(Socket.adopt(stream).sock)
        if connection is None:
            made.turned_away += 1
        else:
            made.admitted.append(connection)

    async def accept() -> None:
        while True:
            made.nursery.start_soon(admit, await listener.accept())

    with listener.socket:
        async with trio.open_nursery() as nursery:
            made = Entrance(listener.socket.getsockname()[1], nursery)
            nursery.start_soon(accept)
            yield made
            nursery.cancel_scope.cancel()
            for connection in made.admitted:
                connection.close()


def door(key: Key, *, purpose: Purpose = Purpose.LINK, tls: ssl.SSLContext | None = None) -> Door:
    return Door(Keyring([key]), purpose, instance=b"S" * 16, tls=tls)


def dialler(*keys: Key, tls: ssl.SSLContext | None = None) -> Dialler:
    return Dialler(Keyring(keys), instance=b"P" * 16, tls=tls)


def complaints(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """(port, reason) of the lines about strangers."""
    found = [vars(record) for record in caplog.records if record.message == "not one of our proxies"]
    assert all(line["peer"].startswith(f"{HERE}:") for line in found)
    return [(line["port"], line["reason"]) for line in found]


async def exchange(near: Connection, far: Connection) -> None:
    """Bytes pass both ways, more than fit into any buffer, and so do both ends."""
    data = bytes(range(256)) * 8192

    async def send(side: Connection) -> None:
        await side.send_all(data)
        side.send_eof_now()

    async def receive(side: Connection) -> None:
        found = bytearray()
        while piece := await side.receive_some():
            found += piece
        assert found == data

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for side in (near, far):
                nursery.start_soon(send, side)
                nursery.start_soon(receive, side)
