"""The wire format: frame types, header and payload layouts. All numbers are in network order.

    header   type (8 bits) | payload length (24) | stream id (32)
    DATA     offset (64) | 1 to 65,536 bytes
    FIN      offset (64)
    CREDIT   received (64) | limit (64)
    ACCEPT, RESUMED   attempt (32) | received (64) | limit (64) | resume time-out in ms (32)
    OPEN, RESUME      attempt (32) | received (64) | limit (64) | resume time-out in ms (32) | token (128)
                      | lengths of session (8), kind (8), metadata (16) | session | kind | metadata
    REJECT, RESET     code (16) | UTF-8 text
    DETACH   code (16)
    DONE     (empty)
    HELLO    lowest version (16) | highest (16) | features (32) | peer (8) | slot (8) | streams (32)
             | generation (64) | instance (128) | length of name (8) | name
    PING, PONG        8 opaque bytes
    GOAWAY   code (16) | grace in ms (32) | UTF-8 text

`received` and `limit` stand at the same place in OPEN, RESUME, ACCEPT and RESUMED, so that a switch can patch them.
docs/protocol.md is the specification.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

import attrs

from connect_trio.mux.codes import GoawayCode
from connect_trio.mux.errors import StreamViolation, WireError

VERSION = 1
HEADER_SIZE = 8
OFFSET_SIZE = 8
DATA_HEADER_SIZE = HEADER_SIZE + OFFSET_SIZE
MAX_DATA = 65536
MAX_TEXT = 512
MAX_METADATA = 4096
MAX_NAME = 255
MAX_OFFSET = 2**63 - 1
INITIAL = 65536  # bytes that an opener may send before ACCEPT: a constant of the protocol version

HEADER = Struct("!II")
DATA_HEADER = Struct("!IIQ")
STREAM_ID = Struct("!I")
OFFSET = Struct("!Q")
CREDIT = Struct("!QQ")
CREDIT_FRAME = Struct("!IIQQ")
ANSWER = Struct("!IQQI")
ASK = Struct("!IQQI16sBBH")
CODE = Struct("!H")
HELLO = Struct("!HHIBBIQ16sB")
GOAWAY = Struct("!HI")

LIMIT_IN_ASK = HEADER_SIZE + 12  # where `limit` stands in OPEN, RESUME, ACCEPT and RESUMED
RECEIVED_IN_ASK = HEADER_SIZE + 4


class FrameType(IntEnum):
    HELLO = 1
    PING = 2
    PONG = 3
    GOAWAY = 4
    OPEN = 16
    ACCEPT = 17
    REJECT = 18
    RESUME = 19
    RESUMED = 20
    DATA = 21
    CREDIT = 22
    FIN = 23
    RESET = 24
    DETACH = 25
    DONE = 26


_MAX_ASK = ASK.size + 2 * MAX_NAME + MAX_METADATA
_MAX_SAY = CODE.size + MAX_TEXT

# The lengths that a payload of each type may have: checked as soon as the header is there, before anything is buffered.
LENGTHS: dict[int, tuple[int, int]] = {
    FrameType.HELLO: (HELLO.size, HELLO.size + MAX_NAME),
    FrameType.PING: (8, 8),
    FrameType.PONG: (8, 8),
    FrameType.GOAWAY: (GOAWAY.size, GOAWAY.size + MAX_TEXT),
    FrameType.OPEN: (ASK.size, _MAX_ASK),
    FrameType.ACCEPT: (ANSWER.size, ANSWER.size),
    FrameType.REJECT: (CODE.size, _MAX_SAY),
    FrameType.RESUME: (ASK.size, _MAX_ASK),
    FrameType.RESUMED: (ANSWER.size, ANSWER.size),
    FrameType.DATA: (OFFSET_SIZE + 1, OFFSET_SIZE + MAX_DATA),
    FrameType.CREDIT: (CREDIT.size, CREDIT.size),
    FrameType.FIN: (OFFSET_SIZE, OFFSET_SIZE),
    FrameType.RESET: (CODE.size, _MAX_SAY),
    FrameType.DETACH: (CODE.size, CODE.size),
    FrameType.DONE: (0, 0),
}
HOP_TYPES = frozenset({FrameType.HELLO, FrameType.PING, FrameType.PONG, FrameType.GOAWAY})
MAX_FRAME = HEADER_SIZE + OFFSET_SIZE + MAX_DATA


@attrs.frozen(kw_only=True)
class Hello:
    """What one hop needs to know of the process at its other end.

    instance: 16 random bytes, new with each start of the process. slot: which of an agent's tunnels this is.
    generation: counts the tunnels of a slot; a newer one displaces an older one. streams: most concurrent streams.
    name: the session of an agent, or the connector id of a server.
    """

    peer: int
    instance: bytes
    lowest: int = VERSION
    highest: int = VERSION
    features: int = 0
    slot: int = 0
    streams: int = 65536
    generation: int = 0
    name: str = ""


@attrs.frozen(kw_only=True)
class Ask:
    """OPEN or RESUME: attach a stream to the id that the frame came with."""

    token: bytes
    attempt: int
    limit: int
    received: int = 0
    patience: int = 600_000
    session: str = ""
    kind: str = ""
    metadata: bytes = b""


@attrs.frozen(kw_only=True)
class Answer:
    """ACCEPT or RESUMED: the id is the home of the stream."""

    attempt: int
    received: int
    limit: int
    patience: int = 0


@attrs.frozen(kw_only=True)
class Goaway:
    """The peer will close this wire when its streams are gone, or after `grace` milliseconds."""

    code: int
    grace: int = 0
    text: str = ""


def encode(kind: int, sid: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(kind << 24 | len(payload), sid) + payload


def encode_credit(sid: int, received: int, limit: int) -> bytes:
    return CREDIT_FRAME.pack(FrameType.CREDIT << 24 | CREDIT.size, sid, received, limit)


def encode_fin(sid: int, offset: int) -> bytes:
    return DATA_HEADER.pack(FrameType.FIN << 24 | OFFSET_SIZE, sid, offset)


def encode_data(sid: int, offset: int, data: bytes) -> bytes:
    return DATA_HEADER.pack(FrameType.DATA << 24 | OFFSET_SIZE + len(data), sid, offset) + data


def check_ask(ask: Ask) -> None:
    """Raises ValueError where session, kind or metadata are too long for the frame."""
    if len(ask.session) > MAX_NAME or len(ask.kind) > MAX_NAME or len(ask.metadata) > MAX_METADATA:
        raise ValueError("session, kind or metadata of a stream are too long for its OPEN frame")
    if not (ask.session.isascii() and ask.kind.isascii()):
        raise ValueError("session and kind of a stream must be ASCII")


def encode_ask(kind: int, sid: int, ask: Ask) -> bytes:
    """OPEN or RESUME. Raises ValueError as `check_ask`."""
    check_ask(ask)
    session, what = ask.session.encode("ascii"), ask.kind.encode("ascii")
    head = ASK.pack(
        ask.attempt,
        ask.received,
        ask.limit,
        ask.patience,
        ask.token,
        len(session),
        len(what),
        len(ask.metadata),
    )
    return encode(kind, sid, head + session + what + ask.metadata)


def encode_answer(kind: int, sid: int, answer: Answer) -> bytes:
    return encode(kind, sid, ANSWER.pack(answer.attempt, answer.received, answer.limit, answer.patience))


def encode_say(kind: int, sid: int, code: int, text: str = "") -> bytes:
    """RESET or REJECT; the text is cut to what the frame may carry."""
    return encode(kind, sid, CODE.pack(code) + _cut(text))


def encode_detach(sid: int, code: int) -> bytes:
    return encode(FrameType.DETACH, sid, CODE.pack(code))


def encode_hello(hello: Hello) -> bytes:
    """Raises ValueError where the name is too long for the frame."""
    name = hello.name.encode()
    if len(name) > MAX_NAME:
        raise ValueError("the name in a HELLO frame is too long")
    head = HELLO.pack(
        hello.lowest,
        hello.highest,
        hello.features,
        hello.peer,
        hello.slot,
        hello.streams,
        hello.generation,
        hello.instance,
        len(name),
    )
    return encode(FrameType.HELLO, 0, head + name)


def encode_goaway(goaway: Goaway) -> bytes:
    return encode(FrameType.GOAWAY, 0, GOAWAY.pack(goaway.code, goaway.grace) + _cut(goaway.text))


def _cut(text: str) -> bytes:
    return text.encode()[:MAX_TEXT].decode(errors="ignore").encode()


def _text(raw: bytes | memoryview) -> str:
    """Text of a peer, fit for a log line: what is not printable is shown as an escape."""
    text = bytes(raw).decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


# Decoders of what a peer sent. They are given exactly the payload, whose length `check_header_untrusted` has judged.


def check_header_untrusted(kind: int, length: int, sid: int) -> None:
    """Judge a frame by its header alone. Raises WireError: wrong framing ends the wire."""
    bounds = LENGTHS.get(kind)
    if bounds is None:
        raise WireError(f"unknown frame type {kind}")
    if not bounds[0] <= length <= bounds[1]:
        raise WireError(f"{FrameType(kind).name} frame with a payload of {length} bytes")
    if (kind in HOP_TYPES) != (sid == 0):
        raise WireError(f"{FrameType(kind).name} frame on stream id {sid}")


def decode_ask_untrusted(payload: memoryview) -> Ask:
    """Raises WireError where the lengths inside contradict the frame's."""
    attempt, received, limit, patience, token, n_session, n_kind, n_metadata = ASK.unpack_from(payload)
    rest = bytes(payload[ASK.size :])
    if len(rest) != n_session + n_kind + n_metadata:
        raise WireError("OPEN or RESUME frame whose parts do not add up")
    if n_metadata > MAX_METADATA or not attempt or received > MAX_OFFSET or limit > MAX_OFFSET:
        raise WireError("OPEN or RESUME frame with a number out of range")
    try:
        session = rest[:n_session].decode("ascii")
        kind = rest[n_session : n_session + n_kind].decode("ascii")
    except UnicodeDecodeError as exc:
        raise WireError("OPEN or RESUME frame with a name that is not ASCII") from exc
    return Ask(
        token=token,
        attempt=attempt,
        received=received,
        limit=limit,
        patience=patience,
        session=session,
        kind=kind,
        metadata=rest[n_session + n_kind :],
    )


