# ruff: noqa: RUF009 - `variable` returns an attrs field
"""The settings of the development Platform; see settings.py."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import attrs

from connect_trio.config import converters as to
from connect_trio.config.environment import variable


@attrs.frozen(kw_only=True)
class PlatformSettings:
    """The development Platform. host: it is never bound to anything but loopback."""

    url: str = variable(
        "PLATFORM_URL", to.base_url, default="http://localhost:8081", meaning="URL of the development Platform itself."
    )
    own_port: int | None = variable(
        "CONNECT_DEVPLATFORM_PORT",
        to.listen_port,
        addition=True,
        meaning="Port of the development Platform, if it is not the one of PLATFORM_URL.",
    )
    connect_url: str = variable(
        "CONNECT_PROXY_URL", to.proxy_url, default="http://connect.localhost:8080", meaning="URL of Connect itself."
    )
    studio_domain: str | None = variable(
        "CONNECT_STUDIO_DOMAIN",
        to.studio_domain,
        addition=True,
        meaning="Domain whose sub-domains are the Studios, instead of the host of CONNECT_PROXY_URL.",
    )
    dev_key: str = variable(
        "CONNECT_DEVPLATFORM_KEY",
        to.token,
        required=True,
        secret=True,
        addition=True,
        meaning="Key of the development Platform's own API, which hands out agents' tokens.",
    )
    registration_token: str | None = variable(
        "CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN",
        str,
        secret=True,
        meaning="Initial access token that OIDC clients must show to be registered.",
    )
    state_dir: Path | None = variable(
        "CONNECT_DEVPLATFORM_STATE",
        to.path,
        addition=True,
        meaning="Folder where keys and clients are kept; only in memory if not set.",
    )
    tool: str = variable(
        "CONNECT_DEVPLATFORM_TOOL", to.short_name, default="files", addition=True, meaning="Name of the sessions' tool."
    )
    allowed_workspaces: tuple[int, ...] | None = variable(
        "TOWER_DATA_STUDIO_ALLOWED_WORKSPACES",
        to.workspaces,
        blank=True,
        meaning="Ids of the workspaces that may use Studios, separated by commas: all if not set, none if empty.",
    )
    path_routing: bool = variable(
        "TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING",
        to.boolean,
        default="false",
        meaning="Whether Studios have addresses below a path of Connect's own host instead of sub-domains.",
    )
    log_level: str = variable(
        "CONNECT_LOG_LEVEL", to.log_level, default="INFO", meaning="Log level: DEBUG, INFO, WARN or ERROR."
    )
    host: str = attrs.field(default="127.0.0.1", init=False)

    @property
    def port(self) -> int:
        """The port to bind: CONNECT_DEVPLATFORM_PORT or the one of the URL."""
        if self.own_port is not None:
            return self.own_port
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)
