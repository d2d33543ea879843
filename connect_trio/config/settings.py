# ruff: noqa: RUF009 - `variable` returns an attrs field
"""The settings of server and proxy. The docstring of a field is the `meaning` of its variable.

Names and defaults are a contract with operators, except for those of additions, which are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from connect_trio.config import converters as to
from connect_trio.config.domains import apart
from connect_trio.config.environment import variable
from connect_trio.config.settings_ssh import SshSettings
from connect_trio.routing.names import join_address

_REDIS_ADDRESS = "Redis, as host:port, or several separated by commas: the first that is a primary is used."


def both_or_none(one: str, other: str, given: AbstractSet[str]) -> list[str]:
    """The error line if only one of two variables is set."""
    if (one in given) == (other in given):
        return []
    there, missing = (one, other) if one in given else (other, one)
    return [f"{missing} is not set, but {there} is; set both or none"]


@attrs.frozen(kw_only=True)
class RedisSettings:
    """How to reach Redis; part of the server's and the proxy's settings."""

    redis_address: str = variable(
        "CONNECT_REDIS_ADDRESS", to.redis_addresses, default="redis:6379", meaning=_REDIS_ADDRESS
    )
    redis_sentinel: str | None = variable(
        "CONNECT_REDIS_SENTINEL",
        to.token,
        addition=True,
        meaning="Name of the primary at sentinels; then the addresses are those of the sentinels.",
    )
    redis_sentinel_user: str | None = variable(
        "CONNECT_REDIS_SENTINEL_USER", to.text, addition=True, meaning="ACL user of the sentinels."
    )
    redis_sentinel_password: str | None = variable(
        "CONNECT_REDIS_SENTINEL_PASSWORD", str, secret=True, addition=True, meaning="Password of the sentinels' user."
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

    redis_tls_ca_file: Path | None = variable(
        "CONNECT_REDIS_TLS_CA_FILE",
        to.readable_file,
        addition=True,
        meaning="Authorities that may have signed Redis' certificate, a PEM file, instead of the system's.",
    )

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        sentinel = "CONNECT_REDIS_SENTINEL"
        alone = {f"{sentinel}_USER", f"{sentinel}_PASSWORD"} & given if sentinel not in given else set()
        return [
            *both_or_none("CONNECT_REDIS_TLS_KEY_FILE", "CONNECT_REDIS_TLS_CERT_FILE", given),
            *(f"{sentinel} is not set, but {name} is; set it to the name of the primary" for name in sorted(alone)),
        ]


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
class LinkSettings(ReplicaSettings):
    """How servers and proxies know each other (docs/links.md)."""

    cluster_key: tuple[str, ...] = variable(
        "CONNECT_CLUSTER_KEY",
        to.cluster_keys,
        default="",
        secret=True,
        addition=True,
        meaning="Key that servers and proxies share, or several separated by commas; if not set, one is kept in Redis.",
    )


@attrs.frozen(kw_only=True)
class ServerLinkSettings(LinkSettings):
    """The server's side of links."""

    link_tls_cert_file: Path | None = variable(
        "CONNECT_LINK_TLS_CERT_FILE",
        to.readable_file,
        addition=True,
        meaning="Certificate chain that the server shows to proxies, a PEM file; without it, links are not encrypted.",
    )
    link_tls_key_file: Path | None = variable(
        "CONNECT_LINK_TLS_KEY_FILE", to.readable_file, addition=True, meaning="Key of that certificate, a PEM file."
    )

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        return [
            *RedisSettings.problems(given),
            *both_or_none("CONNECT_LINK_TLS_KEY_FILE", "CONNECT_LINK_TLS_CERT_FILE", given),
        ]


@attrs.frozen(kw_only=True)
class ProxyLinkSettings(LinkSettings):
    """The proxy's side of links."""

    link_tls_ca_file: Path | None = variable(
        "CONNECT_LINK_TLS_CA_FILE",
        to.readable_file,
        addition=True,
        meaning="Authorities of the servers' certificates, a PEM file; without it, the proxy speaks no TLS to servers.",
    )


@attrs.frozen(kw_only=True)
class ServerSettings(ServerLinkSettings):
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
        default="::",
        addition=True,
        meaning="Address that the listener and tunnel ports are bound to; :: is all of this machine, IPv4 and IPv6.",
    )
    advertise_address: str | None = variable(
        "CONNECT_ADVERTISE_ADDRESS",
        to.address,
        addition=True,
        meaning="host:port where proxies reach this server, instead of its host name and listener port.",
    )
    host_domain: str | None = variable(
        "CONNECT_HOST_DOMAIN",
        to.domain,
        meaning="Domain that is appended to the server's host name where it publishes it.",
    )

    def published_address(self, hostname: str, *, port: int | None = None) -> str:
        """host:port to publish. port: the one actually bound, where `listener_port` is 0."""
        if self.advertise_address is not None:
            return self.advertise_address
        name = hostname
        # Some hosts know their whole name already.
        if self.host_domain is not None and not hostname.lower().endswith(f".{self.host_domain.lower()}"):
            name = f"{hostname}.{self.host_domain}"
        return join_address(name, port or self.listener_port)


