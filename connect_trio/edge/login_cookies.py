"""Connect's own cookies: reading them strictly, setting them narrowly.

All are host-only (no Domain), HttpOnly, SameSite=Lax and for the whole host. Over https they are Secure and carry the
`__Host-` prefix, so that no sibling Studio can set one for us. Where that prefix cannot be had (plain http on a
developer's machine), a cookie that occurs twice is a cookie that somebody else may have set: it counts as absent.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from connect_trio.edge.gate import Headers

LOGIN: Final = "connect_login"
PRELOGIN: Final = "connect_prelogin"
SESSION: Final = "connect_session"
NONCE: Final = "connect_nonce"
_NAMES = (LOGIN, PRELOGIN, SESSION, NONCE)
_PREFIX = "__Host-"

OWN_NAMES: Final = frozenset((prefix + name).encode() for name in _NAMES for prefix in ("", _PREFIX))
"""Under every name that they may have: what must not reach a tool."""

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_NONCE = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,2})\.([0-9]{1,11})")


@attrs.frozen
class BrowserNonce:
    """Ties a transfer to the browser that began it, and counts transfers that led nowhere.

    secret: what the tie is. rounds: transfers since `since` (Unix time) after which no session cookie came back.
    """

    secret: str
    rounds: int
    since: int

    def serialise(self) -> str:
        return f"{self.secret}.{min(self.rounds, 99)}.{self.since}"


class Cookies:
    """Names and attributes of the cookies. secure: whether browsers reach us by https."""

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure
        self._prefix = _PREFIX if secure else ""

    def secret(self, headers: Headers, name: str) -> str | None:
        """The secret in a cookie of ours; None if there is none, or not exactly one."""
        value = self._single(headers, name)
        return value if value is not None and _SECRET.fullmatch(value) else None

    def nonce(self, headers: Headers) -> BrowserNonce | None:
        value = self._single(headers, NONCE)
        match = _NONCE.fullmatch(value) if value is not None else None
        return BrowserNonce(match[1], int(match[2]), int(match[3])) if match is not None else None

    def set(self, name: str, value: str, *, max_age: int | None = None) -> Headers:
        """max_age: seconds; None: until the browser is closed."""
        age = f"; Max-Age={max_age}" if max_age is not None else ""
        secure = "; Secure" if self._secure else ""
        cookie = f"{self._prefix}{name}={value}; Path=/{age}; HttpOnly; SameSite=Lax{secure}"
        return ((b"Set-Cookie", cookie.encode("ascii")),)

    def clear(self, *names: str) -> Headers:
        return tuple(header for name in names for header in self.set(name, "", max_age=0))

    def _single(self, headers: Headers, name: str) -> str | None:
        wanted = (self._prefix + name).encode()
        found = [
            value.strip()
            for header, line in headers
            if header == b"cookie"
            for key, _, value in (pair.partition(b"=") for pair in line.split(b";"))
            if key.strip() == wanted
        ]
        return found[0].decode("latin-1") if len(found) == 1 else None
