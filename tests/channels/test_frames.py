from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.channels import frames, messages
from connect_trio.channels.frames import HEADER_SIZE, MAX_FRAME, WORD, Decoder, FrameType, encode, name_of
from connect_trio.channels.messages import (
    MAX_COMMAND,
    MAX_DATA,
    MAX_PATH,
    MAX_TEXT,
    MAX_VALUE,
    MAX_WINDOW,
    AgentSocket,
    ChannelError,
    Data,
    Env,
    Eof,
    Exec,
    Exit,
    ExitSignal,
    Failed,
    Frame,
    Pty,
    Resize,
    Shell,
    Signal,
    Size,
    Started,
    Stderr,
    Subsystem,
    Window,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "channels.md"

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}", fullmatch=True)
pixels = st.integers(0, 0xFFFF)
sizes = st.builds(Size, pixels, pixels, pixels, pixels)
texts = st.text(max_size=MAX_TEXT).map(messages.one_line)
without_nul = st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"0"))
payloads = st.binary(min_size=1, max_size=300)
every_frame: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Pty, names, sizes, st.dictionaries(st.integers(0, 255), st.integers(0, 2**32 - 1), max_size=20)),
    st.builds(Env, names, without_nul),
    st.builds(AgentSocket, texts.filter(lambda text: 0 < len(text.encode()) <= MAX_PATH)),
    st.just(Shell()),
    st.builds(Exec, without_nul.filter(bool)),
    st.builds(Subsystem, names),
    st.builds(Resize, sizes),
    st.builds(Signal, names),
    st.builds(Data, payloads),
    st.builds(Stderr, payloads),
    st.just(Eof()),
    st.builds(Window, st.integers(1, MAX_WINDOW)),
    st.just(Started()),
    st.builds(Failed, texts),
    st.builds(Exit, st.integers(0, 255)),
    st.builds(ExitSignal, names, st.booleans(), texts),
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `places`."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def raw(kind: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    return WORD.pack(kind << 24 | (len(payload) if length is None else length)) + payload


def decode(data: bytes) -> list[Frame]:
    return list(Decoder().receive_data(data))


@given(st.lists(every_frame, max_size=8), st.lists(st.integers(min_value=0), max_size=12))
def test_frames_survive_any_fragmentation(said: list[Frame], places: list[int]) -> None:
    decoder = Decoder()
    heard = [frame for piece in cut(b"".join(map(encode, said)), places) for frame in decoder.receive_data(piece)]
    decoder.receive_eof()
    assert heard == said


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_hostile_bytes_raise_nothing_else_and_pile_up_nowhere(pieces: list[bytes]) -> None:
    decoder = Decoder()
    with contextlib.suppress(ChannelError):
        for piece in pieces:
            for frame in decoder.receive_data(piece):
                assert decode(encode(frame)) == [frame]
            assert len(decoder._buffer) < MAX_FRAME
        decoder.receive_eof()


