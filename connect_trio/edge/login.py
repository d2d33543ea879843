"""The gate: who may come in, and who has to log in first.

Nothing here is remembered by one process only; what is cached is forgotten within seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import trio

from connect_trio.edge import login_pages
from connect_trio.edge.gate import Admission, Reply, Switch, TunnelGrant, VisitorRequest, never
from connect_trio.edge.login_backchannel import MAX_BODY, BackchannelLogout
from connect_trio.edge.login_backchannel import PATH as BACKCHANNEL
from connect_trio.edge.login_cookies import OWN_NAMES, Cookies
from connect_trio.edge.login_ends import Lives
from connect_trio.edge.login_limit import LoginLimit
from connect_trio.edge.login_logout import Logout
from connect_trio.edge.login_own_host import OwnHostPages
from connect_trio.edge.login_pages import Link, Notice, json_reply
from connect_trio.edge.login_records import StudioSession
from connect_trio.edge.login_requests import (
    is_forged,
    is_from_elsewhere,
    is_scripted,
    navigates,
    single_header,
    split_target,
)
from connect_trio.edge.login_session_page import session_notice
from connect_trio.edge.login_state import login_state
from connect_trio.edge.login_studio_host import StudioHostPages
from connect_trio.edge.login_studio_path import StudioPathPages
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import STOPPED, UNKNOWN, Authorizer, Decision
from connect_trio.identity.grants import HTTP, TUNNEL
from connect_trio.identity.oidc import OidcClient
from connect_trio.identity.tokens import TokenInvalid
from connect_trio.routing.names import HostNames, session_of
from connect_trio.routing.registry import RegistryUnavailable, Store

_INSTANCE = re.compile(rb"[0-9a-f]{32}")
_SESSION_PAGE = "/_connect/session"
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)


class LoginGate:
    """Implements `edge.gate.Gate` with logins at Platform.

    names: the hosts under CONNECT_PROXY_URL. platform_url: where visitors find their Studios. store: what the proxies
    share. store_stale: seconds that visitors stay in while the store is away (LOCAL_CACHE_TTL). path_routing: whether
    Studios are below paths of Connect's own host, too. lives: how long logins last. clock: seconds that only go
    forward; wall_clock: Unix time.

    keeper: what is to run beside it, for logins to be prolonged, refreshed, and noticed when they end.
    """

    def __init__(
        self,
        *,
        names: HostNames,
        platform_url: str,
        oidc: OidcClient,
        authorizer: Authorizer,
        store: Store,
        store_stale: float = 120.0,
        path_routing: Switch = never,
        lives: Lives | None = None,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._platform_url = platform_url.rstrip("/")
        self._oidc = oidc
        self._authorizer = authorizer
        self._wall_clock = wall_clock
        limit = LoginLimit(clock=clock)
        cookies = Cookies(secure=names.secure)
        state = login_state(
            store, cookies, oidc.refresher, stale=store_stale, lives=lives, clock=clock, wall_clock=wall_clock
        )
        self._visits = state.visits
        self.keeper = state.keeper
        logout = Logout(names=names, visits=self._visits, oidc=oidc)
        self._paths = StudioPathPages(names=names, state=state, limit=limit, wall_clock=wall_clock)
        self._own = OwnHostPages(
            names=names,
            platform_url=self._platform_url,
            oidc=oidc,
            authorizer=authorizer,
            state=state,
            logout=logout,
            limit=limit,
            paths=self._paths,
            path_routing=path_routing,
            wall_clock=wall_clock,
        )
        self._studio = StudioHostPages(names=names, state=state, logout=logout, limit=limit, wall_clock=wall_clock)
        backchannel = BackchannelLogout(oidc=oidc, logins=state.logins, clock=clock)
        self._own_handlers = {**self._own.handlers, (b"POST", BACKCHANNEL): backchannel.handle}

    def body_limit(self, request: VisitorRequest) -> int:
        """See `Gate.body_limit`."""
        told = request.label is None and request.method == b"POST" and split_target(request)[0] == BACKCHANNEL
        return MAX_BODY if told else 0

    async def admit(self, request: VisitorRequest) -> Admission | Reply:
        """See `Gate.admit`. `request.label` must be that of a Studio."""
        assert request.label is not None
        try:
            return await self._admit(request, request.label)
        except PlatformUnavailable as exc:
            return login_pages.platform_away(str(exc)).reply(request)
        except RegistryUnavailable:
            return login_pages.registry_away().reply(request)

    async def own_page(self, request: VisitorRequest) -> Reply | None:
        """See `Gate.own_page`."""
        try:
            return await self._own_page(request)
        except PlatformUnavailable as exc:
            return login_pages.platform_away(str(exc)).reply(request)
        except RegistryUnavailable:
            return login_pages.registry_away().reply(request)

    async def admit_tunnel(self, request: VisitorRequest) -> TunnelGrant | Reply:
        """See `Gate.admit_tunnel`. The token is in `Authorization: Bearer`, the agent's id in X-Connect-Instance."""
        authorization = _BEARER.fullmatch(single_header(request, b"authorization") or b"")
        if authorization is None:
            return _no_tunnel(401, "invalid_token", "the agent's token is missing: send Authorization: Bearer TOKEN")
        instance = single_header(request, b"x-connect-instance") or b""
        try:
            agent = await self._oidc.agent(authorization[1].decode("ascii"))
            decision = await self._authorizer.check(agent.session, agent.session, TUNNEL)
        except TokenInvalid as exc:
            return _no_tunnel(401, "invalid_token", f"the agent's token is refused: {exc.reason}")
        except PlatformUnavailable as exc:
            return _no_tunnel(503, "platform_unavailable", f"Platform cannot be asked about the session: {exc}")
        state = decision.session_state
        if state in (STOPPED, UNKNOWN):
            text = "was stopped" if state == STOPPED else "does not exist at Platform"
            return _no_tunnel(410, "session_ended", f"the session {agent.session} {text}")
        if decision.grant is None:
            return _no_tunnel(503, "session_not_running", f"the session {agent.session} is not running yet")
        if not _INSTANCE.fullmatch(instance):
            return _no_tunnel(400, "invalid_instance", "X-Connect-Instance must be 32 lower-case hex digits")
        return TunnelGrant(grant=decision.grant, instance=instance.decode("ascii"), issued=agent.issued)

    async def _admit(self, request: VisitorRequest, label: str) -> Admission | Reply:
        session = session_of(label)
        below_path = bool(request.base)
        if below_path and is_from_elsewhere(request, self._names.own_origin):
            return _forged().reply(request)
        look_up = self._visits.below_path if below_path else self._visits.studio
        visit = await look_up(request.headers, session)
        if visit is None:
            if navigates(request):
                return await (self._paths.enter if below_path else self._studio.invite)(request, label)
            return self._login_required(request, label).reply(request, navigates=False)
        own_origin = self._names.own_origin if below_path else self._names.studio_origin(label)
        if is_forged(request, own_origin=own_origin, scheme=self._names.scheme):
            return _forged().reply(request)
        decision = await self._authorizer.check(visit.session.subject, session, HTTP)
        if decision.grant is None:
            return self._refusal(decision, visit.session).reply(request)
        return Admission(
            grant=decision.grant,
            username=visit.session.username,
            key=f"{session}:{visit.session.subject}",
            strip_cookies=OWN_NAMES,
            login=visit,
        )

    async def _own_page(self, request: VisitorRequest) -> Reply | None:
        path, query = split_target(request)
        if path == _SESSION_PAGE and request.label is not None and request.method in (b"GET", b"HEAD"):
            return await self._session_page(request, request.label)
        studio = self._paths.handlers if request.base else self._studio.handlers
        handlers = self._own_handlers if request.label is None else studio
        allowed = sorted({method for method, known in handlers if known == path})
        if not allowed:
            return None
        method = b"GET" if request.method == b"HEAD" and path == "/" else request.method
        if method not in allowed or request.upgrade:
            return json_reply(405, {"error": "method not allowed"}, headers=((b"Allow", b", ".join(allowed)),))
        if request.shared_origin and is_scripted(request):
            return _forged().reply(request)
        if request.label is None:
            return await self._own_handlers[method, path](request, query)
        return await studio[method, path](request, request.label, query)

    async def _session_page(self, request: VisitorRequest, label: str) -> Reply:
        """How the Studio is, and when it ends, for who may use it."""
        admission = await self._admit(request, label)
        if isinstance(admission, Reply):
            return admission
        decision = await self._authorizer.check(admission.subject, admission.session, HTTP)
        if decision.session is None:
            return self._login_required(request, label).reply(request)
        return session_notice(request, decision.session, self._wall_clock())

    def _login_required(self, request: VisitorRequest, label: str) -> Notice:
        url = self._names.studio_path_url(label) if request.base else self._names.studio_url(label)
        return Notice(
            status=401,
            code="login_required",
            title="Log in first",
            paragraphs=("This Studio is for people who are logged in.", f"Open {url}"),
        )

    def _refusal(self, decision: Decision, visitor: StudioSession) -> Notice:
        studios = Link("Your Studios at Platform", self._platform_url + "/")
        you = f"You are logged in as {visitor.username}."
        if decision.session_state == UNKNOWN or decision.session is None:
            return Notice(
                status=404,
                code="unknown_session",
                title="There is no such Studio",
                paragraphs=(f"Platform knows no Studio {visitor.session}.", "It may have been deleted.", you),
                part="session",
                links=(studios,),
            )
        name, owner = decision.session.name, decision.session.owner
        if not decision.allowed:
            reason = decision.reason or "Platform does not allow it."
            return Notice(
                status=403,
                code="refused",
                title="This Studio is not open to you",
                paragraphs=(you, f"{name} ({visitor.session}): {reason}", f"Ask {owner} for access."),
                links=(studios,),
                logout="Log out, to come in as somebody else",
            )
        return Notice(
            status=503,
            code="session_stopped",
            title="This Studio is not running",
            paragraphs=(f"{name} ({visitor.session}) is {decision.session_state}. {owner} can start it at Platform.",),
            part="session",
            links=(studios,),
        )


def _forged() -> Notice:
    return Notice(
        status=403,
        code="foreign_page",
        title="Another page asked for this",
        paragraphs=("A page of another site or Studio tried to do something here with your login.",),
        part="request",
    )


def _no_tunnel(status: int, code: str, text: str) -> Reply:
    headers = {
        401: ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),),
        503: login_pages.RETRY,
    }
    return json_reply(status, {"error": text, "code": code}, headers=headers.get(status, ()))
