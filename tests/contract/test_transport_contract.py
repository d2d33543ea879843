"""What `mux.transport.Transport` promises, held against every transport that a wire may run on."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from connect_trio.mux.transport import Transport
from tests.support.transports import (
    PATIENCE,
    Pair,
    fill,
    read_exactly,
    read_to_end,
    secure_pair,
    socket_pair,
    stream_pair,
    tunnel_pair,
    write_all,
)

Open = Callable[[], AbstractAsyncContextManager[Pair]]

KINDS: dict[str, Open] = {
    "socket": socket_pair,
    "stream": stream_pair,
    "TLS": secure_pair,
    "raw tunnel": lambda: tunnel_pair(raw=True),
    "WebSocket, from its client": lambda: tunnel_pair(raw=False),
    "WebSocket, from its server": lambda: tunnel_pair(raw=False, dialler_first=False),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    open_pair: Open = request.param
    with trio.fail_after(PATIENCE):
        async with open_pair() as both:
            yield both


async def test_bytes_arrive_in_order_however_they_are_cut(pair: Pair) -> None:
    left, right = pair
    rng = random.Random(3)
    parts = [rng.randbytes(rng.choice((0, 1, 10, 5_000, 300_000))) for _ in range(60)]
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await read_exactly(right, sum(map(len, parts))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for at in range(0, len(parts), 6):
            await write_all(left, *parts[at : at + 6])
    assert got == [b"".join(parts)]


async def test_what_is_taken_is_bounded_and_all_of_it_arrives(pair: Pair) -> None:
    left, right = pair
    sent = fill(left, b"x" * 100_000)
    assert left.send_now((b"more",)) == 0
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await read_exactly(right, sent + 4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await write_all(left, b"last")
    assert got == [b"x" * sent + b"last"]


async def test_nothing_there_is_not_the_end(pair: Pair) -> None:
    left, right = pair
    assert right.receive_now(memoryview(bytearray(10))) is None
    await write_all(left, b"something")
    assert await read_exactly(right, 9) == b"something"
    assert right.receive_now(memoryview(bytearray(10))) is None


async def test_the_end_comes_after_everything_that_was_sent(pair: Pair) -> None:
    left, right = pair
    await write_all(left, b"a" * 1000, b"b")
    await close(left)
    assert await read_to_end(right, size=7) == b"a" * 1000 + b"b"
    assert right.receive_now(memoryview(bytearray(10))) == 0


async def test_after_closing_every_use_is_refused(pair: Pair) -> None:
    left, _ = pair
    left.close()
    left.close()
    with pytest.raises(trio.ClosedResourceError):
        left.send_now((b"x",))
    with pytest.raises(trio.ClosedResourceError):
        left.receive_now(memoryview(bytearray(10)))


@pytest.mark.parametrize("wait", ["wait_readable", "wait_writable"])
async def test_closing_wakes_who_waits(pair: Pair, wait: str) -> None:
    left, _ = pair
    if wait == "wait_writable":
        fill(left, bytes(16 << 20))  # more than any kernel takes at once
    refused = trio.Event()

    async def waiter() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await getattr(left, wait)()
        refused.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        left.close()
        await refused.wait()


async def test_a_wait_that_is_cancelled_leaves_the_transport_usable(pair: Pair) -> None:
    left, right = pair
    with trio.move_on_after(0.01):
        await right.wait_readable()
    await write_all(left, b"still here")
    assert await read_exactly(right, 10) == b"still here"


async def test_a_lost_connection_is_an_error_and_not_an_end(pair: Pair) -> None:
    left, right = pair
    fill(right, b"unread" * 10_000)
    await close(left)  # with bytes unread, the kernel resets the connection
    with pytest.raises(trio.BrokenResourceError):
        await write_all(right, bytes(16 << 20))


async def close(transport: Transport) -> None:
    """Close; a transport over a trio stream has its stream closed by its owner."""
    transport.close()
    aclose = getattr(transport, "aclose", None)
    if aclose is not None:
        await aclose()
