"""A Studio's host: sending strangers to the login, and turning a transfer code into a session cookie."""

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
from connect_trio.edge.login_logout import Logout
from connect_trio.edge.login_pages import Link, cookies_blocked, login_failed, redirect, too_many_logins
from connect_trio.edge.login_records import (
    PENDING_LIFE,
    Ticket,
    Transfer,
    digest,
)
from connect_trio.edge.login_requests import return_path
from connect_trio.edge.login_rounds import Rounds
from connect_trio.edge.login_state import LoginState
from connect_trio.routing.names import HostNames, session_of

Handler = Callable[[VisitorRequest, str, Mapping[str, str]], Awaitable[Reply]]


class StudioHostPages:
    """`/_connect/...` on the hosts of Studios. wall_clock: Unix time."""

    def __init__(
        self,
        *,
        names: HostNames,
        state: LoginState,
        logout: Logout,
        limit: LoginLimit,
        wall_clock: Callable[[], float],
    ) -> None:
        self._names = names
        self._records = state.records
        self._logins = state.logins
        self._cookies = state.cookies
        self._visits = state.visits
        self._logout = logout
        self._limit = limit
        self._rounds = Rounds(state.cookies, login_cookies.NONCE, wall_clock=wall_clock)
        self.handlers: Mapping[tuple[bytes, str], Handler] = {
            (b"GET", "/_connect/transfer"): self.transfer,
            (b"GET", WINDOW_PATH): self.window,
            (b"GET", "/_connect/logout"): self.ask_logout,
            (b"POST", "/_connect/logout"): self.log_out,
        }

    async def invite(self, request: VisitorRequest, label: str) -> Reply:
        """Send a browser to the login, to come back to what it asked for. Raises RegistryUnavailable."""
        if in_frame(request) and (
            is_cross_site(request) or is_framed_by_stranger(request, self._names.studio_origin(label))
        ):
            url = self._names.studio_url(label, return_path(request.target))
            return open_outside(url, Why.SITE).reply(request)
        nonce = self._rounds.nonce(request.headers)
        returned = self._cookies.secret(request.headers, login_cookies.SESSION) is not None
        if self._rounds.are_spent(nonce, returned=returned):
            return self._blocked(request, label, return_path(request.target))
        if not self._limit.admits(request.client):
            return too_many_logins().reply(request)
        ticket = Ticket(label=label, path=return_path(request.target), bind=digest(nonce.secret))
        name = await self._records.add(ticket, ttl=PENDING_LIFE)
        url = f"{self._names.own_origin}/_connect/login?{urlencode({'to': label, 'ticket': name})}"
        return redirect(url, headers=self._rounds.set(nonce))

    async def transfer(self, request: VisitorRequest, label: str, query: Mapping[str, str]) -> Reply:
        """`code`: used once, within 30 s, by the browser that asked for it."""
        session = session_of(label)
        code = query.get("code", "")
        transfer = await self._records.take(Transfer, digest(code)) if code else None
        visit = await self._visits.studio(request.headers, session)
        if transfer is None or transfer.session != session:
            if visit is not None:
                return redirect(self._names.studio_url(label))
            reason = "This address works once and for half a minute, and it did so already."
            return login_failed(reason, Link("Open the Studio", self._names.studio_url(label))).reply(request)
        back = self._names.studio_url(label, transfer.path)
        nonce = self._cookies.nonce(request.headers)
        bound = nonce is not None and hmac.compare_digest(digest(nonce.secret), transfer.bind)
        if not bound and visit is not None:
            return redirect(back)  # another tab was faster
        if nonce is None:
            return self._blocked(request, label, transfer.path)
        round_made = self._rounds.set(self._rounds.one_more(nonce))
        login = await self._logins.get(transfer.login)
        if not bound or login is None:
            return redirect(back, headers=round_made)  # begin again, with what the browser has now
        secret = await self._logins.open_studio(login, session)
        cookie = self._cookies.set(login_cookies.SESSION, secret, max_age=self._logins.cookie_age(login.login))
        return redirect(back, headers=cookie + round_made)

    async def window(self, request: VisitorRequest, label: str, query: Mapping[str, str]) -> Reply:
        """Where a login in a frame ends that could not be: `why`, and the `ticket` that it was begun with."""
        name = query.get("ticket", "")
        ticket = await self._records.get(Ticket, digest(name)) if name else None
        nonce = self._cookies.nonce(request.headers)
        path = "/"
        if ticket is not None and nonce is not None and ticket.label == label:
            path = ticket.path if hmac.compare_digest(digest(nonce.secret), ticket.bind) else "/"
        url = self._names.studio_url(label, path)
        if not in_frame(request):
            return redirect(url)
        return open_outside(url, why_of_untrusted(query.get("why"))).reply(request)

    async def ask_logout(self, request: VisitorRequest, label: str, _: Mapping[str, str]) -> Reply:
        visit = await self._visits.studio(request.headers, session_of(label))
        if visit is None:
            return self._logout.done(request, clear=self._clear())
        return self._logout.ask(request, visit.session.username)

    async def log_out(self, request: VisitorRequest, label: str, _: Mapping[str, str]) -> Reply:
        refusal = self._logout.refusal(request)
        if refusal is not None:
            return refusal
        visit = await self._visits.studio(request.headers, session_of(label))
        if visit is None:
            return self._logout.done(request, clear=self._clear())
        return await self._logout.perform(request, login=visit.session.login, studio=visit.key, clear=self._clear())

    def _clear(self) -> Headers:
        return self._cookies.clear(login_cookies.SESSION, login_cookies.NONCE)

    def _blocked(self, request: VisitorRequest, label: str, path: str) -> Reply:
        clear = self._cookies.clear(login_cookies.NONCE)
        if in_frame(request):
            return open_outside(self._names.studio_url(label, path), Why.COOKIES, headers=clear).reply(request)
        return cookies_blocked(Link("Try again", self._names.studio_url(label)), headers=clear).reply(request)
