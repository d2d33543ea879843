"""Everything that knows Platform, put together."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from connect_trio.identity.client import open_platform_client
from connect_trio.identity.control_plane import Authorizer, ControlPlane
from connect_trio.identity.oidc import OidcClient
from connect_trio.identity.provider import Provider
from connect_trio.identity.registration import ClientCredentials, Registration
from connect_trio.routing.names import HostNames
from connect_trio.routing.registry import Store


@attrs.frozen(kw_only=True)
class Identity:
    """Connect's view of Platform. background: for calls that no visitor waits for, nor suffers from."""

    oidc: OidcClient
    control_plane: ControlPlane
    background: ControlPlane
    authorizer: Authorizer


@asynccontextmanager
async def open_identity(
    *,
    platform_url: str,
    proxy_url: str,
    store: Store,
    storage_root: Path | None = None,
    client_name: str = "tower-connect-proxy-client",
    grant_type: str = "authorization_code",
    registration_token: str | None = None,
    client: ClientCredentials | None = None,
    tls: ssl.SSLContext | None = None,
    oidc_path: str = "/api",
    clock: Callable[[], float] = trio.current_time,
    wall_clock: Callable[[], float] = time.time,
) -> AsyncIterator[Identity]:
    """Platform may be away: nothing is asked before somebody needs an answer.

    storage_root: folder for the client registration, None for none. client: the one that Platform knows already, None
    to register one. tls: how Platform's certificate is judged, None for the system's authorities. oidc_path: what the
    issuer's address has behind Platform's. clock: seconds that only go forward; wall_clock: Unix time. Raises
    ValueError for addresses that are no http(s) URLs.
    """
    own_origin = HostNames(proxy_url).own_origin
    async with open_platform_client(platform_url=platform_url, tls=tls, clock=clock) as http:
        provider = Provider(http, path=oidc_path, clock=clock)
        registration = Registration(
            client=http,
            provider=provider,
            store=store,
            storage_root=storage_root,
            client_name=client_name,
            grant_type=grant_type,
            registration_token=registration_token,
            fixed=client,
            redirect_uri=own_origin + "/_connect/callback",
            post_logout_uri=own_origin + "/",
            backchannel_logout_uri=own_origin + "/_connect/backchannel-logout",
            clock=clock,
        )
        oidc = OidcClient(client=http, provider=provider, registration=registration, wall_clock=wall_clock)
        control_plane = ControlPlane(client=http, registration=registration)
        yield Identity(
            oidc=oidc,
            control_plane=control_plane,
            background=ControlPlane(client=http.aside(), registration=registration),
            authorizer=Authorizer(control_plane, clock=clock, wall_clock=wall_clock),
        )