@attrs.frozen(kw_only=True)
class ProxySettings(SshSettings, ProxyLinkSettings):
    """The proxy: the edge that visitors and agents reach."""

    redis_address: str = variable("CONNECT_REDIS_ADDRESS", to.redis_addresses, required=True, meaning=_REDIS_ADDRESS)
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
        meaning="URL of Connect itself; Studios are sub-domains of its host, unless CONNECT_STUDIO_DOMAIN is set.",
    )
    studio_domain: str | None = variable(
        "CONNECT_STUDIO_DOMAIN",
        to.studio_domain,
        addition=True,
        meaning="Domain whose sub-domains are the Studios, instead of the host of CONNECT_PROXY_URL.",
    )
    path_routing: str = variable(
        "CONNECT_PATH_ROUTING",
        to.choice("auto", "on", "off"),
        default="auto",
        addition=True,
        meaning="Whether Studios are also below /_studio/ of CONNECT_PROXY_URL: auto (as Platform says), on or off.",
    )
    tunnel_url: tuple[str, ...] = variable(
        "CONNECT_TUNNEL_URL",
        to.addresses,
        required=True,
        meaning="Tunnel port of the servers, as host:port without a scheme, or several separated by commas.",
    )
    platform_url: str = variable("PLATFORM_URL", to.base_url, required=True, meaning="URL of Platform.")
    frame_ancestors: tuple[str, ...] | None = variable(
        "CONNECT_FRAME_ANCESTORS",
        to.origins,
        addition=True,
        meaning="Origins, separated by commas, whose pages may show Studios in frames, or none; "
        "if not set, that of PLATFORM_URL.",
    )
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
    client_id: str | None = variable(
        "CONNECT_OIDC_CLIENT_ID",
        to.text,
        addition=True,
        meaning="OIDC client that Platform was told of by hand; instead of dynamic registration.",
    )
    client_secret: str | None = variable(
        "CONNECT_OIDC_CLIENT_SECRET", to.text, secret=True, addition=True, meaning="Secret of that client."
    )
    oidc_path: str = variable(
        "CONNECT_OIDC_DISCOVERY_PATH",
        to.discovery_path,
        default="/api/.well-known/openid-configuration",
        addition=True,
        meaning="Path below PLATFORM_URL where Platform describes itself as an OpenID provider.",
    )
    platform_ca_file: Path | None = variable(
        "CONNECT_PLATFORM_CA_FILE",
        to.readable_file,
        addition=True,
        meaning="Authorities that may have signed Platform's certificate, a PEM file, instead of the system's.",
    )
    login_idle: float = variable(
        "CONNECT_LOGIN_IDLE_TIMEOUT",
        to.login_life,
        default="24h",
        addition=True,
        meaning="How long a visitor's login lasts without being used; 10s to 8784h, at most CONNECT_LOGIN_LIFETIME.",
    )
    login_life: float = variable(
        "CONNECT_LOGIN_LIFETIME",
        to.login_life,
        default="168h",
        addition=True,
        meaning="How long a visitor's login lasts at most, however much it is used; 10s to 8784h.",
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
    resume_timeout: float = variable(
        "CONNECT_RESUME_TIMEOUT",
        to.resume_timeout,
        default="10m",
        addition=True,
        meaning="How long a stream may be without a way to its agent before it is given up; 1s to 1h.",
    )
    stream_memory: int = variable(
        "CONNECT_STREAM_MEMORY",
        to.size,
        default="512MiB",
        addition=True,
        meaning="What all streams of the process may keep in memory together; the fuller, the less each one.",
    )

    @property
    def ancestors(self) -> tuple[str, ...]:
        """Origins whose pages may show Studios in frames."""
        if self.frame_ancestors is not None:
            return self.frame_ancestors
        parts = urlsplit(self.platform_url)
        return (f"{parts.scheme}://{parts.netloc}",)

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        return [
            *ProxyLinkSettings.problems(given),
            *both_or_none("CONNECT_OIDC_CLIENT_ID", "CONNECT_OIDC_CLIENT_SECRET", given),
        ]

    @staticmethod
    def conflicts(values: Mapping[str, object], given: AbstractSet[str]) -> list[str]:
        """Which values contradict each other. A default gives way (`logins`)."""
        idle, life = values.get("login_idle"), values.get("login_life")
        if "CONNECT_LOGIN_IDLE_TIMEOUT" not in given or not (isinstance(idle, float) and isinstance(life, float)):
            return []
        if idle <= life:
            return []
        return [
            f"CONNECT_LOGIN_IDLE_TIMEOUT ({idle:g} s) is longer than CONNECT_LOGIN_LIFETIME ({life:g} s);"
            " shorten the former or lengthen the latter"
        ]

    @property
    def logins(self) -> tuple[float, float]:
        """Seconds that a login lasts without being used, and at most."""
        return min(self.login_idle, self.login_life), self.login_life

    def warnings(self) -> list[str]:
        """What works, but not well."""
        return apart(self.platform_url, self.proxy_url, self.studio_domain)
