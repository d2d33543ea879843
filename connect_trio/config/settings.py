# ruff: noqa: RUF009 - `variable` returns an attrs field
"""The settings classes. The docstring of a field is the `meaning` of its variable.

Names and defaults are a contract with operators, except for those of additions, which are ours.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from connect_trio.config import converters as to
from connect_trio.config.environment import variable
from connect_trio.routing.names import join_address


@attrs.frozen(kw_only=True)
class RedisSettings:
    """How to reach Redis; part of the server's and the proxy's settings."""

    redis_address: str = variable(
        "CONNECT_REDIS_ADDRESS", to.address, default="redis:6379", meaning="Redis, as host:port."
    )
    redis_user: str | None = variable("CONNECT_REDIS_USER", to.text, meaning="Redis ACL user.")
    redis_password: str | None = variable(
        "CONNECT_REDIS_PASSWORD", str, secret=True, meaning="Password of the Redis user."
    )
    redis_db: int = variable("CONNECT_REDIS_DB", to.database, default="0", meaning="Redis database number.")
    redis_prefix: str = variable(
        "CONNECT_REDIS_PREFIX", to.key_prefix, default="connect:session", meaning="Prefix of all keys in Redis."
    )
    redis_tls: bool = variable(
        "CONNECT_REDIS_TLS_ENABLE", to.boolean, default="false", meaning="Whether to speak TLS to Redis."
    )
    redis_tls_skip_verify: bool = variable(
        "CONNECT_REDIS_TLS_SKIP_VERIFY",
        to.boolean,
        default="false",
        meaning="Whether to accept any certificate of Redis.",
    )
    redis_tls_key_file: Path | None = variable(
        "CONNECT_REDIS_TLS_KEY_FILE", to.readable_file, meaning="Key of the client certificate for Redis, a PEM file."
    )
    redis_tls_cert_file: Path | None = variable(
        "CONNECT_REDIS_TLS_CERT_FILE", to.readable_file, meaning="Client certificate for Redis, a PEM file."
    )

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        key, cert = "CONNECT_REDIS_TLS_KEY_FILE", "CONNECT_REDIS_TLS_CERT_FILE"
        if (key in given) == (cert in given):
            return []
        there, missing = (key, cert) if key in given else (cert, key)
        return [f"{missing} is not set, but {there} is; set both or none"]


@attrs.frozen(kw_only=True)
class ReplicaSettings(RedisSettings):
    """What the server and the proxy have in common."""

    management_port: int | None = variable(
        "CONNECT_MANAGEMENT_PORT", to.listen_port, meaning="Port for metrics, readiness and shutdown; off if not set."
    )
    management_host: str = variable(
        "CONNECT_MANAGEMENT_HOST",
        to.host,
        default="127.0.0.1",
        addition=True,
        meaning="Address that the management port is bound to.",
    )
    management_auth_key: str | None = variable(
        "CONNECT_MANAGEMENT_AUTH_KEY", to.text, secret=True, meaning="Key that protects the management port."
    )
    drain_grace: float = variable(
        "CONNECT_DRAIN_GRACE",
        to.duration,
        default="30s",
        addition=True,
        meaning="How long a process that is asked to stop may take to move or finish what it carries; 0s: no time.",
    )
    log_level: str = variable(
        "CONNECT_LOG_LEVEL", to.log_level, default="INFO", meaning="Log level: DEBUG, INFO, WARN or ERROR."
    )
    log_level_file: Path | None = variable(
        "CONNECT_LOG_LEVEL_FILE",
        to.path,
        addition=True,
        meaning="File with the log level, read at SIGHUP; instead of CONNECT_LOG_LEVEL from then on.",
    )


@attrs.frozen(kw_only=True)
class ServerSettings(ReplicaSettings):
    """The server: agents' tunnels on one port, proxies' links on another."""

    listener_port: int = variable(
        "CONNECT_LISTENER_PORT", to.listen_port, default="7777", meaning="Port where proxies connect."
    )
    tunnel_port: int = variable(
        "CONNECT_TUNNEL_PORT", to.listen_port, default="7070", meaning="Port where agents' tunnels arrive."
    )
    bind_host: str = variable(
        "CONNECT_BIND_HOST",
        to.host,
        default="127.0.0.1",
        addition=True,
        meaning="Address that the listener and tunnel ports are bound to; loopback, since links do not authenticate.",
    )
    advertise_address: str | None = variable(
        "CONNECT_ADVERTISE_ADDRESS",
        to.address,
        addition=True,
        meaning="host:port where proxies reach this server, instead of its host name and listener port.",
    )
    host_domain: str | None = variable(
        "CONNECT_HOST_DOMAIN",
        to.host,
        meaning="Domain that is appended to the server's host name where it publishes it.",
    )

    def published_address(self, hostname: str, *, port: int | None = None) -> str:
        """host:port to publish. port: the one actually bound, where `listener_port` is 0."""
        if self.advertise_address is not None:
            return self.advertise_address
        name = f"{hostname}.{self.host_domain.strip('.')}" if self.host_domain else hostname
        return join_address(name, port or self.listener_port)


@attrs.frozen(kw_only=True)
class ProxySettings(ReplicaSettings):
    """The proxy: the edge that visitors and agents reach."""

    redis_address: str = variable("CONNECT_REDIS_ADDRESS", to.address, required=True, meaning="Redis, as host:port.")
    http_port: int = variable("CONNECT_HTTP_PORT", to.listen_port, default="80", meaning="Port of the HTTP edge.")
    http_host: str = variable(
        "CONNECT_HTTP_HOST",
        to.host,
        default="0.0.0.0",  # noqa: S104 - visitors come from outside
        addition=True,
        meaning="Address that the HTTP edge is bound to.",
    )
    reuse_port: bool = variable(
        "CONNECT_HTTP_REUSE_PORT",
        to.boolean,
        default="false",
        addition=True,
        meaning="Whether several proxies on one machine share CONNECT_HTTP_PORT (SO_REUSEPORT).",
    )
    extra_port: int | None = variable(
        "CONNECT_HTTP_EXTRA_PORT",
        to.listen_port,
        addition=True,
        meaning="A second port of the HTTP edge, of this proxy alone.",
    )
    proxy_url: str = variable(
        "CONNECT_PROXY_URL",
        to.proxy_url,
        required=True,
        meaning="URL of Connect itself; Studios are sub-domains of its host.",
    )
    tunnel_url: tuple[str, ...] = variable(
        "CONNECT_TUNNEL_URL",
        to.addresses,
        required=True,
        meaning="Tunnel port of the servers, as host:port without a scheme, or several separated by commas.",
    )
    platform_url: str = variable("PLATFORM_URL", to.base_url, required=True, meaning="URL of Platform.")
    storage_root: Path = variable(
        "CONNECT_STORAGE_ROOT", to.path, default="/data", meaning="Folder where the proxy keeps its data."
    )
    client_name: str = variable(
        "CONNECT_CLIENT_NAME", to.text, default="tower-connect-proxy-client", meaning="Name of the OIDC client."
    )
    grant_type: str = variable(
        "CONNECT_GRANT_TYPE",
        to.choice("authorization_code"),
        default="authorization_code",
        meaning="OAuth grant of the login.",
    )
    registration_token: str | None = variable(
        "CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN",
        str,
        secret=True,
        meaning="Initial access token for the dynamic registration of the OIDC client.",
    )
    local_cache_ttl: float = variable(
        "LOCAL_CACHE_TTL",
        to.positive_duration,
        default="2m",
        meaning="How long known sessions stay reachable while Redis is away.",
    )
    trusted_proxies: tuple[to.Network, ...] = variable(
        "CONNECT_TRUSTED_PROXY_CIDRS",
        to.networks,
        default="127.0.0.1/32",
        meaning="Proxies in front of this one whose X-Forwarded-* headers count, as CIDR blocks separated by spaces.",
    )


@attrs.frozen(kw_only=True)
class AgentSettings:
    """The agent: runs beside the tool. command: the tool's command, from the command line; empty if it runs already."""

    proxy_url: str = variable(
        "CONNECT_PROXY_URL", to.base_url, required=True, meaning="URL of Connect itself, where the agent dials in."
    )
    token: str | None = variable(
        "CONNECT_AGENT_TOKEN",
        to.token,
        secret=True,
        addition=True,
        meaning="Token, bound to one session, that the agent authenticates with.",
    )
    token_file: Path | None = variable(
        "CONNECT_AGENT_TOKEN_FILE",
        to.readable_file,
        addition=True,
        meaning="File with the agent's token, read again before each dial; instead of CONNECT_AGENT_TOKEN.",
    )
    tool_port: int | None = variable(
        "CONNECT_TOOL_PORT", to.port, meaning="Port of the tool on 127.0.0.1; if not set, a free one is chosen."
    )
    tool_path_prefix: str = variable(
        "CONNECT_TOOL_PATH_PREFIX", to.path_prefix, default="", meaning="Path under which the tool serves."
    )
    tool_start_timeout: float = variable(
        "CONNECT_TOOL_START_TIMEOUT",
        to.positive_duration,
        default="60s",
        addition=True,
        meaning="How long the tool may take until it listens on its port.",
    )
    root: Path = variable(
        "CONNECT_FILES_ROOT",
        to.existing_folder,
        default=".",
        addition=True,
        meaning="Folder that the integrated file server shows, and where the tool is started.",
    )
    tunnels: int = variable(
        "CONNECT_AGENT_TUNNELS",
        to.tunnels,
        default="2",
        addition=True,
        meaning="How many tunnels the agent keeps, 1 to 4, to different servers where there are several.",
    )
    websocket_only: bool = variable(
        "CONNECT_TUNNEL_WEBSOCKET_ONLY",
        to.boolean,
        default="false",
        addition=True,
        meaning="Whether the tunnel is a WebSocket from the first dial on, without a try of the leaner upgrade.",
    )
    log_level: str = variable(
        "CONNECT_CLIENT_LOG_LEVEL", to.log_level, default="INFO", meaning="Log level: DEBUG, INFO, WARN or ERROR."
    )
    log_level_file: Path | None = variable(
        "CONNECT_CLIENT_LOG_LEVEL_FILE",
        to.path,
        addition=True,
        meaning="File with the log level, read at SIGHUP; instead of CONNECT_CLIENT_LOG_LEVEL from then on.",
    )
    command: tuple[str, ...] = ()
    tool_host: str = attrs.field(default="127.0.0.1", init=False)

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        one, other = "CONNECT_AGENT_TOKEN", "CONNECT_AGENT_TOKEN_FILE"
        if one in given and other in given:
            return [f"{one} and {other} are both set; set only one of them"]
        if one not in given and other not in given:
            return [f"{one} is not set, nor is {other}; set one of them to the session's token"]
        return []


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
