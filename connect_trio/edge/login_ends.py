"""Logins from their beginning to their end: unused for too long, too old, logged out of here or at Platform.

A login ends by its record's end, and also by a *mark* that says so: of the login itself, of its browser (which may have
several, since tabs log in each for itself), of Platform's session, or of its user until some time. Marks are what
back-channel logouts leave behind: whoever looks a login up compares it with them, so nobody needs a list of a user's
logins that could miss one which is just being made. And a mark tells a login that has ended from one that a Store has
merely lost, for which nobody's open streams are to be cut.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Final

import attrs

from connect_trio.edge.login_records import Login, LoginRecords, StudioSession, digest
from connect_trio.identity.refresh import Tokens
from connect_trio.identity.tokens_logout import LogoutToken
from connect_trio.routing.registry import Store

_SPARE: Final = 3600.0  # seconds that marks outlive what they speak of
_MARKS: Final = 4  # that a login is compared with
_FIRST_CLAIM: Final = 10.0  # until a logout that was not carried out may be told of again


@attrs.frozen(kw_only=True)
class Lives:
    """How long logins last, in seconds. idle: without being used. longest: at most, from the login on."""

    idle: float = 24 * 3600.0
    longest: float = 7 * 24 * 3600.0

    def left(self, created: float, now: float, *, unused: float = 0.0) -> float:
        """Seconds that a login of `created` has left if it was last used `unused` seconds ago; over if not positive."""
        return min(self.idle - unused, created + self.longest - now)


@attrs.frozen
class Visit:
    """A login that is alive. key: digest of its secret."""

    key: str
    login: Login


class Logins:
    """The logins of all proxies. All methods raise RegistryUnavailable. wall_clock: Unix time."""

    def __init__(self, store: Store, records: LoginRecords, lives: Lives, *, wall_clock: Callable[[], float]) -> None:
        self._store = store
        self._records = records
        self._lives = lives
        self._now = wall_clock

    async def begin(self, login: Login, tokens: Tokens) -> str:
        """Keep a new login; its secret."""
        ttl = self._lives.left(login.created, self._now())
        secret = await self._records.add(login, ttl=ttl)
        await self._records.put(digest(secret), tokens, ttl=ttl)
        return secret

    async def open_studio(self, visit: Visit, session: str) -> str:
        """Let the visitor of a login into a Studio; the secret for that."""
        opened = StudioSession(
            subject=visit.login.subject,
            username=visit.login.username,
            session=session,
            created=self._now(),
            login=visit.key,
        )
        return await self._records.add(opened, ttl=self._lives.left(visit.login.created, self._now()))

    def cookie_age(self, login: Login) -> int:
        """Seconds that a browser is to keep a cookie of this login: as long as it may last if it is used."""
        return max(int(login.created + self._lives.longest - self._now()), 1)

    async def get(self, key: str) -> Visit | None:
        """The login, if it is alive."""
        login = await self._records.get(Login, key)
        if login is None:
            return None
        visit = Visit(key, login)
        if await self.ended([visit]):
            await self.end(key, mark=False)  # a refresh token is of no use to anybody any more
            return None
        return visit

    async def ended(self, visits: Sequence[Visit]) -> list[Visit]:
        """Those that are certainly over: too old, or marked."""
        marks = await self._store.get_many([name for visit in visits for name in _names(visit)])
        each = (marks[at : at + _MARKS] for at in range(0, len(marks), _MARKS))
        return [visit for visit, found in zip(visits, each, strict=True) if self._is_over(visit.login, found)]

    def _is_over(self, login: Login, marks: Sequence[bytes | None]) -> bool:
        by_itself, by_browser, by_session, by_user = marks
        if self._now() >= login.created + self._lives.longest or by_itself is not None or by_browser is not None:
            return True
        if login.sid is not None and by_session is not None and by_session in (b"", login.subject.encode()):
            return True
        until = by_user if login.sid is not None else max((by_user, by_session), key=_time)
        return until is not None and login.issued <= _time(until)

    async def prolong(self, visit: Visit, studios: Collection[str], *, unused: float) -> None:
        """It was used `unused` seconds ago, and these sessions of Studios (digests) as well."""
        ttl = self._lives.left(visit.login.created, self._now(), unused=unused)
        if ttl <= 0:
            return
        for kind in (Login, Tokens):
            await self._records.prolong(kind, visit.key, ttl=ttl)
        for studio in studios:
            await self._records.prolong(StudioSession, studio, ttl=ttl)

    async def end(self, key: str, *, mark: bool = True, browser: bool = False) -> Tokens | None:
        """End a login; its tokens. mark: whether what is open of it is to end too, within seconds. browser: and other
        logins of the same person in the same browser."""
        if mark:
            await self._set(_mark("login", key), b"")
        login = await self._records.get(Login, key) if browser else None
        if login is not None and login.browser:
            await self._set(_browser_mark(login), b"")
        await self._records.delete(Login, key)
        return await self._records.take(Tokens, key)

    async def told(self, logout: LogoutToken) -> bool:
        """Platform tells of a logout. False: it told so before with the same token."""
        used = f"login:logout:{digest(logout.token_id)}"
        # For a moment only, until it is carried out: if that fails, Platform may say it again.
        if not await self._store.claim(used, secrets.token_bytes(16), ttl=_FIRST_CLAIM):
            return False
        if logout.sid is not None:
            await self._set(_mark("sid", logout.sid), (logout.subject or "").encode())
        if logout.subject is not None:
            # A login of which we know no session may be the one that is meant.
            kind = "sub" if logout.sid is None else "sub-without-sid"
            await self._mark_user(_mark(kind, logout.subject), logout.issued)
        await self._store.prolong(used, ttl=max(logout.usable_until - self._now(), 1))
        return True

    async def _mark_user(self, name: str, until: float) -> None:
        """Logins that Platform issued until then are over. Told late, an older time does not replace a newer one."""
        before = await self._store.get(name)
        await self._set(name, b"%d" % max(math.ceil(until), int(_time(before))))

    async def _set(self, name: str, value: bytes) -> None:
        await self._store.put(name, value, ttl=self._lives.longest + _SPARE)


def _names(visit: Visit) -> list[str]:
    """Of the marks that a login is compared with."""
    login = visit.login
    session = _mark("sub-without-sid", login.subject) if login.sid is None else _mark("sid", login.sid)
    return [_mark("login", visit.key), _browser_mark(login), session, _mark("sub", login.subject)]


def _browser_mark(login: Login) -> str:
    """Of one person: where browsers cannot keep a cookie apart (plain http), others may have the same one."""
    return _mark("browser", f"{login.browser} {login.subject}")


def _mark(kind: str, name: str) -> str:
    return f"login:ended:{kind}:{digest(name)}"


def _time(mark: bytes | None) -> float:
    return float(mark) if mark is not None and mark.isdigit() else 0.0
