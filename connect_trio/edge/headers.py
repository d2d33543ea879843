"""What headers become on their way through: pure functions from parsed headers to lines to send.

Three kinds of names matter. Hop-by-hop headers end here (RFC 9110, section 7.6.1). Headers that Connect owns are
dropped whoever sent them, under every spelling that a tool could mistake for ours, and set last. Everything else
passes unchanged and in order. Framing headers are written by whoever relays the body.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from connect_trio.edge.framing import tool_policy, widened
from connect_trio.edge.path_headers import PathMode

Items = Sequence[tuple[bytes, bytes, bytes]]
"""Headers as httpio reads them: the name as it was written, the name in lower case, the value."""

NOTHING: frozenset[bytes] = frozenset()

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy",  # not hop-by-hop, but it becomes HTTP_PROXY in CGI programs ("httpoxy")
    )
)
_OWNED = frozenset((b"forwarded", b"x-real-ip", b"x-connect", b"x-forwarded"))
_OWNED_PREFIXES = (b"x-connect-", b"x-forwarded-")
# Tools that see headers as CGI or WSGI variables cannot tell "-" from "_", some not from "." or any other sign either.
_ALIASES = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)

# What `Connection: NAME` may not take away: a front proxy or a tool relies on these to be there if they were sent.
_END_TO_END = frozenset(
    (
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"origin",
        b"referer",
        b"range",
        b"expect",
        b"location",
        b"content-security-policy",
        b"x-frame-options",
    )
)
# A browser clears cookies for the whole registrable domain: one tool would log its visitors out of all Studios, and of
# Platform (Clear Site Data, section 3.1).
_NOT_A_TOOLS = frozenset((b"clear-site-data",))
_NOT_NAMES = frozenset((b"close", b"keep-alive", b"upgrade"))
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"Keep-Alive", b"close"))  # by far the most frequent ones

_COOKIE_NAMES = (
    *(b"connect_login", b"connect_session", b"connect_nonce", b"connect_prelogin"),
    *(b"connect_studio", b"connect_studio_nonce"),
)
OWN_COOKIES = frozenset(prefix + name for prefix in (b"", b"__Host-", b"__Secure-") for name in _COOKIE_NAMES)
"""Connect's own cookies, which neither reach a tool nor may be set by one."""
_OWN_COOKIES_FOLDED = frozenset(name.lower() for name in OWN_COOKIES)


class _Rule(enum.Enum):
    PASS = enum.auto()
    DROP = enum.auto()
    COOKIE = enum.auto()
    SET_COOKIE = enum.auto()
    LENGTH = enum.auto()
    POLICY = enum.auto()
    FRAME_OPTIONS = enum.auto()
    EXPECT = enum.auto()


_USUAL_NAME = 64
_NAMES_KEPT = 4096


class _Rules(dict[bytes, _Rule]):
    """What to do with a header, by its name in lower case. Peers choose names, and one may fill a whole head: only
    usual ones are kept."""

    def __init__(self, rule: Callable[[bytes], _Rule]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, name: bytes) -> _Rule:
        rule = self._rule(name)
        if len(name) <= _USUAL_NAME:
            if len(self) >= _NAMES_KEPT:
                self.clear()
            self[name] = rule
        return rule


_PASS = _Rule.PASS  # looked up for each header
_IN_REQUESTS = {b"cookie": _Rule.COOKIE, b"content-length": _Rule.LENGTH, b"expect": _Rule.EXPECT}
_IN_RESPONSES = {
    b"set-cookie": _Rule.SET_COOKIE,
    b"content-length": _Rule.LENGTH,
    b"content-security-policy": _Rule.POLICY,
    b"x-frame-options": _Rule.FRAME_OPTIONS,
}


def _request_rule(name: bytes) -> _Rule:
    canonical = name.translate(_ALIASES)
    if canonical in _OWNED or canonical.startswith(_OWNED_PREFIXES):
        return _Rule.DROP
    if canonical in _HOP_BY_HOP or (canonical != name and canonical in _END_TO_END):
        return _Rule.DROP
    return _IN_REQUESTS.get(name, _PASS)


def _response_rule(name: bytes) -> _Rule:
    return _Rule.DROP if name in _HOP_BY_HOP or name in _NOT_A_TOOLS else _IN_RESPONSES.get(name, _PASS)


_request_rules, _response_rules = _Rules(_request_rule), _Rules(_response_rule)


def values(items: Items, name: bytes) -> list[bytes]:
    """All values of a header; `name` is in lower case."""
    return [value for _, found, value in items if found == name]


def tokens(items: Items, name: bytes) -> list[bytes]:
    """The members of a comma-separated header, in lower case."""
    members = b",".join(values(items, name)).lower().split(b",")
    return [member for part in members if (member := part.strip())]


