"""The transport: bytes in both directions, what bounds them, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
import trio
import trio.testing

from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import FLUSH, FULL, HIGH, Transport


class Protocol(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.log.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.log.append("lost")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool | None:
        self.log.append("eof")
        return None

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")


class Scene:
    """A transport in front of `theirs`, which is the client's end; `sent` is what it let the client have so far."""

    def __init__(self, *, lets: int | None = None, first: bytes = b"") -> None:
        """lets: how many bytes the client's kernel takes, None for all."""
        self.protocol = Protocol()
        self.loop = Loop()
        pair = trio.testing.memory_stream_pair if lets is None else trio.testing.lockstep_stream_pair
        self.theirs: trio.abc.HalfCloseableStream
        ours, self.theirs = pair()
        self.transport = Transport(self.loop, ours, self.protocol, peer=("192.0.2.7", 5), first=first)
        self.over = trio.Event()

    async def run(self) -> None:
        await self.transport.run()
        self.over.set()


async def test_bytes_go_both_ways(nursery: trio.Nursery) -> None:
    scene = Scene(first=b"SSH-")
    nursery.start_soon(scene.run)
    await scene.theirs.send_all(b"2.0-x\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.data == b"SSH-2.0-x\r\n"
    scene.transport.write(b"hello")
    assert await scene.theirs.receive_some(10) == b"hello"
    await scene.theirs.send_eof()
    await scene.over.wait()
    assert scene.protocol.log[:2] == ["made", "eof"]


async def test_a_client_that_reads_slowly_pauses_whoever_writes(nursery: trio.Nursery) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(bytes(HIGH))
    assert scene.protocol.log == ["made"]
    scene.transport.write(b"x")
    assert scene.protocol.log == ["made", "pause"]
    received = 0
    while received <= HIGH:
        received += len(await scene.theirs.receive_some(64 * 1024))
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.log == ["made", "pause", "resume"]
    scene.transport.kill()


async def test_who_does_not_read_is_not_listened_to(nursery: trio.Nursery) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(bytes(FULL + 1))
    nursery.start_soon(scene.theirs.send_all, b"one")  # a read that had begun already
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(scene.theirs.send_all, b"two")
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.data == b"one"
    received = 0
    while received <= FULL:
        received += len(await scene.theirs.receive_some(64 * 1024))
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.data == b"onetwo"
    scene.transport.kill()


async def test_the_last_words_arrive(nursery: trio.Nursery) -> None:
    scene = Scene()
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(b"too many connections")
    scene.transport.abort()
    scene.transport.write(b"nobody wants this any more")
    received = b""
    while data := await scene.theirs.receive_some(7):
        received += data
    assert received == b"too many connections"
    await scene.theirs.aclose()
    await scene.over.wait()


async def test_a_client_that_does_not_take_the_last_words_has_five_seconds(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(b"x")
    scene.transport.close()
    began = trio.current_time()
    await scene.over.wait()
    assert trio.current_time() - began == pytest.approx(FLUSH)


async def test_killing_waits_for_nothing(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(b"x")
    began = trio.current_time()
    scene.transport.kill()
    await scene.over.wait()
    assert trio.current_time() == began


async def test_a_broken_connection_ends_it(nursery: trio.Nursery) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.write(bytes(1000))
    await trio.aclose_forcefully(scene.theirs)
    await scene.over.wait()
    assert "lost" in scene.protocol.log


async def test_reading_can_be_paused(nursery: trio.Nursery) -> None:
    scene = Scene(lets=0)
    nursery.start_soon(scene.run)
    await trio.testing.wait_all_tasks_blocked()
    scene.transport.pause_reading()
    await scene.theirs.send_all(b"a")  # a read that had begun already
    nursery.start_soon(scene.theirs.send_all, b"b")
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.data == b"a"
    scene.transport.resume_reading()
    await trio.testing.wait_all_tasks_blocked()
    assert scene.protocol.data == b"ab"
    scene.transport.kill()


async def test_others_come_in_between_the_packets_of_one_client(nursery: trio.Nursery) -> None:
    class Counting(Protocol):
        def __init__(self) -> None:
            super().__init__()
            self.ticks: list[int] = []

        def data_received(self, data: bytes) -> None:
            assert len(data) <= 16384
            super().data_received(data)
            self.ticks.append(turns)

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    protocol = Counting()
    ours, theirs = trio.testing.memory_stream_pair()
    transport = Transport(Loop(), ours, protocol, peer=("192.0.2.7", 5))
    transport.piece = 16384
    nursery.start_soon(others)
    nursery.start_soon(transport.run)
    data = bytes(range(256)) * 256
    await theirs.send_all(data)
    while len(protocol.data) < len(data):
        await trio.lowlevel.checkpoint()
    assert protocol.data == data
    assert len(protocol.ticks) == len(data) // 16384
    assert protocol.ticks[-1] - protocol.ticks[0] >= 2  # in one turn of trio's, who goes first is open
    transport.kill()


async def test_slices_may_grow_and_shrink_meanwhile(nursery: trio.Nursery) -> None:
    class Fickle(Protocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            transport.piece = next(pieces)

    pieces = itertools.cycle([100, 70_000, 3, 5000, 65_536, 1])
    protocol = Fickle()
    ours, theirs = trio.testing.memory_stream_pair()
    transport = Transport(Loop(), ours, protocol, peer=("192.0.2.7", 5))
    nursery.start_soon(transport.run)
    data = random.Random(1).randbytes(300_000)
    await theirs.send_all(data)
    await theirs.send_eof()
    while "eof" not in protocol.log:
        await trio.lowlevel.checkpoint()
    assert protocol.data == data


async def test_being_cancelled_closes_the_stream() -> None:
    scene = Scene()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert scene.protocol.log[-1] == "lost"
    assert await scene.theirs.receive_some(1) == b""
