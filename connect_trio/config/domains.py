"""Whether two URLs share a root domain, as browsers understand it: what one may have as a cookie's or a frame's owner.

Browsers look it up in the Public Suffix List. It is large and changes, so here is a rule instead: the root domain is
the last two labels of a name; three, where the last is a country's and the one before it a usual category ("co.uk").
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

_CATEGORIES = frozenset(["ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"])
_COUNTRY = 2  # letters


def root_domain(host: str) -> str | None:
    """ "connect.studios.example.co.uk" -> "example.co.uk". None where there is none: localhost, IP addresses."""
    labels = host.lower().rstrip(".").split(".")
    if labels[-1] == "localhost" or _is_address(host):
        return None
    categorised = len(labels) > 2 and len(labels[-1]) == _COUNTRY and labels[-2] in _CATEGORIES
    return ".".join(labels[-3:] if categorised else labels[-2:])


def apart(platform_url: str, proxy_url: str, studio_domain: str | None = None) -> list[str]:
    """A warning for each of Connect's domains that shares no root domain with Platform.

    Development on localhost or by IP address is exempt.
    """
    platform = root_domain(urlsplit(platform_url).hostname or "")
    domains = {"CONNECT_PROXY_URL": urlsplit(proxy_url).hostname or ""}
    if studio_domain is not None:
        domains["CONNECT_STUDIO_DOMAIN"] = studio_domain
    roots = {name: root_domain(host) for name, host in domains.items()}
    return [
        f"PLATFORM_URL ({platform}) and {name} ({root}) share no root domain: inside Platform's pages browsers treat "
        "Studios as strangers and keep their cookies back, so that they open in windows of their own only; "
        "give both a host under one domain, unless they are apart on purpose"
        for name, root in roots.items()
        if platform is not None and root is not None and root != platform
    ]


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
