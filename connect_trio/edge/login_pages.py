"""Answers about logins and permissions: pages for browsers, JSON for everything else."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

import attrs
import jinja2

from connect_trio.edge.framing import is_frame, page_policy
from connect_trio.edge.gate import NOBODY, Headers, Reply, VisitorRequest
from connect_trio.edge.login_requests import single_header
from connect_trio.edge.pages import new_id

logger = logging.getLogger(__name__)

_STYLE = files("connect_trio.edge").joinpath("login.css").read_text("utf-8").strip()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE = jinja2.Environment(
    loader=jinja2.PackageLoader("connect_trio.edge", ""), autoescape=True, undefined=jinja2.StrictUndefined
).get_template("login.html")

_COMMON: Headers = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    # "no-referrer" would make browsers send `Origin: null` with our own form.
    (b"Referrer-Policy", b"same-origin"),
)
_HTML: Headers = ((b"Content-Type", b"text/html; charset=utf-8"),)
# Without form-action: browsers apply it to the redirects after the form too, and a logout ends at Platform.
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'"
# Makes a page an origin of its own: one that has opened it from the same host cannot look into it.
_SANDBOX = "sandbox allow-forms allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation"
_JSON: Headers = ((b"Content-Type", b"application/json"),)
RETRY: Final[Headers] = ((b"Retry-After", b"3"),)
_FAILURE: Final = 400
_LOG_IN: Final = 401


@attrs.frozen
class Link:
    """window: whether it is a button that opens a window of its own."""

    text: str
    url: str
    window: bool = False

    def leaves(self, host: str) -> bool:
        """Whether it leads to another host."""
        return urlsplit(self.url).hostname not in (None, host)


@attrs.frozen(kw_only=True)
class StudioRow:
    """A line in a list of Studios. url: None for one that does not run. about: what people may want to know of it."""

    name: str
    url: str | None
    about: str


@attrs.frozen(kw_only=True)
class Notice:
    """Something that a visitor is told.

    code: for programs. part: what failed, if something did. logout: text of the button that logs out, None for none.
    logout_ticket: what that button sends along; without it, it only leads to the page that asks where scripts of
    Studios could press it.
    framed: whether those may show it in a frame that may show the Studio.
    id: of a failure, by which it is found in the log.
    """

    status: int
    code: str
    title: str
    paragraphs: tuple[str, ...]
    part: str | None = None
    links: tuple[Link, ...] = ()
    logout: str | None = None
    logout_ticket: str | None = attrs.field(default=None, repr=False)
    framed: bool = True
    studios: tuple[StudioRow, ...] = ()
    headers: Headers = ()
    id: str = attrs.field(factory=new_id)

    def reply(self, request: VisitorRequest, *, navigates: bool = True) -> Reply:
        """A page where the visitor can read one, JSON otherwise. navigates: whether a browser would show it."""
        if self.status >= _FAILURE:
            details = {"client": request.client, "host": request.host}
            # Whoever is not logged in gets one answer for each request, and a forgotten tab asks all day.
            level = logging.DEBUG if self.status == _LOG_IN else logging.INFO
            text = " ".join(self.paragraphs)
            logger.log(level, "[%s] %d, %s: %s", self.id, self.status, self.code, text, extra=details)
        return self._page(request) if request.wants_html and navigates else self._json()

    def _page(self, request: VisitorRequest) -> Reply:
        unscripted = request.shared_origin and request.label is None
        policy = page_policy(
            f"{_POLICY}; {_SANDBOX}" if unscripted else _POLICY, request.frame_ancestors if self.framed else NOBODY
        )
        fields = ("title", "paragraphs", "studios", "links", "logout", "part", "id")
        values = {field: getattr(self, field) for field in fields}
        # Other hosts than this one do not show in the frame, so that links to them have to leave it.
        leaves = request.host if is_frame(single_header(request, b"sec-fetch-dest")) else None
        presses = not request.shared_origin or self.logout_ticket is not None
        ticket = f"?ticket={self.logout_ticket}" if self.logout_ticket is not None else ""
        values |= {"failed": self.status >= _FAILURE, "leaves": leaves, "presses": presses, "ticket": ticket}
        body = _PAGE.render(values, style=_STYLE).encode()
        return Reply(status=self.status, headers=_HTML + policy + _COMMON + self.headers, body=body)

    def _json(self) -> Reply:
        message = " ".join(self.paragraphs)
        error = {"status": self.status, "code": self.code, "part": self.part, "message": message, "id": self.id}
        return json_reply(self.status, {"error": error}, headers=self.headers)


def json_reply(status: int, document: object, *, headers: Headers = ()) -> Reply:
    return Reply(status=status, headers=_JSON + _COMMON + headers, body=json.dumps(document).encode() + b"\n")


def redirect(url: str, *, status: int = 302, headers: Headers = ()) -> Reply:
    """Send the browser to an absolute address of printable ASCII."""
    return Reply(status=status, headers=((b"Location", url.encode("ascii")), *_COMMON, *headers))


def platform_away(reason: str) -> Notice:
    text = f"Connect cannot ask Platform who may come in: {reason}."
    advice = "Try again in a moment. Studios that you have open go on for a while."
    return Notice(
        status=503,
        code="platform_unavailable",
        title="Platform does not answer",
        paragraphs=(text, advice),
        part="platform",
        headers=RETRY,
    )


def registry_away() -> Notice:
    return Notice(
        status=503,
        code="registry_unavailable",
        title="Connect cannot look up logins",
        paragraphs=("Connect's registry does not answer.", "Try again in a moment."),
        part="registry",
        headers=RETRY,
    )


def too_many_logins() -> Notice:
    return Notice(
        status=429,
        code="too_many_logins",
        title="Too many logins",
        paragraphs=("Too many logins were begun from your network address.", "Try again in a minute."),
        headers=((b"Retry-After", b"60"),),
    )


def cookies_blocked(retry: Link, *, headers: Headers = ()) -> Notice:
    return Notice(
        status=400,
        code="no_cookies",
        title="Your browser does not send Connect's cookie",
        paragraphs=(
            "You are logged in, but the cookie that says so does not come back, so you would be sent in circles.",
            "Allow cookies for this site. If they are allowed, delete this site's cookies: another page may have set"
            " one of the same name.",
        ),
        links=(retry,),
        headers=headers,
    )


def login_failed(reason: str, retry: Link, *, headers: Headers = ()) -> Notice:
    return Notice(
        status=400,
        code="login_failed",
        title="The login did not work",
        paragraphs=(reason, "Nothing is lost: begin again."),
        links=(retry,),
        headers=headers,
    )
