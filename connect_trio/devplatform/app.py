"""The development Platform as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from connect_trio.devplatform.authorization import Authorization
from connect_trio.devplatform.browsers import Browsers
from connect_trio.devplatform.clients import AUTH_METHODS, ClientRegistration
from connect_trio.devplatform.contract import Contract
from connect_trio.devplatform.development import DevelopmentCalls
from connect_trio.devplatform.forms import Refusal, refusal_as_json
from connect_trio.devplatform.grants import Grants
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.notifications import Notifier
from connect_trio.devplatform.pages import Pages
from connect_trio.devplatform.pages_ssh_keys import SshKeyPages
from connect_trio.devplatform.state import PlatformState, Studio
from connect_trio.devplatform.storage import Storage
from connect_trio.devplatform.studios import StudioPolicy
from connect_trio.routing.names import HostNames


async def create_app(
    *,
    url: str,
    connect_url: str,
    studio_domain: str | None = None,
    dev_key: str | None,
    registration_token: str | None = None,
    state_dir: Path | None = None,
    tool: str = "files",
    studios: Sequence[Studio] | None = None,
    policy: StudioPolicy | None = None,
    keys: KeyRing | None = None,
    notifier: Notifier | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The application.

    url: PLATFORM_URL, the address that browsers and Connect use. connect_url: CONNECT_PROXY_URL. studio_domain:
    CONNECT_STUDIO_DOMAIN. dev_key: opens the development calls, which do not exist without one. registration_token: the
    initial access token of client registration, None for none. state_dir: where keys and clients outlive a restart.
    tool: what both sessions run, for people to read. studios: other sessions than these. policy: which workspaces have
    Studios, and by which addresses. keys: sign with these instead of the kept ones. notifier: tells clients of logouts,
    for as long as somebody runs it. clock: Unix time. Raises OSError if state_dir cannot be used.
    """
    url = url.rstrip("/")
    issuer = url + "/api"
    storage = Storage(state_dir)
    keys = keys or await storage.load_keys()
    state = PlatformState(tool=tool, studios=studios, policy=policy, clock=clock)
    for client in await storage.load_clients():
        state.add_client(client)
    browsers = Browsers(state, url=url)
    authorization = Authorization(state, keys, browsers, notifier or Notifier(), issuer=issuer)
    pages = Pages(state, browsers, names=HostNames(connect_url, studio_domain))
    # OAuth's errors are JSON for clients and a page for browsers: the browser's endpoints stand apart.
    for_clients = Starlette(
        routes=_client_routes(state, keys, storage, issuer, registration_token, dev_key),
        exception_handlers={Refusal: refusal_as_json},
    )
    return Starlette(
        routes=[
            *pages.routes(),
            Route("/platform.css", browsers.style),
            Route("/login", authorization.login_page, methods=["GET"]),
            Route("/login", authorization.log_in, methods=["POST"]),
            Route("/logout", authorization.log_out, methods=["POST"]),
            *SshKeyPages(state, browsers).routes(),
            Route("/api/authorize", authorization.authorize, methods=["GET", "POST"]),
            Route("/api/end-session", authorization.end_session, methods=["GET", "POST"]),
            Mount("/api", app=for_clients),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_own_hosts(url), www_redirect=False)],
        exception_handlers={Refusal: browsers.refusal_as_page},
    )


def _client_routes(
    state: PlatformState,
    keys: KeyRing,
    storage: Storage,
    issuer: str,
    registration_token: str | None,
    dev_key: str | None,
) -> list[Route]:
    registration = ClientRegistration(state, storage, initial_token=registration_token or None)
    grants = Grants(state, keys, issuer=issuer)

    async def discovery(_: Request) -> Response:
        return JSONResponse(_metadata(issuer))

    async def jwks(_: Request) -> Response:
        return JSONResponse(keys.published())

    routes = [
        Route("/.well-known/openid-configuration", discovery),
        Route("/.well-known/jwks.json", jwks),
        Route("/token", grants.token, methods=["POST"]),
        Route("/userinfo", grants.userinfo, methods=["GET", "POST"]),
        Route("/register", registration.register, methods=["POST"]),
        *Contract(state).routes(),
    ]
    if not dev_key:
        return routes
    return [*routes, *DevelopmentCalls(state, keys, issuer=issuer, dev_key=dev_key).routes()]


def _metadata(issuer: str) -> dict[str, object]:
    """OpenID Connect Discovery 1.0 section 3."""
    return {
        "issuer": issuer,
        "authorization_endpoint": issuer + "/authorize",
        "token_endpoint": issuer + "/token",
        "userinfo_endpoint": issuer + "/userinfo",
        "jwks_uri": issuer + "/.well-known/jwks.json",
        "registration_endpoint": issuer + "/register",
        "end_session_endpoint": issuer + "/end-session",
        "scopes_supported": ["openid", "profile", "offline_access"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "code_challenge_methods_supported": ["S256"],
        "claims_supported": ["sub", "preferred_username", "name", "auth_time", "sid"],
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }


def _own_hosts(url: str) -> list[str]:
    """Names under which this process answers: a page elsewhere whose name is made to point here gets nothing."""
    return sorted({urlsplit(url).hostname or "localhost", "localhost", "127.0.0.1"})
