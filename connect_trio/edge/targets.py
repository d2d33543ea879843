"""What a request is aimed at: the request target, Connect's reserved paths, the origin of a WebSocket. Pure."""

from __future__ import annotations

import enum
import posixpath
import re
from urllib.parse import unquote_to_bytes

from connect_trio.edge.headers import Items, values

_ABSOLUTE = re.compile(rb"https?://([^/?]*)([/?].*)?", re.IGNORECASE)
_RESERVED = b"/_connect"
_DECODINGS = 3
TUNNEL_PATH = b"/_connect/tunnel"


class BadTarget(ValueError):
    """The request target is malformed or contradicts the Host header (RFC 9112, section 3.2: answer 400)."""


def origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """The target as it is sent to a tool: path and query, byte for byte as they came.

    An absolute URL must name the same host and port as the Host header: two readers that each believe another one of
    the two would disagree on whose request this is. Raises BadTarget.
    """
    if b"#" in target:
        raise BadTarget("a request target has no fragment")
    if target.startswith(b"/"):
        return target
    if target == b"*":
        if method == b"OPTIONS":
            return target
        raise BadTarget("the target * is for OPTIONS only")
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadTarget("the target is neither a path nor an http URL")
    if match[1].lower() != host.lower():
        raise BadTarget("the URL in the request line and the Host header name different hosts")
    rest: bytes = match[2] or b""
    if not rest:
        return b"*" if method == b"OPTIONS" else b"/"
    return rest if rest.startswith(b"/") else b"/" + rest


class Reach(enum.Enum):
    """Where a path leads."""

    TOOL = enum.auto()
    OWN = enum.auto()
    ALIAS = enum.auto()


def reach(target: bytes) -> Reach:
    """OWN for Connect's reserved paths, literally; ALIAS for another spelling of one; TOOL for everything else.

    Paths reach a tool as they are, so a tool would see an alias as it was written. It is refused nevertheless: what
    stands before us or behind us may normalise paths, and then one request would mean two things.
    """
    if target.startswith(_RESERVED) and target[len(_RESERVED) : len(_RESERVED) + 1] in (b"", b"/", b"?"):
        return Reach.OWN
    path = target.partition(b"?")[0]
    for _ in range(_DECODINGS):
        if b"%" not in path:
            break
        path = unquote_to_bytes(path)
    if b"_connect" not in path.lower():
        return Reach.TOOL
    # Some take what follows a semicolon for parameters of a segment.
    names = (segment.partition(b";")[0] for segment in path.replace(b"\\", b"/").lower().split(b"/"))
    path = posixpath.normpath(b"/" + b"/".join(names).lstrip(b"/"))
    return Reach.ALIAS if path == _RESERVED or path.startswith(_RESERVED + b"/") else Reach.TOOL


def origin_refusal(items: Items, *, own_origin: str, scheme: str, host: bytes) -> str | None:
    """Why an upgrade is refused for where it was asked from, or None: the defence against cross-site WebSockets.

    A browser sends Origin with each WebSocket. It must be this Studio's own origin: as CONNECT_PROXY_URL has it, or
    with the port under which the browser reached us (`host`, which is already known to be this Studio's). A sibling
    Studio is foreign, "null" is foreign. Without Origin it is no browser, unless it also sent Fetch Metadata
    (Sec-Fetch-*), which only browsers do.
    """
    origins = values(items, b"origin")
    if len(origins) > 1:
        return "there is more than one Origin header"
    if not origins:
        if any(name.startswith(b"sec-fetch-") for _, name, _ in items):
            return "a browser must say by an Origin header which page asks"
        return None
    origin = origins[0].lower()
    if origin in (own_origin.encode("ascii"), scheme.encode("ascii") + b"://" + host.lower()):
        return None
    return "a page of another origin asked for it"