def decode_answer_untrusted(payload: memoryview) -> Answer:
    """Raises StreamViolation."""
    attempt, received, limit, patience = ANSWER.unpack(payload)
    if received > MAX_OFFSET or limit > MAX_OFFSET:
        raise StreamViolation("offset out of range")
    return Answer(attempt=attempt, received=received, limit=limit, patience=patience)


def decode_say_untrusted(payload: memoryview) -> tuple[int, str]:
    """Code and text of RESET, REJECT or DETACH."""
    return CODE.unpack_from(payload)[0], _text(payload[CODE.size :])


def decode_hello_untrusted(payload: memoryview) -> Hello:
    """Raises WireError, with code VERSION where there is no version that both ends speak."""
    lowest, highest, features, peer, slot, streams, generation, instance, n_name = HELLO.unpack_from(payload)
    if lowest <= highest and not lowest <= VERSION <= highest:  # first: the rest may be laid out in another way
        raise WireError(f"the peer speaks versions {lowest} to {highest}, this side {VERSION}", GoawayCode.VERSION)
    name = bytes(payload[HELLO.size :])
    if len(name) != n_name or lowest > highest:
        raise WireError("HELLO frame that contradicts itself")
    return Hello(
        peer=peer,
        instance=instance,
        lowest=lowest,
        highest=highest,
        features=features,
        slot=slot,
        streams=streams,
        generation=generation,
        name=_text(name),
    )


def decode_goaway_untrusted(payload: memoryview) -> Goaway:
    code, grace = GOAWAY.unpack_from(payload)
    return Goaway(code=code, grace=grace, text=_text(payload[GOAWAY.size :]))
