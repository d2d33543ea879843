"""Names: Host headers, labels, session ids and addresses. Pure: no I/O, no clock.

A Studio is reached under `<label>.<host of CONNECT_PROXY_URL>`, or `<label>.<CONNECT_STUDIO_DOMAIN>` if that is set;
the label is "a" and the session id. If paths are switched on, it is also reached under `/_studio/<label>/` of Connect's
own host (`edge/studio_paths.py` takes such paths apart). The exact host decides where a request goes and which cookies
it may carry, so nothing here is lenient: a Host header that two readers could understand differently is refused.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import attrs

_SESSION = re.compile(r"[0-9a-f]{8}")
_LABEL = re.compile(r"a([0-9a-f]{8})")
_HOST_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_IPV6_LITERAL = re.compile(r"\[[0-9a-f:.]{2,45}\]")
_HOST_HEADER = re.compile(r"([^:\[\]]+|\[[^\[\]]*\])(?::([0-9]{1,5}))?")
_ADDRESS = re.compile(r"([^:\[\]\s/@]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_URL_PATH = re.compile(r"/[\x21-\x7e]*")

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HOST = 253  # RFC 1035, section 2.3.4, as text without the root's dot
_MAX_PORT = 65535
_LABEL_ROOM = len("a00000000.")
_WRITE_DOMAIN = "write a host name without scheme, port or *, for example studios.example.org"


class InvalidHost(ValueError):
    """The Host header is malformed (RFC 9112, section 3.2: answer 400)."""


class UnknownHost(LookupError):
    """The Host header is well formed, but names nothing of ours."""


@attrs.frozen
class OwnHost:
    """Connect's own host: login, logout, the agents' tunnels."""


@attrs.frozen
class StudioHost:
    """The host of one Studio. label: "a23ce7967". session: "23ce7967"."""

    label: str
    session: str


def label_of(session: str) -> str:
    """The label of a session id: "23ce7967" -> "a23ce7967". Raises ValueError."""
    if not _SESSION.fullmatch(session):
        raise ValueError(f"not a session id (8 lower-case hex digits): {session!r}")
    return "a" + session


def session_of(label: str) -> str:
    """The session id of a label: "a23ce7967" -> "23ce7967". Raises ValueError."""
    match = _LABEL.fullmatch(label)
    if match is None:
        raise ValueError(f'not a label ("a" and 8 lower-case hex digits): {label!r}')
    return match[1]


def studio_base(label: str) -> str:
    """The path below which a Studio is on Connect's own host, without a slash at its end: "/_studio/a23ce7967".

    Raises ValueError if `label` is none.
    """
    session_of(label)
    return f"/_studio/{label}"


def split_address(text: str) -> tuple[str, int]:
    """ "redis:6379" -> ("redis", 6379), "[::1]:6379" -> ("::1", 6379). Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("not an address; write host:port, for example redis:6379 or [::1]:6379")
    port = int(match[2])
    if not 0 < port <= _MAX_PORT:
        raise ValueError(f"port {port} is out of range; write a number from 1 to {_MAX_PORT}")
    return match[1].strip("[]"), port


