"""Studios below paths of Connect's own host: `/_studio/<label>/...`. Pure.

Only the literal spelling leads to a Studio. Every other one that some reader could take for it, and every path below a
Studio that some reader could take for one outside, leads nowhere: what stands before us or behind us may decode or
normalise paths, and browsers decide by them which cookies they send.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

import attrs

from connect_trio.routing.names import session_of, studio_base

_STUDIO = re.compile(rb"/_studio/(a[0-9a-f]{8})(?=[/?]|$)")
_DOT = re.compile(rb"%2e", re.IGNORECASE)
_ESCAPES = (b"..", b"%", b"\\")
_DECODINGS = 3


@attrs.frozen
class StudioPath:
    """A request target that belongs to a Studio. base: "/_studio/a23ce7967". rest: what follows, from its "/" on."""

    label: str
    base: str
    rest: bytes

    @property
    def session(self) -> str:
        return session_of(self.label)


@attrs.frozen
class SlashMissing:
    """The very path of a Studio; relative links of its pages need the slash. location: with it, and with the query."""

    location: str


def studio_path(target: bytes) -> StudioPath | SlashMissing | None:
    """Which Studio a request target (in origin form) on Connect's own host is for; None if for none."""
    match = _STUDIO.match(target)
    if match is None:
        return None
    label = match[1].decode("ascii")
    base, rest = studio_base(label), target[match.end() :]
    if not rest.startswith(b"/"):
        return SlashMissing(f"{base}/{rest.decode('latin-1')}") if rest.isascii() else None
    return None if _may_leave(rest.partition(b"?")[0]) else StudioPath(label, base, rest)


def _may_leave(path: bytes) -> bool:
    """Whether any reader could find more ".." than folders before it."""
    if not any(escape in path for escape in _ESCAPES):
        return False
    return any(_leaves(reading) for reading in _readings(path))


def _readings(path: bytes) -> Iterator[bytes]:
    """As it is, with its dots decoded (as browsers do), decoded again and again; each with either kind of slash."""
    for _ in range(_DECODINGS + 1):
        for reading in (path, _DOT.sub(b".", path)):
            yield reading
            yield reading.replace(b"\\", b"/")
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        path = decoded


def _leaves(path: bytes) -> bool:
    depth = 0
    for segment in path.split(b"/"):
        name = segment.partition(b";")[0]  # some take what follows for parameters
        if name == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif name not in (b"", b"."):
            depth += 1
    return False