def nominated(items: Items) -> frozenset[bytes]:
    """Names that a Connection header declares hop-by-hop; those that are not its to take away are ignored."""
    for _, name, value in items:
        if name == b"connection" and value not in _PLAIN_CONNECTION:
            return frozenset(tokens(items, b"connection")) - _NOT_NAMES - _END_TO_END
    return NOTHING


def request_lines(items: Items, *, strip_cookies: frozenset[bytes] = NOTHING, expect: bool = True) -> list[bytes]:
    """The header lines for a tool, each with its CRLF, without framing and without what Connect sets itself.

    strip_cookies: cookies that stay here besides OWN_COOKIES. expect: whether an Expect header may pass.
    """
    dropped = nominated(items)
    lines = []
    for raw, name, value in items:
        rule = _request_rules[name]
        if rule is _PASS:
            if name not in dropped:
                lines.append(b"%b: %b\r\n" % (raw, value))
        elif rule is _Rule.COOKIE:
            kept = without_cookies(value, OWN_COOKIES | strip_cookies)
            if kept:
                lines.append(b"%b: %b\r\n" % (raw, kept))
        elif rule is _Rule.EXPECT and expect:
            lines.append(b"%b: %b\r\n" % (raw, value))
    return lines


def response_lines(
    items: Items,
    *,
    length: bool,
    ancestors: bytes | None = None,
    not_modified: bool = False,
    paths: PathMode | None = None,
) -> list[bytes]:
    """The header lines of a tool's answer for a visitor.

    length: whether Content-Length may pass. ancestors: who may show it in a frame, None where there is nothing to show.
    not_modified: whether it only refreshes what a browser has kept. paths: of a Studio below a path.
    """
    dropped = nominated(items)
    if paths is not None:
        items = paths.adapted(items)
    lines = []
    policies, options = [], []
    for raw, name, value in items:
        rule = _response_rules[name]
        if rule is _PASS or (rule is _Rule.LENGTH and length):
            if name not in dropped:
                lines.append(b"%b: %b\r\n" % (raw, value))
        elif rule is _Rule.SET_COOKIE:
            cookie = harmless_set_cookie(value)
            if cookie is not None:
                lines.append(b"%b: %b\r\n" % (raw, cookie))
        elif rule is _Rule.POLICY:
            policies.append(value)
            lines.append(b"%b: %b\r\n" % (raw, value if ancestors is None else widened(value, ancestors)))
        elif rule is _Rule.FRAME_OPTIONS:
            options.append(value)
    # A header of a 304 takes the place of all kept ones of that name (RFC 9111, section 3.2): ours alone would take the
    # tool's away.
    if ancestors is not None and (policies or not not_modified):
        policy = tool_policy(ancestors, policies=policies, options=options)
        lines.append(b"Content-Security-Policy: %b\r\n" % policy)
    return lines


def without_cookies(value: bytes, names: Iterable[bytes]) -> bytes:
    """A Cookie header's value without the cookies of these names; empty if none is left."""
    if not any(name in value for name in names):
        return value
    unwanted = frozenset(names)
    pairs = (pair.strip() for pair in value.split(b";"))
    return b"; ".join(pair for pair in pairs if pair and pair.partition(b"=")[0].strip() not in unwanted)


def harmless_set_cookie(value: bytes) -> bytes | None:
    """A tool's Set-Cookie without its Domain attribute; None if it must not be set at all.

    Without Domain a cookie stays on the Studio's own host, so that no tool can plant one on its siblings or on us.
    A cookie without a name is sent back as its bare value and could pose as ours (RFC 6265bis, section 5.7).
    """
    pair, *attributes = value.split(b";")
    name, equals, _ = pair.partition(b"=")
    name = name.strip()
    if not equals or not name or name.lower() in _OWN_COOKIES_FOLDED:
        return None
    kept = [item for item in attributes if item.partition(b"=")[0].strip().lower() != b"domain"]
    return value if len(kept) == len(attributes) else b";".join((pair, *kept))


@functools.lru_cache(maxsize=1024)
def identity_lines(subject: str, username: str) -> bytes:
    """X-Connect-Sub and X-Connect-User. Bytes that a header cannot carry, and "%", are percent-encoded (UTF-8)."""
    return b"X-Connect-Sub: %b\r\nX-Connect-User: %b\r\n" % (_encoded(subject), _encoded(username))


_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


def _encoded(text: str) -> bytes:
    return quote(text, safe=_SAFE).encode("ascii")


def upgrade_tokens(items: Items) -> tuple[bytes, ...]:
    """The protocols that a request asks to switch to, in lower case; none if it does not ask properly.

    Other HTTP versions and TLS are left out: inside them, requests would pass that nobody judges ("h2c smuggling").
    """
    if b"upgrade" not in tokens(items, b"connection"):
        return ()
    asked = tokens(items, b"upgrade")
    return tuple(name for name in asked if not name.startswith((b"h2", b"http", b"tls")))