def join_address(host: str, port: int) -> str:
    """The reverse of `split_address`: an IPv6 address gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normalise_host(host_header: str) -> str:
    """The host of a Host header, in lower case and without its port. Raises InvalidHost.

    The grammar is the one of RFC 9112, section 3.2, less what different readers understand differently: no trailing
    dot, no empty port, no percent-encoding, no user information, nothing outside ASCII (RFC 5891 names travel as
    "xn--...").
    """
    # ASCII first: lower() makes "k" of the Kelvin sign.
    match = _HOST_HEADER.fullmatch(host_header) if host_header.isascii() else None
    if match is None:
        raise InvalidHost("the Host header is not host[:port] in ASCII")
    host, port = match[1].lower(), match[2]
    if len(host) > _MAX_HOST:
        raise InvalidHost("the host name is longer than 253 characters")
    if port is not None and not 0 < int(port) <= _MAX_PORT:
        raise InvalidHost("the port in the Host header is out of range")
    if not _is_host(host):
        raise InvalidHost("the Host header names no valid host")
    return host


def _is_host(host: str) -> bool:
    if host.startswith("["):
        return _IPV6_LITERAL.fullmatch(host) is not None
    return all(_HOST_LABEL.fullmatch(label) for label in host.split("."))


def studio_domain(text: str) -> str:
    """The domain under which Studios have their hosts, in lower case. Raises ValueError: how to mend it."""
    try:
        host = normalise_host(text)
    except InvalidHost as exc:
        raise ValueError(f"no domain ({exc}); {_WRITE_DOMAIN}") from exc
    if ":" in text:
        raise ValueError(f"no domain, since it has a port; {_WRITE_DOMAIN}")
    if _IPV4.fullmatch(host):
        raise ValueError(f"an IP address has no sub-domains for the Studios; {_WRITE_DOMAIN}")
    if len(host) + _LABEL_ROOM > _MAX_HOST:
        raise ValueError("too long for sub-domains; write a shorter domain")
    return host


def address_of(host: str) -> str:
    """Where to connect for a host: names under localhost are this machine, whatever resolvers say (RFC 6761, 6.3)."""
    return "127.0.0.1" if host.endswith(".localhost") else host


class HostNames:
    """The hosts of one Connect: its own, and those of its Studios.

    scheme, host, port: from CONNECT_PROXY_URL; the port is the scheme's where the URL has none.
    studio_domain: what the Studios' hosts end with: the own host, or CONNECT_STUDIO_DOMAIN.
    own_origin: "http://connect.localhost:8080", without a default port (RFC 6454, section 6.2).
    secure: whether browsers reach us by https.
    """

    def __init__(self, proxy_url: str, domain: str | None = None) -> None:
        """domain: CONNECT_STUDIO_DOMAIN. Raises ValueError, with a text that says how to mend it, if no Studio host
        can be made of these."""
        self.scheme, self.host, self.port = _parse_proxy_url(proxy_url)
        self.studio_domain = self.host if domain is None else studio_domain(domain)
        self.secure = self.scheme == "https"
        self._port_suffix = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        self.own_origin = f"{self.scheme}://{self.host}{self._port_suffix}"

    def __repr__(self) -> str:
        return f"HostNames({self.own_origin!r})"

    def classify(self, host_header: str) -> OwnHost | StudioHost:
        """Whose host this is. The port does not matter: it is whatever stands in front of us.

        Where Studios have a domain of their own, a host under the own one is nobody's.
        Raises InvalidHost where the header is malformed, UnknownHost where the host is not one of ours.
        """
        host = normalise_host(host_header)
        if host == self.host:
            return OwnHost()
        label, _, parent = host.partition(".")
        match = _LABEL.fullmatch(label)
        if parent != self.studio_domain or match is None:
            raise UnknownHost("this host is neither Connect's own nor a Studio's")
        return StudioHost(label=label, session=match[1])

    def studio_host(self, label: str) -> str:
        """ "a23ce7967.connect.localhost", without a port. Raises ValueError if `label` is none."""
        session_of(label)
        return f"{label}.{self.studio_domain}"

    def studio_origin(self, label: str) -> str:
        """ "http://a23ce7967.connect.localhost:8080". Raises ValueError if `label` is none."""
        return f"{self.scheme}://{self.studio_host(label)}{self._port_suffix}"

    def studio_url(self, label: str, path: str = "/") -> str:
        """An absolute URL on a Studio's host. Raises ValueError if `path` does not begin with "/" or is not ASCII."""
        return self.studio_origin(label) + _url_path(path)

    def studio_path_url(self, label: str, path: str = "/") -> str:
        """The same of a Studio below Connect's own host: "http://connect.localhost:8080/_studio/a23ce7967/"."""
        return self.own_origin + studio_base(label) + _url_path(path)


def _url_path(path: str) -> str:
    if not _URL_PATH.fullmatch(path):
        raise ValueError(f"not an absolute path in ASCII without spaces: {path!r}")
    return path


def _parse_proxy_url(proxy_url: str) -> tuple[str, str, int]:
    if not proxy_url.isascii() or not proxy_url.isprintable() or " " in proxy_url:
        raise ValueError("has characters that a URL cannot have; write international names as xn--...")
    parts = urlsplit(proxy_url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("not a URL; write http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("too long; write only the scheme, the host and, if need be, the port")
    try:
        host = normalise_host(parts.netloc)
    except InvalidHost as exc:
        raise ValueError(f"no valid host ({exc}); write http://HOST[:PORT] or https://HOST[:PORT]") from exc
    if host.startswith("[") or _IPV4.fullmatch(host):
        raise ValueError(
            "an IP address has no sub-domains for the Studios; write a host name, for example http://connect.localhost:8080"
        )
    if len(host) + _LABEL_ROOM > _MAX_HOST:
        raise ValueError("the host name is too long for sub-domains; write a shorter one")
    return parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme]
