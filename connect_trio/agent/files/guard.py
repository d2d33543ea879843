"""Whether a changing request comes from our own page, not from another site that the visitor has open. Pure.

The visitor's cookie proves who they are, not that they meant it. Browsers say where a request comes from:
Sec-Fetch-Site (W3C Fetch Metadata) on https and localhost, Origin (RFC 6454) everywhere on what changes something.
Neighbouring Studios are other *origins* of the same *site*, so only "same-origin" will do. Programs that are no
browsers send neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from connect_trio.agent.files.problems import Problem


def check_same_origin(headers: Mapping[str, str]) -> None:
    """Raise Problem (403) if a browser says that the request comes from elsewhere. `headers` ignores case."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        allowed = site == "same-origin"
    else:
        origin = headers.get("origin")
        # The edge sets the forwarded host itself and a page cannot, short of a preflight that nobody here grants.
        hosts = {headers.get("host"), headers.get("x-forwarded-host")} - {None}
        allowed = origin is None or _host_of(origin) in hosts
    if not allowed:
        raise Problem(403, "This request comes from another site, which may not change files here.")


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
