"""The wire format: what is encoded is decoded again, and no bytes whatever do more than end the wire."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import frames
from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.errors import StreamViolation, WireError
from connect_trio.mux.frames import HEADER, HEADER_SIZE, HOP_TYPES, LENGTHS, Answer, Ask, FrameType, Goaway, Hello
from connect_trio.mux.wire import Wire
from tests.support.core import CountingPool, Feed, Frame, Recorder, greeted, hello, parse
from tests.support.examples import examples
from tests.support.vectors import VECTORS

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
OFFSETS = st.integers(0, frames.MAX_OFFSET)
NAMES = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=255)
ASKS = st.builds(
    Ask,
    token=st.binary(min_size=16, max_size=16),
    attempt=st.integers(1, 2**32 - 1),
    limit=OFFSETS,
    received=OFFSETS,
    patience=U32,
    session=NAMES,
    kind=NAMES,
    metadata=st.binary(max_size=frames.MAX_METADATA),
)
ANSWERS = st.builds(Answer, attempt=U32, received=OFFSETS, limit=OFFSETS, patience=U32)
HELLOS = st.builds(
    Hello,
    peer=U8,
    instance=st.binary(min_size=16, max_size=16),
    lowest=st.just(1),
    highest=st.integers(1, 2**16 - 1),
    features=U32,
    slot=U8,
    streams=U32,
    generation=U64,
    name=NAMES.filter(str.isprintable),
)


def payload_of(frame: bytes, kind: int) -> memoryview:
    """The payload of one frame whose header must be right."""
    (only,) = parse(frame)
    frames.check_header_untrusted(only.kind, len(only.payload), only.sid)
    assert only.kind == kind
    return memoryview(only.payload)


# round trips


@given(ASKS, st.sampled_from([FrameType.OPEN, FrameType.RESUME]))
def test_an_ask_is_read_as_it_was_written(ask: Ask, kind: FrameType) -> None:
    assert frames.decode_ask_untrusted(payload_of(frames.encode_ask(kind, 5, ask), kind)) == ask


@given(ANSWERS, st.sampled_from([FrameType.ACCEPT, FrameType.RESUMED]))
def test_an_answer_is_read_as_it_was_written(answer: Answer, kind: FrameType) -> None:
    assert frames.decode_answer_untrusted(payload_of(frames.encode_answer(kind, 5, answer), kind)) == answer


@given(HELLOS)
def test_a_hello_is_read_as_it_was_written(said: Hello) -> None:
    assert frames.decode_hello_untrusted(payload_of(frames.encode_hello(said), FrameType.HELLO)) == said


@given(U16, st.text().filter(str.isprintable), st.sampled_from([FrameType.RESET, FrameType.REJECT]))
def test_a_reason_is_read_as_far_as_it_fits(code: int, text: str, kind: FrameType) -> None:
    assert frames.decode_say_untrusted(payload_of(frames.encode_say(kind, 5, code, text), kind)) == (code, text)
    long = text + "\N{SNOWMAN}" * 300
    _, cut = frames.decode_say_untrusted(payload_of(frames.encode_say(kind, 5, code, long), kind))
    assert long.startswith(cut)
    assert frames.MAX_TEXT - 3 < len(cut.encode()) <= frames.MAX_TEXT


@given(U16, U32, st.text(max_size=100).filter(str.isprintable))
def test_a_goaway_is_read_as_it_was_written(code: int, grace: int, text: str) -> None:
    said = Goaway(code=code, grace=grace, text=text)
    assert frames.decode_goaway_untrusted(payload_of(frames.encode_goaway(said), FrameType.GOAWAY)) == said


@given(U64, U64, st.binary(min_size=1, max_size=100))
def test_credit_fin_and_data_are_read_as_they_were_written(first: int, second: int, data: bytes) -> None:
    assert frames.CREDIT.unpack(payload_of(frames.encode_credit(5, first, second), FrameType.CREDIT)) == (first, second)
    assert frames.OFFSET.unpack(payload_of(frames.encode_fin(5, first), FrameType.FIN)) == (first,)
    payload = payload_of(frames.encode_data(5, first, data), FrameType.DATA)
    assert (frames.OFFSET.unpack_from(payload)[0], bytes(payload[8:])) == (first, data)


def test_names_that_do_not_fit_are_refused_by_the_encoder() -> None:
    ask = Ask(token=bytes(16), attempt=1, limit=0)
    for change in ({"session": "x" * 256}, {"kind": "x" * 256}, {"metadata": bytes(4097)}):
        with pytest.raises(ValueError, match="too long"):
            frames.encode_ask(FrameType.OPEN, 1, attrs.evolve(ask, **change))
    with pytest.raises(ValueError, match="too long"):
        frames.encode_hello(Hello(peer=1, instance=bytes(16), name="x" * 256))


@pytest.mark.parametrize(("frame", "vector"), [vector[1:] for vector in VECTORS], ids=[name for name, _, _ in VECTORS])
def test_vectors(frame: bytes, vector: str) -> None:
    assert frame.hex() == vector.replace(" ", "")


def test_there_is_a_vector_for_every_type() -> None:
    assert {frame[0] for _, frame, _ in VECTORS} == set(FrameType)


# headers


@pytest.mark.parametrize("kind", FrameType)
def test_every_wrong_length_is_refused_by_the_header_alone(kind: FrameType) -> None:
    low, high = LENGTHS[kind]
    sid = 0 if kind in HOP_TYPES else 1
    for length in {0, low - 1, high + 1, 65536, 65545, 2**24 - 1} - set(range(low, high + 1)) - {-1}:
        with pytest.raises(WireError, match=f"{kind.name} frame with a payload of {length} bytes"):
            _feed_header(kind, length, sid)
    for length in (low, high):
        _feed_header(kind, length, sid)


def test_unknown_types_are_refused() -> None:
    for kind in set(range(256)) - set(map(int, FrameType)):
        for sid in (0, 1):
            with pytest.raises(WireError, match=f"unknown frame type {kind}"):
                _feed_header(kind, 0, sid)


@pytest.mark.parametrize("kind", FrameType)
def test_frames_of_the_hop_have_no_stream_and_all_others_have_one(kind: FrameType) -> None:
    wrong = 1 if kind in HOP_TYPES else 0
    with pytest.raises(WireError, match=f"{kind.name} frame on stream id {wrong}"):
        _feed_header(kind, LENGTHS[kind][0], wrong)


def test_the_longest_frame_is_a_full_data_frame() -> None:
    assert max(high for _, high in LENGTHS.values()) + HEADER_SIZE == frames.MAX_FRAME == 65552


def _feed_header(kind: int, length: int, sid: int) -> None:
    _, feed = greeted(Recorder(), Peer.OPENER, Peer.SWITCH, dialled=True)
    feed(HEADER.pack(kind << 24 | length, sid), 0.0)


# payloads


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: p[:-1], "do not add up"),
        (lambda p: p + b"x", "do not add up"),
        (lambda p: b"\0\0\0\0" + p[4:], "out of range"),
        (lambda p: p[:4] + b"\x80" + p[5:], "out of range"),
        (lambda p: p[:12] + b"\x80" + p[13:], "out of range"),
        (lambda p: p[:-3] + b"\xff" + p[-2:], "not ASCII"),
        (lambda p: p[:42] + (4097).to_bytes(2, "big") + p[44:-2] + bytes(4097), "out of range"),
    ],
)
def test_an_ask_that_contradicts_itself_ends_the_wire(change: Callable[[bytes], bytes], text: str) -> None:
    ask = Ask(token=bytes(16), attempt=1, limit=0, session="abcdefgh", kind="http", metadata=b"{}")
    payload = parse(frames.encode_ask(FrameType.OPEN, 1, ask))[0].payload
    with pytest.raises(WireError, match=text):
        frames.decode_ask_untrusted(memoryview(change(payload)))


@pytest.mark.parametrize("at", [4, 12])
def test_an_answer_with_an_offset_out_of_range_ends_its_stream(at: int) -> None:
    payload = bytearray(
        parse(frames.encode_answer(FrameType.ACCEPT, 1, Answer(attempt=1, received=0, limit=0)))[0].payload
    )
    payload[at] = 0x80
    with pytest.raises(StreamViolation, match="out of range"):
        frames.decode_answer_untrusted(memoryview(payload))


@pytest.mark.parametrize(
    ("lowest", "highest", "code"), [(2, 3, GoawayCode.VERSION), (0, 0, GoawayCode.VERSION), (2, 1, GoawayCode.PROTOCOL)]
)
def test_a_hello_of_no_common_version_ends_the_wire(lowest: int, highest: int, code: GoawayCode) -> None:
    said = attrs.evolve(hello(Peer.OPENER), lowest=lowest, highest=highest)
    with pytest.raises(WireError) as caught:
        frames.decode_hello_untrusted(payload_of(frames.encode_hello(said), FrameType.HELLO))
    assert caught.value.code is code


def test_text_of_a_peer_is_fit_for_a_log_line() -> None:
    frame = frames.encode(FrameType.RESET, 1, b"\0\1" + b"one\nFAKE two\x1b[31m \xff")
    _, text = frames.decode_say_untrusted(payload_of(frame, FrameType.RESET))
    assert text.isprintable()
    assert text.startswith("one\\nFAKE two")


# any bytes, any chunking

CHUNKS = st.lists(st.integers(1, 40), min_size=1, max_size=20)
GOOD = st.one_of(
    st.builds(lambda ask: frames.encode_ask(FrameType.OPEN, 2, ask), ASKS),
    st.builds(frames.encode_data, st.just(2), OFFSETS, st.binary(min_size=1, max_size=3000)),
    st.sampled_from([frame for _, frame, _ in VECTORS if frame[0] != FrameType.HELLO]),
)


def _fed(feed: Feed, data: bytes, sizes: list[int]) -> WireError | None:
    """Feed in chunks of these sizes, again and again; the error, if there was one."""
    at = turn = 0
    try:
        while at < len(data):
            size = sizes[turn % len(sizes)]
            feed(data[at : at + size], 0.0)
            at, turn = at + size, turn + 1
    except WireError as exc:
        return exc
    return None


@examples(200)
@given(st.binary(max_size=300), CHUNKS, st.booleans())
def test_any_bytes_raise_nothing_but_wire_errors(data: bytes, sizes: list[int], dialled: bool) -> None:
    pool = CountingPool()
    feed = Feed(Wire(Recorder(), hello(Peer.SWITCH), dialled=dialled, now=0.0), pool)
    _fed(feed, data, sizes)
    assert pool.in_use <= 1
    feed.close()
    assert not pool.in_use


@examples(100)
@given(st.lists(GOOD, max_size=12), st.binary(max_size=40), CHUNKS)
def test_the_same_frames_are_seen_whatever_the_chunks(good: list[bytes], tail: bytes, sizes: list[int]) -> None:
    stream = b"".join(good) + tail
    results = []
    for chunks in (sizes, [len(stream) + 1], [1] if len(stream) < 5000 else [997]):
        recorder = Recorder()
        wire, feed = greeted(recorder, Peer.SWITCH, Peer.OPENER, dialled=False)
        error = _fed(feed, stream, chunks)
        results.append((recorder.seen, error and str(error), wire.closing))
    assert results[0] == results[1] == results[2]
    seen = [each for each in results[0][0] if isinstance(each, Frame)]
    expected = [frame for frame in parse(b"".join(good)) if frame.kind not in HOP_TYPES]
    assert seen[: len(expected)] == expected
