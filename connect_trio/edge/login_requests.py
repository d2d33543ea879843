"""What a request to Connect's own pages says, with nothing taken on trust. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from connect_trio.edge.gate import VisitorRequest

_PATH = re.compile(rb"/(?!/)[\x21-\x5b\x5d-\x7e]*")  # printable ASCII without the backslash
_MAX_PATH = 2048
_MAX_FIELDS = 20


def single_header(request: VisitorRequest, name: bytes) -> bytes | None:
    """The value of a header that occurs once; None if it is absent or repeated."""
    values = [value for header, value in request.headers if header == name]
    return values[0] if len(values) == 1 else None


def split_target(request: VisitorRequest) -> tuple[str, dict[str, str]]:
    """Path (of a Studio: below its base) and query; a field that occurs more than once is left out, since who reads it
    could differ."""
    path, _, query = request.target[len(request.base) :].decode("latin-1").partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        pairs = []
    names = [name for name, _ in pairs]
    return path, {name: value for name, value in pairs if names.count(name) == 1}


def return_path(target: bytes) -> str:
    """Where a visitor returns to after the login: path and query on the same host, or "/".

    Anything that some reader could take for another host, or for two lines, becomes "/".
    """
    path = target.partition(b"#")[0]
    if len(path) > _MAX_PATH or not _PATH.fullmatch(path) or path.startswith(b"/_connect"):
        return "/"
    return path.decode("ascii")


def navigates(request: VisitorRequest) -> bool:
    """Whether a browser is going to show the answer as a page, so that a redirect to a login makes sense."""
    return request.method == b"GET" and request.wants_html and not request.upgrade


def is_from_own_page(request: VisitorRequest, *, scheme: str) -> bool:
    """Whether a browser says that a page of this very host sent a form. Silence is no.

    A sibling Studio is same-site, so that SameSite cookies do not keep its pages out: only the origin does.
    """
    site = single_header(request, b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin, host = single_header(request, b"origin"), single_header(request, b"host")
    return origin is not None and host is not None and origin.lower() == scheme.encode() + b"://" + host.lower()


def is_forged(request: VisitorRequest, *, own_origin: str, scheme: str) -> bool:
    """Whether a page of another origin makes a visitor's browser change something.

    Browsers say so by Fetch Metadata. Over plain http, and before there was any, they say only which origin asks, and
    "null" where a page withholds it, as a sibling's may. own_origin: of the Studio; its host counts with any port, as
    for WebSockets.
    """
    if request.method in (b"GET", b"HEAD", b"OPTIONS"):
        return False
    sites = [value for name, value in request.headers if name == b"sec-fetch-site"]
    if sites:
        return not {b"same-origin", b"none"}.issuperset(sites)
    host = single_header(request, b"host") or b""
    own = own_origin.encode("ascii"), scheme.encode("ascii") + b"://" + host.lower()
    return any(name == b"origin" and value.lower() not in own for name, value in request.headers)


def is_scripted(request: VisitorRequest) -> bool:
    """Whether a browser says that a script, a style sheet or a picture is behind this, and nobody who opens a page."""
    mode = single_header(request, b"sec-fetch-mode")
    return mode is not None and mode != b"navigate"


def is_from_elsewhere(request: VisitorRequest, own_origin: str) -> bool:
    """Whether a page of Connect's own host, but not of the Studio `request.base`, is behind this.

    To follow a link from there is no harm. A speed bump, no more: a script can give its page any path of its origin as
    address, or send no Referer (docs/security.md).
    """
    referer = single_header(request, b"referer")
    if referer is None:
        return False
    destination = single_header(request, b"sec-fetch-dest")
    opens = navigates(request) and destination in (b"document", None)
    page = referer.decode("latin-1")
    inside = page.startswith(f"{own_origin}{request.base}/")
    return not opens and not inside and f"{page}/".startswith(f"{own_origin}/")
