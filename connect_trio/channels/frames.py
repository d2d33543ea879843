"""The frames of a session channel, and their layout.

A frame is a header of 4 bytes, type (8 bits) and length of the payload (24 bits) in network order, and the payload.

    PTY           columns, rows, width, height (32 bits each) | length of term (8) | term | opcode (8), value (32) ...
    ENV           length of name (8) | name | value
    AGENT         path
    SHELL         -
    EXEC          command
    SUBSYSTEM     name
    RESIZE        columns, rows, width, height (32 bits each)
    SIGNAL        name
    DATA          bytes of stdin or stdout
    STDERR        bytes
    EOF           -
    WINDOW        bytes that may be sent in addition (32 bits)
    STARTED       -
    FAILED        reason
    EXIT          status (32 bits)
    EXIT_SIGNAL   core dumped (8 bits, 0 or 1) | length of name (8) | name | message
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum

from connect_trio.channels.messages import (
    MAX_COMMAND,
    MAX_DATA,
    MAX_NAME,
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

HEADER_SIZE = 4
WORD = struct.Struct("!I")
SIZE = struct.Struct("!IIII")
MODE = struct.Struct("!BI")


class FrameType(IntEnum):
    PTY = 1
    ENV = 2
    AGENT = 3
    SHELL = 4
    EXEC = 5
    SUBSYSTEM = 6
    RESIZE = 7
    SIGNAL = 8
    DATA = 9
    STDERR = 10
    EOF = 11
    WINDOW = 12
    STARTED = 13
    FAILED = 14
    EXIT = 15
    EXIT_SIGNAL = 16


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data


def _size(size: Size) -> bytes:
    return SIZE.pack(size.columns, size.rows, size.width, size.height)


def _pty(pty: Pty) -> bytes:
    modes = b"".join(MODE.pack(opcode, value) for opcode, value in pty.modes.items())
    return _size(pty.size) + _short(pty.term) + modes


_ENCODERS: dict[type[Frame], tuple[FrameType, Callable[..., bytes]]] = {
    Pty: (FrameType.PTY, _pty),
    Env: (FrameType.ENV, lambda env: _short(env.name) + env.value),
    AgentSocket: (FrameType.AGENT, lambda agent: agent.path.encode()),
    Shell: (FrameType.SHELL, lambda _: b""),
    Exec: (FrameType.EXEC, lambda exec_: exec_.command),
    Subsystem: (FrameType.SUBSYSTEM, lambda subsystem: subsystem.name.encode()),
    Resize: (FrameType.RESIZE, lambda resize: _size(resize.size)),
    Signal: (FrameType.SIGNAL, lambda signal: signal.name.encode()),
    Data: (FrameType.DATA, lambda data: data.data),
    Stderr: (FrameType.STDERR, lambda data: data.data),
    Eof: (FrameType.EOF, lambda _: b""),
    Window: (FrameType.WINDOW, lambda window: WORD.pack(window.count)),
    Started: (FrameType.STARTED, lambda _: b""),
    Failed: (FrameType.FAILED, lambda failed: failed.reason.encode()),
    Exit: (FrameType.EXIT, lambda exit_: WORD.pack(exit_.status)),
    ExitSignal: (
        FrameType.EXIT_SIGNAL,
        lambda ended: bytes((ended.core_dumped,)) + _short(ended.name) + ended.message.encode(),
    ),
}


def name_of(frame: Frame) -> str:
    return _ENCODERS[type(frame)][0].name


def encode(frame: Frame) -> bytes:
    """A frame as it travels. Raises ValueError if it is not one that may travel."""
    kind, encoder = _ENCODERS[type(frame)]
    try:
        payload = encoder(frame)
        _check_length(kind, len(payload))
        if not isinstance(frame, Data | Stderr):
            decode_untrusted(kind, payload)
    except (ChannelError, struct.error, ValueError) as exc:
        raise ValueError(f"this cannot be sent: {exc}") from exc
    return WORD.pack(kind << 24 | len(payload)) + payload


# Type -> least and greatest length of the payload: judged from the header, before a byte of it is kept.
_LENGTHS: dict[int, tuple[int, int]] = {
    FrameType.PTY: (SIZE.size + 1, SIZE.size + 1 + MAX_NAME + 256 * MODE.size),
    FrameType.ENV: (2, 1 + MAX_NAME + MAX_VALUE),
    FrameType.AGENT: (1, MAX_PATH),
    FrameType.SHELL: (0, 0),
    FrameType.EXEC: (1, MAX_COMMAND),
    FrameType.SUBSYSTEM: (1, MAX_NAME),
    FrameType.RESIZE: (SIZE.size, SIZE.size),
    FrameType.SIGNAL: (1, MAX_NAME),
    FrameType.DATA: (1, MAX_DATA),
    FrameType.STDERR: (1, MAX_DATA),
    FrameType.EOF: (0, 0),
    FrameType.WINDOW: (WORD.size, WORD.size),
    FrameType.STARTED: (0, 0),
    FrameType.FAILED: (0, 4 * MAX_TEXT),
    FrameType.EXIT: (WORD.size, WORD.size),
    FrameType.EXIT_SIGNAL: (3, 2 + MAX_NAME + 4 * MAX_TEXT),
}
MAX_FRAME = HEADER_SIZE + max(most for _, most in _LENGTHS.values())


def _check_length(kind: int, length: int) -> None:
    bounds = _LENGTHS.get(kind)
    if bounds is None:
        raise ChannelError(f"a frame of the unknown type {kind}")
    if not bounds[0] <= length <= bounds[1]:
        raise ChannelError(f"{FrameType(kind).name} with {length} bytes")


def _text(data: bytes, what: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ChannelError(f"{what} is not UTF-8") from None
    if not text.isprintable() or len(text) > MAX_TEXT:
        raise ChannelError(f"{what} is not one line of at most {MAX_TEXT} characters")
    return text


def _name(data: bytes, what: str) -> str:
    text = _text(data, what)
    if not _NAME.fullmatch(text):
        raise ChannelError(f"{what} is not a name of 1 to {MAX_NAME} letters, digits and '_.@+-'")
    return text


def _split_name(payload: bytes, what: str) -> tuple[str, bytes]:
    """A name with its length before it, and what follows."""
    length = payload[0]
    if len(payload) < 1 + length:
        raise ChannelError(f"{what} is cut")
    return _name(payload[1 : 1 + length], what), payload[1 + length :]


def _decode_size(payload: bytes) -> Size:
    columns, rows, width, height = SIZE.unpack(payload)
    if max(columns, rows, width, height) > 0xFFFF:
        raise ChannelError("a terminal of more than 65535 columns, rows or pixels")
    return Size(columns, rows, width, height)


def _decode_pty(payload: bytes) -> Pty:
    size = _decode_size(payload[: SIZE.size])
    term, rest = _split_name(payload[SIZE.size :], "PTY: the terminal's name")
    if len(rest) % MODE.size:
        raise ChannelError("PTY: the modes are cut")
    modes: dict[int, int] = {}
    for opcode, value in MODE.iter_unpack(rest):
        if opcode in modes:
            raise ChannelError("PTY: a mode stands twice")
        modes[opcode] = value
    return Pty(term, size, modes)


def _decode_env(payload: bytes) -> Env:
    name, value = _split_name(payload, "ENV: the name")
    if len(value) > MAX_VALUE or b"\0" in value:
        raise ChannelError(f"ENV: the value has a NUL or more than {MAX_VALUE} bytes")
    return Env(name, value)


def _decode_agent(payload: bytes) -> AgentSocket:
    return AgentSocket(_text(payload, "AGENT: the path"))


def _decode_exec(payload: bytes) -> Exec:
    if b"\0" in payload:
        raise ChannelError("EXEC: the command has a NUL")
    return Exec(payload)


def _decode_window(payload: bytes) -> Window:
    (count,) = WORD.unpack(payload)
    if not 1 <= count <= MAX_WINDOW:
        raise ChannelError(f"WINDOW of {count} bytes")
    return Window(count)


def _decode_exit(payload: bytes) -> Exit:
    (status,) = WORD.unpack(payload)
    if status > 255:
        raise ChannelError(f"EXIT with status {status}")
    return Exit(status)


def _decode_exit_signal(payload: bytes) -> ExitSignal:
    if payload[0] > 1:
        raise ChannelError("EXIT_SIGNAL: core dumped is neither 0 nor 1")
    name, message = _split_name(payload[1:], "EXIT_SIGNAL: the name")
    return ExitSignal(name, bool(payload[0]), _text(message, "EXIT_SIGNAL: the message"))


_DECODERS: dict[int, Callable[[bytes], Frame]] = {
    FrameType.PTY: _decode_pty,
    FrameType.ENV: _decode_env,
    FrameType.AGENT: _decode_agent,
    FrameType.SHELL: lambda _: Shell(),
    FrameType.EXEC: _decode_exec,
    FrameType.SUBSYSTEM: lambda payload: Subsystem(_name(payload, "SUBSYSTEM: the name")),
    FrameType.RESIZE: lambda payload: Resize(_decode_size(payload)),
    FrameType.SIGNAL: lambda payload: Signal(_name(payload, "SIGNAL: the name")),
    FrameType.DATA: Data,
    FrameType.STDERR: Stderr,
    FrameType.EOF: lambda _: Eof(),
    FrameType.WINDOW: _decode_window,
    FrameType.STARTED: lambda _: Started(),
    FrameType.FAILED: lambda payload: Failed(_text(payload, "FAILED: the reason")),
    FrameType.EXIT: _decode_exit,
    FrameType.EXIT_SIGNAL: _decode_exit_signal,
}


def decode_untrusted(kind: int, payload: bytes) -> Frame:
    """The frame of a type and payload. Raises ChannelError."""
    _check_length(kind, len(payload))
    return _DECODERS[kind](payload)


class Decoder:
    """Frames out of bytes, however these are cut. It keeps less than a frame (MAX_FRAME) between calls."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes; to be used up before the next call.

        Raises ChannelError, after the frames before the wrong one, and is of no use after that.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= HEADER_SIZE:
                (word,) = WORD.unpack_from(buffer, at)
                kind, length = word >> 24, word & 0xFFFFFF
                _check_length(kind, length)
                start, end = at + HEADER_SIZE, at + HEADER_SIZE + length
                if len(buffer) < end:
                    break
                at = end
                with memoryview(buffer) as view:
                    payload = bytes(view[start:end])
                yield _DECODERS[kind](payload)
        finally:
            del buffer[:at]

    def receive_eof(self) -> None:
        """Raises ChannelError if the end cuts a frame."""
        if self._buffer:
            raise ChannelError("the end in the middle of a frame")
