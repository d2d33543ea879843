"""MuxStream keeps trio's contract, over every kind of wire."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from connect_trio.mux import session
from connect_trio.mux.stream import MuxStream
from tests.support.core import CountingPool
from tests.support.mux import open_chain


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("lockstep", [False, True])
async def test_conforms_to_trios_contract(switched: bool, lockstep: bool) -> None:
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(open_chain(switched=switched, lockstep=lockstep))
        await trio.testing.check_half_closeable_stream(chain.pair, _clogged(chain.pair))


def _waiting(stream: MuxStream) -> bool:
    return bool(stream.core.home is not None and stream.core.home.queue)


def _clogged(
    pair: Callable[[], Awaitable[tuple[MuxStream, MuxStream]]],
) -> Callable[[], Awaitable[tuple[MuxStream, MuxStream]]]:
    async def clogged() -> tuple[MuxStream, MuxStream]:
        """A pair of which neither can send until the other reads: the window of the peer is full."""
        left, right = await pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, bytes(4 << 20))
            nursery.start_soon(right.send_all, bytes(4 << 20))
            while any(stream.core.send.window.room or _waiting(stream) for stream in (left, right)):
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0)
            nursery.cancel_scope.cancel()
        return left, right

    return clogged


@pytest.mark.parametrize("switched", [False, True])
async def test_bytes_arrive_in_order_both_ways(switched: bool) -> None:
    rng = random.Random(7)
    async with open_chain(switched=switched) as chain:
        left, right = await chain.pair()
        data = rng.randbytes(5_000_000)
        got: dict[str, bytes] = {}

        async def send(stream: MuxStream) -> None:
            at = 0
            while at < len(data):
                size = rng.choice((1, 100, 5000, 70_000, 900_000))
                await stream.send_all(data[at : at + size])
                at += size
            await stream.send_eof()

        async def receive(stream: MuxStream, name: str) -> None:
            out = bytearray()
            while part := await stream.receive_some(rng.choice((1000, 65536, 1 << 20))):
                out += part
            got[name] = bytes(out)

        async with trio.open_nursery() as nursery:
            for stream, name in ((left, "left"), (right, "right")):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream, name)
        assert got == {"left": data, "right": data}


async def test_views_of_received_bytes_give_credit_and_their_buffers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = CountingPool(session.RECEIVE_BUFFER)
    monkeypatch.setattr(session, "receive_buffers", pool)
    async with open_chain() as chain, trio.open_nursery() as nursery:
        left, right = await chain.pair()
        data = random.Random(8).randbytes(5_000_000)

        async def send() -> None:
            await left.send_all(data)
            await left.send_eof()

        nursery.start_soon(send)
        got, owned = bytearray(), 0
        while (piece := await right.receive_view())[0]:
            got += piece[0]
            if piece[1] is not None:
                owned += 1
                piece[1].drop()
        assert got == data
        assert owned
        await trio.testing.wait_all_tasks_blocked()
        assert not pool.in_use
