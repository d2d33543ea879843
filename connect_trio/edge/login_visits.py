"""From a cookie to a person: logins on Connect's own host, sessions on a Studio's host."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial

import attrs

from connect_trio.edge import login_cookies
from connect_trio.edge.gate import Headers
from connect_trio.edge.login_cookies import Cookies
from connect_trio.edge.login_ends import Logins, Visit
from connect_trio.edge.login_records import LoginRecords, StudioSession, digest
from connect_trio.edge.login_uses import Uses
from connect_trio.identity.cache import ReadThrough
from connect_trio.identity.refresh import Tokens
from connect_trio.routing.registry import RegistryUnavailable

_FRESH = 2.0  # seconds until a logout anywhere is noticed here
_CACHE_SIZE = 16384


@attrs.frozen
class StudioVisit:
    """A session on a Studio's host. key: digest of the cookie. visit: the login that it is of."""

    key: str
    session: StudioSession
    visit: Visit


class _Gone(Exception):
    """There is no such session, or its login has ended."""


class Visits:
    """Looks cookies up. stale: seconds that known sessions stay good while the Store is away."""

    def __init__(
        self,
        records: LoginRecords,
        logins: Logins,
        uses: Uses,
        cookies: Cookies,
        *,
        stale: float,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._logins = logins
        self._uses = uses
        self._cookies = cookies
        self._sessions: ReadThrough[str, StudioVisit] = ReadThrough(
            fresh=_FRESH, stale=stale, size=_CACHE_SIZE, away=RegistryUnavailable, keep=lambda _: True, clock=clock
        )

    async def own(self, headers: Headers) -> Visit | None:
        """Who is logged in on Connect's own host. Raises RegistryUnavailable."""
        secret = self._cookies.secret(headers, login_cookies.LOGIN)
        if secret is None:
            return None
        visit = await self._logins.get(digest(secret))
        if visit is not None:
            self._uses.touch(visit)
        return visit

    async def studio(self, headers: Headers, session: str) -> StudioVisit | None:
        """Who visits this Studio; no checkpoint if that is cached. Raises RegistryUnavailable if nothing is known."""
        secret = self._cookies.secret(headers, login_cookies.SESSION)
        return await self._studio(digest(secret), session) if secret is not None else None

    async def below_path(self, headers: Headers, session: str) -> StudioVisit | None:
        """As `studio`, of a Studio below a path of Connect's own host.

        Its cookie is good only beside the login that it was made from: siblings and other Studios there can set a
        cookie of its name, but not that of the login.
        """
        secret = self._cookies.secret(headers, login_cookies.STUDIO)
        login = self._cookies.secret(headers, login_cookies.LOGIN)
        if secret is None or login is None:
            return None
        visit = await self._studio(digest(secret), session)
        return visit if visit is not None and hmac.compare_digest(visit.session.login, digest(login)) else None

    async def _studio(self, key: str, session: str) -> StudioVisit | None:
        try:
            visit = await self._sessions.get(key, partial(self._load, key))
        except _Gone:
            self._sessions.forget(key)
            return None
        # A cookie of one Studio is worth nothing at another one, however it came there.
        if visit.session.session != session:
            return None
        self._uses.touch(visit.visit, key)
        return visit

    def forget(self, studio: str) -> None:
        """Look this session (a digest) up anew when it is next asked for."""
        self._sessions.forget(studio)

    async def end(self, *, login: str, studio: str | None = None, mark: bool = True) -> Tokens | None:
        """End a login, and with it all its sessions within seconds; `studio` at once. Its tokens.

        mark: whether what is open of them ends, too, and of other logins of the same browser. Raises
        RegistryUnavailable.
        """
        self._uses.forget(login)
        if studio is not None:
            self._sessions.forget(studio)
            await self._records.delete(StudioSession, studio)
        return await self._logins.end(login, mark=mark, browser=mark)

    async def _load(self, key: str) -> StudioVisit:
        session = await self._records.get(StudioSession, key)
        visit = await self._logins.get(session.login) if session is not None else None
        if session is None or visit is None:
            raise _Gone
        return StudioVisit(key, session, visit)
