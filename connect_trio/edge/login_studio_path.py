"""A Studio below a path of Connect's own host: from the login there to a cookie for that path.

The login's cookie comes along with every request, so that no transfer is needed. It alone opens no Studio: a visitor
has to have opened this one as a page. So what a script of one Studio asks of another is refused unless the visitor has
that one open, too. More cannot be had on one origin (docs/security.md).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

from connect_trio.edge import login_cookies
from connect_trio.edge.gate import Headers, Reply, VisitorRequest
from connect_trio.edge.login_frames import (
    WINDOW_PATH,
    Why,
    in_frame,
    is_cross_site,
    is_framed_by_stranger,
    open_outside,
    why_of_untrusted,
)
from connect_trio.edge.login_limit import LoginLimit
from connect_trio.edge.login_pages import Link, cookies_blocked, redirect, too_many_logins
from connect_trio.edge.login_records import PENDING_LIFE, Ticket, digest
from connect_trio.edge.login_requests import return_path
from connect_trio.edge.login_rounds import Rounds
from connect_trio.edge.login_state import LoginState
from connect_trio.routing.names import HostNames, session_of, studio_base

Handler = Callable[[VisitorRequest, str, Mapping[str, str]], Awaitable[Reply]]


class StudioPathPages:
    """`/_studio/<label>/_connect/...` on Connect's own host. wall_clock: Unix time."""

    def __init__(
        self,
        *,
        names: HostNames,
        state: LoginState,
        limit: LoginLimit,
        wall_clock: Callable[[], float],
    ) -> None:
        self._names = names
        self._records = state.records
        self._logins = state.logins
        self._cookies = state.cookies
        self._visits = state.visits
        self._limit = limit
        self._rounds = Rounds(state.cookies, login_cookies.STUDIO_NONCE, wall_clock=wall_clock)
        self.handlers: Mapping[tuple[bytes, str], Handler] = {
            (b"GET", WINDOW_PATH): self.window,
            (b"GET", "/_connect/logout"): self.log_out,
        }

    async def enter(self, request: VisitorRequest, label: str) -> Reply:
        """Open the Studio for a browser, by way of the login if need be. Raises RegistryUnavailable."""
        path = return_path(request.target[len(request.base) :])
        if in_frame(request) and (is_cross_site(request) or is_framed_by_stranger(request, self._names.own_origin)):
            return open_outside(self._names.studio_path_url(label, path), Why.SITE).reply(request)
        nonce = self._rounds.nonce(request.headers)
        returned = self._cookies.secret(request.headers, login_cookies.STUDIO) is not None
        if self._rounds.are_spent(nonce, returned=returned):
            return self._blocked(request, label, path)
        round_made = self._rounds.set(self._rounds.one_more(nonce), path=_cookie_path(label))
        visit = await self._visits.own(request.headers)
        if visit is not None:
            return await self.open(visit.key, label, path, headers=round_made)
        if not self._limit.admits(request.client):
            return too_many_logins().reply(request)
        ticket = Ticket(label=label, path=path, bind=digest(nonce.secret), below_path=True)
        name = await self._records.add(ticket, ttl=PENDING_LIFE)
        url = f"{self._names.own_origin}/_connect/login?{urlencode({'to': label, 'ticket': name})}"
        return redirect(url, headers=round_made)

    async def open(self, login: str, label: str, path: str, *, headers: Headers = ()) -> Reply:
        """To the Studio, with a cookie for it. login: digest of its secret. path: the Studio's, as in a ticket."""
        url = self._names.studio_path_url(label, path)
        visit = await self._logins.get(login)
        if visit is None:
            return redirect(url, headers=headers)  # begin again
        secret = await self._logins.open_studio(visit, session_of(label))
        age = self._logins.cookie_age(visit.login)
        cookie = self._cookies.set(login_cookies.STUDIO, secret, max_age=age, path=_cookie_path(label))
        return redirect(url, headers=cookie + headers)

    async def window(self, request: VisitorRequest, label: str, query: Mapping[str, str]) -> Reply:
        """Where a login in a frame ends that could not be: `why`, and the `ticket` that it was begun with."""
        name = query.get("ticket", "")
        ticket = await self._records.get(Ticket, digest(name)) if name else None
        nonce = self._cookies.nonce(request.headers, login_cookies.STUDIO_NONCE)
        path = "/"
        if ticket is not None and nonce is not None and ticket.label == label:
            path = ticket.path if hmac.compare_digest(digest(nonce.secret), ticket.bind) else "/"
        url = self._names.studio_path_url(label, path)
        if not in_frame(request):
            return redirect(url)
        return open_outside(url, why_of_untrusted(query.get("why"))).reply(request)

    async def log_out(self, request: VisitorRequest, label: str, _: Mapping[str, str]) -> Reply:
        """The one place for it is Connect's own: what is below a Studio's path, its service worker can read."""
        return redirect(self._names.own_origin + "/_connect/logout")

    def _blocked(self, request: VisitorRequest, label: str, path: str) -> Reply:
        clear = self._cookies.clear(login_cookies.STUDIO_NONCE, path=_cookie_path(label))
        if in_frame(request):
            return open_outside(self._names.studio_path_url(label, path), Why.COOKIES, headers=clear).reply(request)
        return cookies_blocked(Link("Try again", self._names.studio_path_url(label)), headers=clear).reply(request)


def _cookie_path(label: str) -> str:
    return studio_base(label) + "/"
