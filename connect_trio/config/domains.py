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


def apart(platform_url: str, proxy_url: str) -> str | None:
    """A warning if the two share no root domain. Development on localhost or by IP address is exempt."""
    roots = [root_domain(urlsplit(url).hostname or "") for url in (platform_url, proxy_url)]
    if None in roots or roots[0] == roots[1]:
        return None
    return (
        f"PLATFORM_URL ({roots[0]}) and CONNECT_PROXY_URL ({roots[1]}) share no root domain: inside Platform's pages "
        "browsers treat Studios as strangers and keep their cookies back; give both a host under one domain"
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
