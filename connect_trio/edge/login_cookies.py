"""Connect's own cookies: reading them strictly, setting them narrowly.

All are host-only (no Domain), HttpOnly and SameSite=Lax. Those for a whole host carry the `__Host-` prefix over https,
so that no sibling Studio can set one for us. Where that prefix cannot be had (plain http on a developer's machine), a
cookie that occurs twice is a cookie that somebody else may have set: it counts as absent.

Those of a Studio below a path are for that path. `__Host-` forbids paths, so theirs is `__Secure-`, which a sibling can
set as well: they count only together with the login that they were made from (`login_visits.py`).
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
STUDIO: Final = "connect_studio"
STUDIO_NONCE: Final = "connect_studio_nonce"
_NAMES = (LOGIN, PRELOGIN, SESSION, NONCE, STUDIO, STUDIO_NONCE)
_WITH_PATH = (STUDIO, STUDIO_NONCE)
_HOST, _SECURE = "__Host-", "__Secure-"

OWN_NAMES: Final = frozenset((prefix + name).encode() for name in _NAMES for prefix in ("", _HOST, _SECURE))
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

    def secret(self, headers: Headers, name: str) -> str | None:
        """The secret in a cookie of ours; None if there is none, or not exactly one."""
        value = self._single(headers, name)
        return value if value is not None and _SECRET.fullmatch(value) else None

    def nonce(self, headers: Headers, name: str = NONCE) -> BrowserNonce | None:
        value = self._single(headers, name)
        match = _NONCE.fullmatch(value) if value is not None else None
        return BrowserNonce(match[1], int(match[2]), int(match[3])) if match is not None else None

    def set(self, name: str, value: str, *, max_age: int | None = None, path: str = "/") -> Headers:
        """max_age: seconds; None: until the browser is closed. path: of a Studio, with a slash at its end."""
        age = f"; Max-Age={max_age}" if max_age is not None else ""
        secure = "; Secure" if self._secure else ""
        cookie = f"{self._full(name)}={value}; Path={path}{age}; HttpOnly; SameSite=Lax{secure}"
        return ((b"Set-Cookie", cookie.encode("ascii")),)

    def clear(self, *names: str, path: str = "/") -> Headers:
        return tuple(header for name in names for header in self.set(name, "", max_age=0, path=path))

    def _full(self, name: str) -> str:
        if not self._secure:
            return name
        return (_SECURE if name in _WITH_PATH else _HOST) + name

    def _single(self, headers: Headers, name: str) -> str | None:
        wanted = self._full(name).encode()
        found = [
            value.strip()
            for header, line in headers
            if header == b"cookie"
            for key, _, value in (pair.partition(b"=") for pair in line.split(b";"))
            if key.strip() == wanted
        ]
        return found[0].decode("latin-1") if len(found) == 1 else None
