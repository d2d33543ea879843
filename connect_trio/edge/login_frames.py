"""Logins inside other pages: tried without a word where cookies can work there, otherwise left to a window.

A login page in a frame is of no use: Platform does not let it be framed, and rightly. So a frame gets in only if
Platform says at once who somebody is (`prompt=none`); whatever else comes out ends at a page with a button, which opens
the Studio in a window of its own. Nothing here sends a frame anywhere by itself a second time.

Cookies are not made to work across sites (`SameSite=None; Partitioned`): each request of any site would carry them, and
Platform's own cookie would have to be of that kind too.
"""

from __future__ import annotations

import enum
from urllib.parse import urlsplit

from connect_trio.edge.framing import is_frame
from connect_trio.edge.gate import Headers, VisitorRequest
from connect_trio.edge.login_pages import Link, Notice
from connect_trio.edge.login_requests import single_header

WINDOW_PATH = "/_connect/window"


class Why(enum.Enum):
    """Why a Studio does not open in a frame."""

    SITE = "site"
    LOGIN = "login"
    COOKIES = "cookies"
    PLATFORM = "platform"


_REASONS = {
    Why.SITE: "It is inside a page of another site, where your browser keeps back what tells Connect who you are.",
    Why.LOGIN: "You are not logged in, and nobody can log in inside of another page.",
    Why.COOKIES: "Inside of this page, your browser does not send Connect's cookie.",
    Why.PLATFORM: "Platform could not be asked who you are.",
}


def in_frame(request: VisitorRequest) -> bool:
    """Whether the answer will be shown inside another page.

    Browsers say so over https and on localhost (Fetch Metadata); one that does not is taken for a window.
    """
    return is_frame(single_header(request, b"sec-fetch-dest"))


def is_cross_site(request: VisitorRequest) -> bool:
    """Whether a browser says that a page of another site is behind this request, so that our cookies stay away."""
    return single_header(request, b"sec-fetch-site") == b"cross-site"


def is_framed_by_stranger(request: VisitorRequest, own_origin: str) -> bool:
    """Whether the page around the frame says that it is none which may show a Studio.

    Not a defence, since a page can keep its Referer back: browsers show such a page nothing, whatever we answer. It
    saves a login that is of no use.
    """
    referer = single_header(request, b"referer")
    if referer is None:
        return False
    try:
        parts = urlsplit(referer.decode("latin-1"))
    except ValueError:
        return True
    origin = f"{parts.scheme}://{parts.netloc}".lower().encode("latin-1")
    return origin != own_origin.encode("ascii") and origin not in request.frame_ancestors.split()


def open_outside(url: str, why: Why, *, headers: Headers = ()) -> Notice:
    """The page with the button. url: of the Studio, where its visitor wants to go."""
    links = [Link("Open the Studio", url, window=True)]
    if why is not Why.SITE:
        links.append(Link("Try again here", url))
    return Notice(
        status=401,
        code="open_in_window",
        title="Open this Studio in a window of its own",
        paragraphs=(_REASONS[why],),
        links=tuple(links),
        headers=headers,
    )


def why_of_untrusted(text: str | None) -> Why:
    """The reason in an address, which anybody can write."""
    try:
        return Why(text)
    except ValueError:
        return Why.LOGIN