@given(every_frame, st.data())
def test_a_frame_with_a_byte_changed_is_another_frame_or_an_error(frame: Frame, data: st.DataObject) -> None:
    wire = bytearray(encode(frame))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ChannelError):
        for other in decode(bytes(wire)):
            assert decode(encode(other)) == [other]


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (raw(0), "unknown type 0"),
        (raw(17), "unknown type 17"),
        (raw(FrameType.SHELL, b"x"), "SHELL with 1 bytes"),
        (raw(FrameType.DATA), "DATA with 0 bytes"),
        (raw(FrameType.DATA, length=MAX_DATA + 1), "DATA with 65537 bytes"),
        (raw(FrameType.EXEC, length=MAX_COMMAND + 1), "EXEC with 65537 bytes"),
        (raw(FrameType.EXEC, b"true\0"), "a NUL"),
        (raw(FrameType.ENV, b"\x04LANG\0"), "a NUL"),
        (raw(FrameType.ENV, b"\x05LANG"), "is cut"),
        (raw(FrameType.ENV, b"\x04LA=G"), "the name is not a name"),
        (raw(FrameType.ENV, b"\x00x"), "the name is not a name"),
        (raw(FrameType.ENV, b"\x01A" + b"x" * (MAX_VALUE + 1)), "more than 4096 bytes"),
        (raw(FrameType.PTY, bytes(16) + b"\x05xterm" + b"\x01"), "the modes are cut"),
        (raw(FrameType.PTY, bytes(16) + b"\x05xterm" + bytes(10)), "a mode stands twice"),
        (raw(FrameType.RESIZE, b"\x00\x01\x00\x00" + bytes(12)), "more than 65535"),
        (raw(FrameType.SIGNAL, b"IN\nT"), "not one line"),
        (raw(FrameType.SUBSYSTEM, b"\xff"), "not UTF-8"),
        (raw(FrameType.AGENT, b"/a\nb"), "not one line"),
        (raw(FrameType.WINDOW, bytes(4)), "WINDOW of 0 bytes"),
        (raw(FrameType.WINDOW, WORD.pack(MAX_WINDOW + 1)), f"WINDOW of {MAX_WINDOW + 1} bytes"),
        (raw(FrameType.EXIT, WORD.pack(256)), "status 256"),
        (raw(FrameType.EXIT_SIGNAL, b"\x02\x04KILL"), "neither 0 nor 1"),
        (raw(FrameType.FAILED, b"x" * (MAX_TEXT + 1)), "at most 512"),
    ],
)
def test_what_is_wrong_is_named(wire: bytes, says: str) -> None:
    with pytest.raises(ChannelError, match=re.escape(says)):
        decode(wire)


def test_a_frame_that_is_too_long_is_refused_by_its_header_alone() -> None:
    with pytest.raises(ChannelError, match="STDERR with 16777215 bytes"):
        decode(raw(FrameType.STDERR, length=0xFFFFFF)[:HEADER_SIZE])


def test_frames_before_a_wrong_one_are_heard() -> None:
    heard: list[Frame] = []
    with pytest.raises(ChannelError):
        heard.extend(Decoder().receive_data(encode(Shell()) + raw(99)))
    heard_one_by_one = Decoder().receive_data(encode(Shell()) + raw(99))
    assert next(heard_one_by_one) == Shell()


def test_an_end_inside_a_frame_is_a_breach() -> None:
    decoder = Decoder()
    assert list(decoder.receive_data(encode(Data(b"abc"))[:-1])) == []
    with pytest.raises(ChannelError, match="in the middle of a frame"):
        decoder.receive_eof()


@pytest.mark.parametrize(
    "frame",
    [
        Data(b""),
        Data(bytes(MAX_DATA + 1)),
        Exec(b""),
        Exec(b"a\0b"),
        Env("A B", b""),
        Env("A" * 300, b""),
        AgentSocket("x" * (MAX_PATH + 1)),
        Signal("a b"),
        Resize(Size(columns=-1)),
        Resize(Size(columns=70000)),
        Pty("", Size()),
        Pty("xterm", Size(), {256: 1}),
        Window(0),
        Exit(-1),
        Exit(256),
    ],
)
def test_what_may_not_travel_is_not_encoded(frame: Frame) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        encode(frame)


def test_reasons_are_cut_to_one_line() -> None:
    assert Failed("no\nsuch " + "x" * 1000).reason == ("no such " + "x" * 1000)[:MAX_TEXT]


def test_the_document_has_every_type_with_its_number() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in rows} == {kind.name: kind.value for kind in FrameType}


def test_every_frame_has_a_name() -> None:
    assert name_of(ExitSignal("KILL")) == "EXIT_SIGNAL"
    assert name_of(AgentSocket("/x")) == "AGENT"
    assert frames.MAX_FRAME == HEADER_SIZE + 65536
