"""How DATA frames of one read reach their streams: together, in place, and nobody else's bytes touched."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Answer, FrameType, Hello
from connect_trio.mux.opener import Opener
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from tests.support.core import CountingPool, sid_of
from tests.support.examples import examples
from tests.support.world import pattern

BUFFER = 512 * 1024
LIMIT = 1 << 30
FRAMES = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 20_000)), min_size=1, max_size=24)


def opened(streams: int) -> tuple[Wire, list[CoreStream], CountingPool]:
    opener = Opener(window=LIMIT)
    wire = Wire(opener, Hello(peer=Peer.OPENER, instance=bytes(16)), dialled=True, now=0)
    pool = CountingPool(BUFFER)
    give(wire, pool, frames.encode_hello(Hello(peer=Peer.SWITCH, instance=bytes(16))))
    made = []
    for number in range(streams):
        stream = opener.open(wire, token=bytes([number]) * 16, now=0)
        answer = Answer(attempt=1, received=0, limit=LIMIT)
        give(wire, pool, frames.encode_answer(FrameType.ACCEPT, sid_of(stream), answer))
        made.append(stream)
    return wire, made, pool


def give(wire: Wire, pool: CountingPool, data: bytes) -> None:
    buffer = pool.take()
    buffer.view[: len(data)] = data
    assert wire.receive(buffer, len(data), 0) == len(data)
    buffer.drop()


def take_all(stream: CoreStream) -> list[bytes]:
    pieces = []
    while (piece := stream.receive.take()) is not None:
        pieces.append(bytes(piece[0]))
        if isinstance(piece[1], Buffer):
            piece[1].drop()
    return pieces


def data_frames(streams: Sequence[CoreStream], order: Sequence[tuple[int, int]]) -> tuple[bytes, list[bytes]]:
    """Frames of these streams and sizes, and what each stream is to get."""
    out, expected = b"", [b""] * len(streams)
    for which, size in order:
        offset = len(expected[which])
        payload = pattern(which, offset, size)
        out += frames.encode_data(sid_of(streams[which]), offset, payload)
        expected[which] += payload
    return out, expected


@examples(100)
@given(FRAMES, st.integers(0, 5000))
def test_each_stream_gets_its_own_bytes_whatever_lies_between_them(order: list[tuple[int, int]], cut: int) -> None:
    wire, streams, pool = opened(2)
    data, expected = data_frames(streams, order)
    give(wire, pool, data)
    # The last frame once more, as a peer that resumes may send it, with news behind what is known.
    which, size = order[-1]
    again, more = len(expected[which]) - min(size, cut), pattern(which, len(expected[which]), 7)
    known = expected[which][again:]
    give(wire, pool, frames.encode_data(sid_of(streams[which]), again, known + more))
    expected[which] += more
    assert [b"".join(take_all(stream)) for stream in streams] == expected
    assert pool.in_use == 0


def test_what_came_in_one_read_is_one_piece_to_take() -> None:
    wire, (stream,), pool = opened(1)
    data, expected = data_frames([stream], [(0, frames.MAX_DATA)] * 3)
    give(wire, pool, data)
    assert take_all(stream) == expected


def test_a_short_cut_is_offered_the_frames_as_they_lie() -> None:
    wire, (stream,), pool = opened(1)
    offered: list[bytes] = []

    def sink(parts: Sequence[memoryview]) -> int:
        offered.extend(bytes(part) for part in parts)
        return sum(map(len, parts))

    stream.receive.sink = sink
    data, expected = data_frames([stream], [(0, 20_000)] * 3)
    give(wire, pool, data)
    assert [len(part) for part in offered] == [20_000] * 3
    assert b"".join(offered) == expected[0]
