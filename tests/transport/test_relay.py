from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator

import pytest
import trio

from connect_trio.mux.buffers import Pool
from connect_trio.transport.relay import relay
from connect_trio.transport.sockets import Socket


class Ends:
    """Two sockets that a relay joins, and their other ends."""

    def __init__(self) -> None:
        (a, b), (c, d) = socket.socketpair(), socket.socketpair()
        self.near, self.far = Socket(a), Socket(d)
        self.left, self.right = Socket(b), Socket(c)
        self.pool = Pool(4096)
        self.broken = False

    async def run(self) -> None:
        try:
            await relay(self.left, self.right, buffers=self.pool)
        except trio.BrokenResourceError:
            self.broken = True

    def close(self) -> None:
        for each in (self.near, self.left, self.right, self.far):
            each.close()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.close()


async def read_all(sock: Socket) -> bytes:
    data = b""
    while piece := await sock.receive_some():
        data += piece
    return data


async def send_forever(sock: Socket) -> None:
    while True:
        await sock.send_all(b"x")
        await trio.lowlevel.checkpoint()


async def test_everything_passes_both_ways_at_once_and_both_ends_pass_through(ends: Ends) -> None:
    source = random.Random(1)
    there, back = source.randbytes(3_000_000), source.randbytes(2_000_000)
    found = {}

    async def send(sock: Socket, data: bytes) -> None:
        await sock.send_all(data)
        sock.send_eof_now()

    async def receive(name: str, sock: Socket) -> None:
        found[name] = await read_all(sock)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.run)
            nursery.start_soon(send, ends.near, there)
            nursery.start_soon(send, ends.far, back)
            nursery.start_soon(receive, "there", ends.far)
            nursery.start_soon(receive, "back", ends.near)
    assert found == {"there": there, "back": back}
    assert not ends.broken


async def test_one_direction_goes_on_after_the_other_has_ended(ends: Ends) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.run)
            ends.near.send_eof_now()
            assert await ends.far.receive_some() == b""
            await ends.far.send_all(b"still here")
            assert await ends.near.receive_some() == b"still here"
            ends.far.send_eof_now()
            assert await ends.near.receive_some() == b""


async def test_a_lost_connection_ends_both(ends: Ends) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.run)
            await trio.testing.wait_all_tasks_blocked()
            ends.near.close()
            await ends.far.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError):
                await send_forever(ends.far)
    assert ends.broken
    assert ends.left.closed
    assert ends.right.closed


async def test_an_idle_relay_holds_no_buffer(ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        await trio.testing.wait_all_tasks_blocked()
        held = ends.pool.free
        assert held, "buffers were used"
        assert all(not buffer.refs for buffer in held)
        nursery.cancel_scope.cancel()


async def test_a_cancelled_relay_leaves_the_sockets_open(ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not ends.left.closed
    assert not ends.right.closed
