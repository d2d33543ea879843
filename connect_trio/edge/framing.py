"""Who may show a page inside a page of theirs, as browsers are told it (Content-Security-Policy, frame-ancestors).

Pages of Connect's own host are in nobody's frame. Those of a Studio's host, the tool's and Connect's alike, may be in
a frame of the Studio itself and of the origins in CONNECT_FRAME_ANCESTORS. A browser asks each page above the frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from connect_trio.edge.gate import NOBODY, Headers

_FRAMES = frozenset((b"iframe", b"frame", b"embed", b"object", b"fencedframe"))
_DIRECTIVE = b"frame-ancestors"
_SELF = b"'self'"


def studio_ancestors(origins: Sequence[str]) -> bytes:
    """The sources of `frame-ancestors` for Studios. origins: of whose pages may show them, besides their own."""
    return b" ".join((_SELF, *(origin.encode("ascii") for origin in origins)))


def page_policy(policy: str, ancestors: bytes) -> Headers:
    """The headers with a policy for a page of Connect's own, and with who may frame it."""
    headers: Headers = ((b"Content-Security-Policy", b"%b; frame-ancestors %b" % (policy.encode("ascii"), ancestors)),)
    return (*headers, (b"X-Frame-Options", b"DENY")) if ancestors == NOBODY else headers


def tool_policy(ancestors: bytes, *, policies: Sequence[bytes], options: Sequence[bytes]) -> bytes:
    """The policy to add to a tool's answer, whose own `policies` stay: several apply together, the strictest wins.

    options: its X-Frame-Options. Browsers ignore these beside a frame-ancestors, and ours is one. So what they say
    stricter than we do has to be said by ours, unless the tool has a frame-ancestors itself.
    """
    denied = any(token.strip() == b"deny" for value in options for token in value.lower().split(b","))
    if denied and not any(_names_ancestors(policy) for policy in policies):
        ancestors = NOBODY
    return b"frame-ancestors %b" % ancestors


def widened(policy: bytes, ancestors: bytes) -> bytes:
    """A tool's policy in which its own origin stands for all that may frame a Studio.

    Tools that forbid strangers to frame them say `frame-ancestors 'self'`, since they know nothing of Platform, whose
    pages show them. What a tool says about others, or about nobody at all, is left as it is.
    """
    if not _names_ancestors(policy):
        return policy
    parts = [
        b";".join(_widened_directive(directive, ancestors) for directive in part.split(b";"))
        for part in policy.split(b",")
    ]
    return b",".join(parts).strip()


def _widened_directive(directive: bytes, ancestors: bytes) -> bytes:
    name, *sources = directive.split() or [b""]
    if name.lower() != _DIRECTIVE or _SELF not in (source.lower() for source in sources):
        return directive
    others = [source for source in sources if source.lower() != _SELF]
    return b" " + b" ".join((name, ancestors, *others))


def _names_ancestors(policy: bytes) -> bool:
    return _DIRECTIVE in policy.lower()


def is_frame(destination: bytes | None) -> bool:
    """Whether a value of Sec-Fetch-Dest says that the answer is shown inside another page."""
    return destination in _FRAMES
