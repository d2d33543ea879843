"""Ways to the login and back that led nowhere, counted by the browser itself, so that none goes round for ever."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from connect_trio.edge.gate import Headers
from connect_trio.edge.login_cookies import BrowserNonce, Cookies
from connect_trio.edge.login_records import PENDING_LIFE, new_secret

_MAX = 2
_MAX_WITH_COOKIE = 5
_WINDOW = 60  # seconds


class Rounds:
    """cookie: name of the cookie with the browser's nonce. wall_clock: Unix time."""

    def __init__(self, cookies: Cookies, cookie: str, *, wall_clock: Callable[[], float]) -> None:
        self._cookies = cookies
        self._cookie = cookie
        self._now = wall_clock

    def nonce(self, headers: Headers) -> BrowserNonce:
        """The browser's nonce, which other tabs may be waiting with too, or a new one."""
        nonce = self._cookies.nonce(headers, self._cookie)
        return self.counted(nonce) if nonce is not None else BrowserNonce(new_secret(), 0, int(self._now()))

    def counted(self, nonce: BrowserNonce) -> BrowserNonce:
        """Rounds of long ago do not count."""
        now = int(self._now())
        return nonce if now - nonce.since <= _WINDOW else attrs.evolve(nonce, rounds=0, since=now)

    def one_more(self, nonce: BrowserNonce) -> BrowserNonce:
        counted = self.counted(nonce)
        return attrs.evolve(counted, rounds=counted.rounds + 1)

    def are_spent(self, nonce: BrowserNonce, *, returned: bool) -> bool:
        """Whether this browser has gone round often enough. returned: whether it sent a session cookie, though one that
        is not good: that of a login that ended is no sign of a circle before long."""
        return nonce.rounds >= (_MAX_WITH_COOKIE if returned else _MAX)

    def set(self, nonce: BrowserNonce, *, path: str = "/") -> Headers:
        return self._cookies.set(self._cookie, nonce.serialise(), max_age=int(PENDING_LIFE), path=path)
