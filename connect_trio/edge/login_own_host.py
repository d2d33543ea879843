"""Connect's own host: the only place where anybody logs in, and where Platform sends them back to.

    Studio's host           Connect's own host                     Platform
    GET /lab        ------> /_connect/login?to=LABEL&ticket=...
                            (pre-login cookie, state kept)  -----> authorize, login page
                            /_connect/callback?code=...    <------
                            (login cookie)
    /_connect/transfer?code=... <---
    (session cookie) GET /lab

No page of a Studio can read what happens here, and a code for one Studio's host opens that one only.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode

from connect_trio.edge import login_cookies
from connect_trio.edge.gate import Headers, Reply, Switch, VisitorRequest
from connect_trio.edge.login_frames import WINDOW_PATH, Why, in_frame, is_cross_site
from connect_trio.edge.login_limit import LoginLimit
from connect_trio.edge.login_logout import Logout
from connect_trio.edge.login_pages import Link, Notice, StudioRow, login_failed, redirect, too_many_logins
from connect_trio.edge.login_records import (
    PENDING_LIFE,
    TRANSFER_LIFE,
    Login,
    LogoutTicket,
    PendingLogin,
    Ticket,
    Transfer,
    digest,
    new_secret,
)
from connect_trio.edge.login_state import LoginState
from connect_trio.edge.login_studio_path import StudioPathPages
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import RUNNING, Authorizer, NotOffered
from connect_trio.identity.oidc import LoginRefused, OidcClient
from connect_trio.routing.names import HostNames, label_of, session_of

logger = logging.getLogger(__name__)

Handler = Callable[[VisitorRequest, Mapping[str, str]], Awaitable[Reply]]


class OwnHostPages:
    """Pages of Connect's own host. wall_clock: Unix time."""

    def __init__(
        self,
        *,
        names: HostNames,
        platform_url: str,
        oidc: OidcClient,
        authorizer: Authorizer,
        state: LoginState,
        logout: Logout,
        limit: LoginLimit,
        paths: StudioPathPages,
        path_routing: Switch,
        wall_clock: Callable[[], float],
    ) -> None:
        self._names = names
        self._platform_url = platform_url
        self._oidc = oidc
        self._authorizer = authorizer
        self._records = state.records
        self._logins = state.logins
        self._cookies = state.cookies
        self._visits = state.visits
        self._logout = logout
        self._limit = limit
        self._paths = paths
        self._path_routing = path_routing
        self._now = wall_clock
        self.handlers: Mapping[tuple[bytes, str], Handler] = {
            (b"GET", "/"): self.front,
            (b"GET", "/_connect/login"): self.login,
            (b"GET", "/_connect/callback"): self.callback,
            (b"GET", "/_connect/logout"): self.ask_logout,
            (b"POST", "/_connect/logout"): self.log_out,
        }

    async def front(self, request: VisitorRequest, _: Mapping[str, str]) -> Reply:
        visit = await self._visits.own(request.headers)
        studios = Link("Your Studios at Platform", self._platform_url + "/")
        if visit is None:
            text = "You are not logged in. Open a Studio from Platform, or log in here."
            links = (studios, Link("Log in", "/_connect/login"))
            return Notice(status=200, code="welcome", title="Connect", paragraphs=(text,), links=links).reply(request)
        text = f"You are logged in as {visit.login.username}."
        rows, news = await self._studios(visit.login.subject)
        notice = Notice(
            status=200,
            code="welcome",
            title="Connect",
            paragraphs=(text, *news),
            studios=rows,
            links=(studios,),
            logout="Log out",
        )
        return notice.reply(request)

    async def _studios(self, subject: str) -> tuple[tuple[StudioRow, ...], tuple[str, ...]]:
        """Those that a visitor may open; and what there is to say about them."""
        try:
            found = await self._authorizer.sessions_of(subject)
        except NotOffered:
            return (), ()
        except PlatformUnavailable:
            return (), ("Platform does not answer, so your Studios cannot be listed here. Those that are open go on.",)
        rows = (
            StudioRow(
                name=session.name,
                url=self._studio_url(label_of(session.id)) if session.state == RUNNING else None,
                about=", ".join(filter(None, (session.state, session.tool, f"of {session.owner}", session.workspace))),
            )
            for session in sorted(found, key=lambda session: (session.state != RUNNING, session.name))
        )
        return tuple(rows), () if found else ("There is no Studio yet that you may open.",)

    async def login(self, request: VisitorRequest, query: Mapping[str, str]) -> Reply:
        """`to`: the label of a Studio. `ticket`: what its host knows about this visitor."""
        label = self._label_untrusted(query.get("to"))
        ticket = query.get("ticket")
        visit = await self._visits.own(request.headers)
        if visit is not None:
            return await self._onward(visit.key, label, ticket)
        framed = in_frame(request)
        if framed and label is not None and is_cross_site(request):
            return await self._outside(label, ticket, Why.SITE)
        if not self._limit.admits(request.client):
            return too_many_logins().reply(request)
        return await self._to_platform(request, label, ticket)

    async def _to_platform(
        self, request: VisitorRequest, label: str | None, ticket: str | None, *, offline: bool = True
    ) -> Reply:
        """Begin a login. offline: as in `OidcClient.begin`. Raises PlatformUnavailable where there is no frame."""
        framed = in_frame(request)
        try:
            url, cookie = await self._begin(request, label, ticket, silent=framed, offline=offline)
        except PlatformUnavailable:
            if framed and label is not None:
                return await self._outside(label, ticket, Why.PLATFORM)
            raise
        return redirect(url, headers=cookie)

    async def _begin(
        self, request: VisitorRequest, label: str | None, ticket: str | None, *, silent: bool, offline: bool
    ) -> tuple[str, Headers]:
        """A new login: where at Platform it goes on, and the cookie that it is bound to."""
        # Platform would show strangers an error page of its own: let it be noticed here that it forgot Connect.
        await self._authorizer.check_client()
        begun = await self._oidc.begin(silent=silent, offline=offline)
        # Other tabs may be logging in with the same cookie: it stays as it is.
        prelogin = self._cookies.secret(request.headers, login_cookies.PRELOGIN) or new_secret()
        pending = PendingLogin(
            nonce=begun.nonce,
            verifier=begun.verifier,
            client_id=begun.client_id,
            bind=digest(prelogin),
            label=label,
            ticket=ticket if ticket is not None and len(ticket) <= 100 else None,
            offline=begun.offline,
        )
        await self._records.put(digest(begun.state), pending, ttl=PENDING_LIFE)
        return begun.url, self._cookies.set(login_cookies.PRELOGIN, prelogin, max_age=int(PENDING_LIFE))

    async def callback(self, request: VisitorRequest, query: Mapping[str, str]) -> Reply:
        """Platform's answer to a login (RFC 6749 section 4.1.2)."""
        state = query.get("state", "")
        pending = await self._records.take(PendingLogin, digest(state)) if state else None
        visit = await self._visits.own(request.headers)
        if pending is None:
            if visit is not None:
                return await self._onward(visit.key, None, None)
            return self._failed(request, None, "It took more than ten minutes, or its answer came twice.")
        if not self._is_bound(request, pending):
            if visit is not None:  # another tab was faster, and its login removed the cookie
                return await self._onward(visit.key, pending.label, pending.ticket)
            reason = "It was begun in another browser, or your browser does not keep Connect's cookies."
            return await self._stopped(request, pending, reason, Why.COOKIES)
        if "code" not in query:
            return await self._refused(request, pending, query)
        try:
            result = await self._oidc.finish(
                code=query["code"],
                issuer=query.get("iss"),
                client_id=pending.client_id,
                nonce=pending.nonce,
                verifier=pending.verifier,
            )
        except LoginRefused as exc:
            return await self._stopped(request, pending, str(exc), Why.PLATFORM)
        except PlatformUnavailable as exc:
            if not in_frame(request):
                raise
            return await self._stopped(request, pending, str(exc), Why.PLATFORM)
        identity = result.identity
        browser = pending.bind
        if visit is not None:  # what the same visitor has open in other tabs goes on, and ends with this login
            same = visit.login.subject == identity.subject
            browser = (visit.login.browser if same else "") or browser
            await self._visits.end(login=visit.key, mark=not same)
        login = Login(
            subject=identity.subject,
            username=identity.username,
            created=self._now(),
            issued=identity.issued,
            sid=identity.sid,
            browser=browser,
        )
        secret = await self._logins.begin(login, result.tokens)
        logger.info("a visitor has logged in", extra={"subject": identity.subject, "client": request.client})
        cookies = self._cookies.set(login_cookies.LOGIN, secret, max_age=self._logins.cookie_age(login))
        cookies += self._cookies.clear(login_cookies.PRELOGIN)
        return await self._onward(digest(secret), pending.label, pending.ticket, headers=cookies)

    async def _refused(self, request: VisitorRequest, pending: PendingLogin, query: Mapping[str, str]) -> Reply:
        """Platform says no, or somebody who wrote it into an address: it counts for this login only."""
        if pending.offline and query.get("error") == "invalid_scope":
            return await self._to_platform(request, pending.label, pending.ticket, offline=False)
        return await self._stopped(request, pending, _refusal(query), Why.LOGIN)

    async def ask_logout(self, request: VisitorRequest, _: Mapping[str, str]) -> Reply:
        visit = await self._visits.own(request.headers)
        if visit is None:
            return self._logout.done(request, clear=self._cookies.clear(login_cookies.LOGIN))
        ticket = None
        if request.shared_origin:
            ticket = await self._records.add(LogoutTicket(login=visit.key), ttl=PENDING_LIFE)
        return self._logout.ask(request, visit.login.username, ticket=ticket)

    async def log_out(self, request: VisitorRequest, query: Mapping[str, str]) -> Reply:
        if request.shared_origin:
            return await self._log_out_by_ticket(request, query.get("ticket"))
        refusal = self._logout.refusal(request)
        if refusal is not None:
            return refusal
        clear = self._cookies.clear(login_cookies.LOGIN)
        visit = await self._visits.own(request.headers)
        if visit is None:
            return self._logout.done(request, clear=clear)
        return await self._logout.perform(request, login=visit.key, studio=None, clear=clear)

    async def _log_out_by_ticket(self, request: VisitorRequest, ticket_id: str | None) -> Reply:
        """Where scripts of Studios are of the same origin, only a page that they cannot read knows the ticket.

        It is all that counts: no cookie comes along from that page.
        """
        ticket = await self._records.take(LogoutTicket, digest(ticket_id)) if ticket_id else None
        if ticket is None:
            return self._logout.refused(request)
        clear = self._cookies.clear(login_cookies.LOGIN)
        return await self._logout.perform(request, login=ticket.login, studio=None, clear=clear)

    async def _onward(self, login: str, label: str | None, ticket_id: str | None, *, headers: Headers = ()) -> Reply:
        """To where the login was for. login: digest of its secret."""
        if label is None:
            return redirect(self._names.own_origin + "/", headers=headers)
        ticket = await self._records.take(Ticket, digest(ticket_id)) if ticket_id is not None else None
        if ticket is None or ticket.label != label:
            # Without a ticket nobody is let in from here; the Studio begins with one of its own.
            return redirect(self._studio_url(label), headers=headers)
        if ticket.below_path:
            return await self._paths.open(login, label, ticket.path, headers=headers)
        transfer = Transfer(session=session_of(label), path=ticket.path, bind=ticket.bind, login=login)
        code = await self._records.add(transfer, ttl=TRANSFER_LIFE)
        url = self._names.studio_url(label, "/_connect/transfer?" + urlencode({"code": code}))
        return redirect(url, headers=headers)

    def _is_bound(self, request: VisitorRequest, pending: PendingLogin) -> bool:
        prelogin = self._cookies.secret(request.headers, login_cookies.PRELOGIN)
        return prelogin is not None and hmac.compare_digest(digest(prelogin), pending.bind)

    async def _stopped(self, request: VisitorRequest, pending: PendingLogin, reason: str, why: Why) -> Reply:
        """The end of a login that cannot go on. No page of this host shows in a frame, so that the Studio's host says
        so there, with less words: a window will show the rest."""
        if pending.label is not None and in_frame(request):
            return await self._outside(pending.label, pending.ticket, why)
        return self._failed(request, pending.label, reason)

    async def _outside(self, label: str, ticket_id: str | None, why: Why) -> Reply:
        query = {"why": why.value} | ({"ticket": ticket_id} if ticket_id is not None else {})
        ticket = await self._records.get(Ticket, digest(ticket_id)) if ticket_id is not None else None
        below_path = ticket.below_path if ticket is not None else self._path_routing()
        url = self._names.studio_path_url if below_path else self._names.studio_url
        return redirect(url(label, f"{WINDOW_PATH}?{urlencode(query)}"))

    def _studio_url(self, label: str) -> str:
        """The usual address of a Studio."""
        return self._names.studio_path_url(label) if self._path_routing() else self._names.studio_url(label)

    def _failed(self, request: VisitorRequest, label: str | None, reason: str) -> Reply:
        url = self._studio_url(label) if label is not None else self._names.own_origin + "/_connect/login"
        return login_failed(reason, Link("Log in again", url)).reply(request)

    def _label_untrusted(self, text: str | None) -> str | None:
        try:
            return text if text is not None and session_of(text) else None
        except ValueError:
            return None


def _refusal(query: Mapping[str, str]) -> str:
    """What Platform says against a login, for people: cut, since anybody can write it into an address."""
    error = query.get("error", "no reason given")[:50]
    text = query.get("error_description", "")[:200]
    return f"Platform refused it ({error}). {text}".strip()
