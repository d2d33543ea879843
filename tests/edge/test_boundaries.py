"""Where frames end, judged by an independent reading of the same bytes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from connect_trio.edge.boundaries import RESTART, FrameFollower, close_frame

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode: int, size: int, *, masked: bool = False, fin: bool = True) -> bytes:
    """A frame of RFC 6455, whose payload looks like headers."""
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 1 << 16:
        length = bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([mask | 127]) + size.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + (b"\x88\x7f\xff\xff" if masked else b"") + b"\x88" * size


sizes = st.one_of(st.integers(0, 130), st.sampled_from([125, 126, 127, 65535, 65536, 70000]))
frames = st.lists(st.builds(frame, st.sampled_from([0, TEXT, BINARY, PING]), sizes, masked=st.booleans()), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@given(frames=frames, cuts=st.lists(st.integers(0, 200_000), max_size=30))
def test_it_is_between_frames_exactly_where_one_ends(frames: list[bytes], cuts: list[int]) -> None:
    follower, data = FrameFollower(), b"".join(frames)
    ends = {0}
    for each in frames:
        ends.add(max(ends) + len(each))
    passed = 0
    for piece in pieces(data, cuts):
        follower.feed(memoryview(piece))
        passed += len(piece)
        assert follower.between == (passed in ends)
    assert not follower.closed


@given(frames=frames, cut=st.integers(0, 200_000), cuts=st.lists(st.integers(0, 200_000), max_size=10))
def test_what_is_left_of_a_frame_is_told_exactly(frames: list[bytes], cut: int, cuts: list[int]) -> None:
    data = b"".join(frames)
    cut = min(cut, len(data))
    ends = [0]
    for each in frames:
        ends.append(ends[-1] + len(each))
    expected = min(end for end in ends if end >= cut) - cut
    follower = FrameFollower()
    follower.feed(data[:cut])
    taken = 0
    for piece in pieces(data[cut:], cuts):
        taken += follower.feed_to_boundary(piece)
    assert (taken, follower.between) == (expected, True)


@given(data=st.binary(max_size=500), cuts=st.lists(st.integers(0, 500), max_size=20))
def test_garbage_is_followed_alike_however_it_comes(data: bytes, cuts: list[int]) -> None:
    whole, parts = FrameFollower(), FrameFollower()
    whole.feed(data)
    for piece in pieces(data, cuts):
        parts.feed(piece)
    assert (whole.between, whole.closed) == (parts.between, parts.closed)
    assert len(parts._header) < 14


def test_a_close_frame_is_noticed_with_its_header() -> None:
    follower = FrameFollower()
    follower.feed(frame(TEXT, 5) + frame(CLOSE, 2)[:2])
    assert follower.closed
    assert not follower.between


def test_our_close_frame_is_one_for_others_too() -> None:
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(close_frame(RESTART, "Connect is being restarted"))
    (found,) = protocol.received_frames()
    assert found.opcode is Opcode.CLOSE
    assert found.payload == (CloseReason.SERVICE_RESTART, "Connect is being restarted")
