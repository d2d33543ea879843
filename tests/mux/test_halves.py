"""The halves of a stream: pieces of pooled buffers in, the same bytes out, and every buffer given back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux.budget import Budget
from connect_trio.mux.buffers import Pool
from connect_trio.mux.frames import DATA_HEADER_SIZE, OFFSET
from connect_trio.mux.halves import CHUNK, FRAME, SMALL, ReceiveHalf, SendHalf
from tests.support.core import CountingChunkPool, CountingPool, parse
from tests.support.examples import examples
from tests.support.world import pattern

SIZES = st.one_of(st.integers(1, 50), st.sampled_from([SMALL, SMALL + 1, 20_000, 40_000]))


def _deliver(half: ReceiveHalf, pool: CountingPool, sent: int, sizes: list[int]) -> int:
    """Frames of these sizes, next to each other in one buffer; the offset behind them."""
    buffer, parts, at = pool.take(), [], 0
    for size in sizes:
        buffer.view[at : at + size] = pattern(1, sent + at, size)
        parts.append(buffer.view[at : at + size])
        half.window.data(sent + at, size)
        at += size
    half.deliver(parts, at, buffer)
    buffer.drop()
    return sent + at


def _take(half: ReceiveHalf, how: str, most: int) -> bytes:
    if how == "t":
        return half.take_some(most)
    if how == "v":
        views = b"".join(half.views(2))[:most]
        half.advance(len(views))
        return views
    piece = half.take()
    if piece is None:
        return b""
    data = bytes(piece[0])
    if piece[1] is not None:
        piece[1].drop()
    return data


@examples(150)
@given(st.data())
def test_what_was_delivered_is_taken_once_and_in_order(data: st.DataObject) -> None:
    """Any sizes, any short cut that takes any part of them, and every way of taking the rest."""
    pool = CountingPool()
    half = ReceiveHalf(granted=1 << 30, window=1 << 30, budget=Budget())
    got = bytearray()
    sent = 0

    def sink(parts: Sequence[memoryview]) -> int:
        offered = b"".join(parts)
        taken = offered[: data.draw(st.integers(0, len(offered)))]
        got.extend(taken)
        return len(taken)

    for what in data.draw(st.lists(st.sampled_from("dddstva"), max_size=25)):
        if what == "d":
            sent = _deliver(half, pool, sent, data.draw(st.lists(SIZES, min_size=1, max_size=3)))
        elif what == "s":
            half.sink = None if half.sink else sink
        else:
            got += _take(half, what, data.draw(SIZES))
        assert len(got) == half.window.taken
        assert half.window.buffered == sum(len(piece[0]) for piece in half.queue)
        assert half.queue or half.queue == ()
    if data.draw(st.booleans()):
        while part := half.take_some(1 << 20):
            got += part
        assert got == pattern(1, 0, sent)
    assert pattern(1, 0, sent).startswith(got)
    half.drop()
    assert not pool.in_use


def test_a_small_share_of_a_buffer_does_not_pin_it() -> None:
    pool = CountingPool()
    half = ReceiveHalf(granted=1 << 20, window=1 << 20, budget=Budget())
    buffer = pool.take()
    half.deliver([buffer.view[:30_000]], 30_000, buffer)
    half.deliver([buffer.view[30_000:30_010]], 10, buffer)
    assert buffer.refs == 1
    half.deliver([buffer.view[:60_000]], 60_000, buffer)
    assert buffer.refs == 2


def test_bytes_that_join_others_do_not_lose_the_buffer_of_those() -> None:
    pool = CountingPool()
    half = ReceiveHalf(granted=1 << 20, window=1 << 20, budget=Budget())
    buffer = pool.take()
    half.deliver([buffer.view[:50_000]], 50_000, buffer)
    half.take_some(49_990)
    half.deliver([buffer.view[:10]], 10, buffer)
    half.drop()
    buffer.drop()
    assert not pool.in_use


def test_a_sink_whose_stream_is_dropped_leaves_nothing_queued() -> None:
    pool = CountingPool()
    half = ReceiveHalf(granted=1 << 20, window=1 << 20, budget=Budget())
    half.sink = lambda parts: -1
    buffer = pool.take()
    half.deliver([buffer.view[:50_000]], 50_000, buffer)
    assert not half.queue
    assert buffer.refs == 1


@examples(100)
@given(st.lists(st.tuples(st.integers(1, CHUNK), st.booleans(), st.integers(0, CHUNK)), max_size=8))
def test_what_is_sent_is_kept_until_it_is_acknowledged(steps: list[tuple[int, bool, int]]) -> None:
    pool = CountingChunkPool()
    half = SendHalf(limit=1 << 30, allowance=1 << 30, budget=Budget())
    wire = bytearray()
    for size, chunked, acknowledged in steps:
        if chunked:
            chunk = pool.take_chunk()
            wire += half.write_chunk(7, chunk, size)
            chunk.drop()
        else:
            wire += half.write(7, bytes(min(size, FRAME)))
        half.credit(min(half.window.end, half.window.base + acknowledged), 1 << 30)
        assert all(end > half.window.base for end, _, _ in half.kept), "acknowledged pieces are not kept"
        assert pool.in_use == sum(buffer is not None for _, _, buffer in half.kept)
    at = 0
    for frame in parse(bytes(wire)):
        assert OFFSET.unpack_from(frame.payload)[0] == at
        assert len(frame.payload) <= FRAME + 8
        at += len(frame.payload) - 8
    assert at == half.window.end
    half.drop()
    assert not pool.in_use


def test_a_chunk_carries_its_payload_where_it_was_read() -> None:
    pool = CountingChunkPool()
    chunk = pool.take_chunk()
    text = pattern(3, 0, CHUNK)
    for at, slot in enumerate(chunk.slots):
        slot[:] = text[at * FRAME : (at + 1) * FRAME]
    run = SendHalf(limit=CHUNK, allowance=CHUNK, budget=Budget()).write_chunk(9, chunk, CHUNK - 1)
    out = parse(bytes(run))
    assert b"".join(frame.payload[8:] for frame in out) == text[:-1]
    assert len(run) == CHUNK - 1 + 16 * DATA_HEADER_SIZE


@pytest.mark.parametrize("spare", [0, 2])
def test_a_pool_keeps_a_bounded_number_of_idle_buffers(spare: int) -> None:
    pool = Pool(10, spare=spare)
    buffers = [pool.take() for _ in range(5)]
    for buffer in buffers:
        buffer.keep()
        buffer.drop()
        buffer.drop()
    assert len(pool.free) == spare
    if spare:
        assert pool.take() is buffers[1], "last in, first out"
