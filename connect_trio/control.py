"""What proxy and agent say to each other about connections that begin in the agent. See docs/control.md.

Only proxies open streams. So a connection that somebody makes in the agent (to a listener of `ssh -R`, to a forwarded
SSH agent) is announced on a stream of the kind CONTROL, and the proxy opens one of the kind ANNOUNCED for it. A message
is one line of JSON, an object of texts. The version travels in the metadata of the stream: what both ends speak is
agreed upon when the stream is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

VERSION = "1"
CONTROL = "control"
ANNOUNCED = "announced"

MAX_MESSAGE = 8192  # bytes of a message without its line end
MAX_TEXT = 512  # characters of an address, a reason or a value
MAX_NAME = 64  # characters of a kind or of the name of a value
MAX_VALUES = 16  # values in metadata
MAX_WAITING = 256  # connections that may be announced and not yet opened, refused or withdrawn
MAX_LISTENERS = 16  # listeners of one control stream
NETWORKS = ("tcp", "unix", "agent")


class ControlError(Exception):
    """The other end breaks the protocol; one line says how. The stream ends."""


def one_line(text: str) -> str:
    """A text as it may travel: without line ends and the like, and cut where it is too long."""
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_TEXT]


@attrs.frozen
class Announce:
    """Agent: a connection waits for a stream. reference: 32 hex digits, its name and secret; it serves once.

    kind: "tcp", "unix" or "agent", the network of its listener. metadata: what there is to tell about it; for
    connections to a listener "listener", "address" (where it listens) and, for TCP, "peer".
    """

    reference: str
    kind: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Withdraw:
    """Agent: the connection waits no longer."""

    reference: str


@attrs.frozen
class Refuse:
    """Proxy: no stream will be opened; the connection is cut."""

    reference: str
    reason: str = attrs.field(converter=one_line)


@attrs.frozen
class Listen:
    """Proxy: listen on `address`. listener: a name for it that this control stream has not used before.

    network: "tcp", "unix", or "agent" for the socket of a forwarded SSH agent.
    """

    listener: str
    network: str
    address: str


@attrs.frozen
class Unlisten:
    """Proxy: listen there no more. Connections that were announced already still wait."""

    listener: str


@attrs.frozen
class Listening:
    """Agent: it listens, on this very address."""

    listener: str
    address: str


@attrs.frozen
class Failed:
    """Agent: what was asked about the listener cannot be done."""

    listener: str
    reason: str = attrs.field(converter=one_line)


@attrs.frozen
class Unlistened:
    """Agent: it listens there no more."""

    listener: str


Message = Announce | Withdraw | Refuse | Listen | Unlisten | Listening | Failed | Unlistened

FROM_AGENT: tuple[type[Message], ...] = (Announce, Withdraw, Listening, Failed, Unlistened)
FROM_PROXY: tuple[type[Message], ...] = (Refuse, Listen, Unlisten)

_REFERENCE = re.compile(r"[0-9a-f]{32}")
_WORD = re.compile(rf"[a-z0-9][a-z0-9._@-]{{0,{MAX_NAME - 1}}}")


def _reference(value: object) -> str | None:
    return None if isinstance(value, str) and _REFERENCE.fullmatch(value) else "is not 32 hex digits"


def _word(value: object) -> str | None:
    if isinstance(value, str) and _WORD.fullmatch(value):
        return None
    return f"is not a word of 1 to {MAX_NAME} of a-z, 0-9, '.', '_', '@' and '-'"


def _text(value: object) -> str | None:
    if isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable():
        return None
    return f"is not one line of at most {MAX_TEXT} characters"


def _network(value: object) -> str | None:
    return None if value in NETWORKS else f"is none of {', '.join(NETWORKS)}"


def _metadata(value: object) -> str | None:
    if not isinstance(value, Mapping) or len(value) > MAX_VALUES:
        return f"is not an object of at most {MAX_VALUES} texts"
    if any(_word(name) or _text(text) for name, text in value.items()):
        return "has a name or a text that is too long or not printable"
    return None


# For each field of a message: what is wrong with a value, or None.
_CHECKS: dict[str, Callable[[object], str | None]] = {
    "reference": _reference,
    "listener": _word,
    "kind": _word,
    "network": _network,
    "address": _text,
    "reason": _text,
    "metadata": _metadata,
}
_TYPES: dict[str, type[Message]] = {kind.__name__.lower(): kind for kind in (*FROM_AGENT, *FROM_PROXY)}
_FIELDS = {kind: tuple(field.name for field in attrs.fields(kind)) for kind in _TYPES.values()}


def encode(message: Message) -> bytes:
    """A message as it travels, with its line end. Raises ValueError if it is not one that may travel."""
    fields: dict[str, Any] = {name: getattr(message, name) for name in _FIELDS[type(message)]}
    for name, value in fields.items():
        if wrong := _CHECKS[name](value):
            raise ValueError(f"{name} {wrong}")
    if "metadata" in fields:
        fields["metadata"] = dict(fields["metadata"])
    line = json.dumps({"type": type(message).__name__.lower(), **fields}).encode()
    if len(line) > MAX_MESSAGE:
        raise ValueError(f"the message is longer than {MAX_MESSAGE} bytes")
    return line + b"\n"


def decode_untrusted(line: bytes) -> Message:
    """The message on a line. Raises ControlError."""
    fields = _object_untrusted(line, "a message")
    name = fields.pop("type", None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ControlError("a message of an unknown type")
    if fields.keys() != set(_FIELDS[kind]):
        raise ControlError(f"{name}: its fields are not {', '.join(_FIELDS[kind])}")
    for field, value in fields.items():
        if wrong := _CHECKS[field](value):
            raise ControlError(f"{name}: {field} {wrong}")
    return kind(**fields)


def decode_metadata_untrusted(metadata: bytes) -> dict[str, str]:
    """The metadata with which a stream was opened: an object of short texts, or nothing. Raises ControlError."""
    if not metadata:
        return {}
    found = _object_untrusted(metadata, "metadata")
    if wrong := _metadata(found):
        raise ControlError(f"metadata {wrong}")
    return found


def _object_untrusted(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:  # not UTF-8, not JSON, a name twice, nested too deep
        raise ControlError(f"{what} that is not JSON") from exc
    if not isinstance(found, dict):
        raise ControlError(f"{what} that is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


class Decoder:
    """Messages out of bytes, however these are cut. It keeps less than a message and what came with it.

    accepts: the types that the other end may send, FROM_AGENT or FROM_PROXY.
    """

    def __init__(self, accepts: tuple[type[Message], ...]) -> None:
        self._accepts = accepts
        self._buffer = bytearray()

    def receive_data(self, data: bytes | bytearray) -> None:
        """Then ask for messages until there is none."""
        self._buffer += data

    def maybe_message(self) -> Message | None:
        """The next message, None if more bytes are needed for it. Raises ControlError, and is of no use after that."""
        end = self._buffer.find(b"\n", 0, MAX_MESSAGE + 1)
        if end < 0:
            if len(self._buffer) > MAX_MESSAGE:
                raise ControlError(f"a message of more than {MAX_MESSAGE} bytes")
            return None
        message = decode_untrusted(bytes(self._buffer[:end]))
        if not isinstance(message, self._accepts):
            raise ControlError(f"{type(message).__name__.lower()} is not for this end to say")
        del self._buffer[: end + 1]
        return message

    def receive_eof(self) -> None:
        """Raises ControlError if the end cuts a message."""
        if self._buffer:
            raise ControlError("the end in the middle of a message")


class Pace:
    """How often something may happen: `burst` times at once, then `rate` times a second."""

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._filled = now

    def delay(self, now: float) -> float:
        """Seconds until it may happen once more; 0 for now."""
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, (1 - self._left) / self._rate)

    def take(self, now: float) -> bool:
        """Whether it may happen now; counts it if so."""
        if self.delay(now) > 0:
            return False
        self._left -= 1
        return True
