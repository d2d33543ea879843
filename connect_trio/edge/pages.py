"""What a visitor reads when something fails: a page for a browser, JSON for everything else.

Each failure has an id that is also in the log, names the part that failed and says what to do.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
from email.utils import formatdate
from http import HTTPStatus

import attrs

from connect_trio.edge.framing import page_policy
from connect_trio.edge.gate import NOBODY, Headers, Reply

_STYLE = (
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f5f6f8;color:#1f2430;"
    "font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;margin:2rem;padding:2rem 2.5rem;background:#fff;border-radius:12px;"
    "box-shadow:0 1px 3px #0002,0 8px 24px #0001}"
    "h1{margin:0 0 1rem;font-size:1.4rem}p{margin:.5rem 0}small{color:#6b7280}"
    "@media(prefers-color-scheme:dark){body{background:#15181e;color:#e5e7eb}main{background:#1f242d}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
_HTML_HEADERS: Headers = ((b"Content-Type", b"text/html; charset=utf-8"),)
_JSON_HEADERS: Headers = ((b"Content-Type", b"application/json"),)
_COMMON_HEADERS: Headers = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
)

_ADVICE = {
    400: "Check the address. If a program sent this request, it has to be corrected.",
    403: "Open the Studio from its own address, or ask its owner for access.",
    404: "Check the address, or open the Studio again from the Platform.",
    408: "Try again; if this repeats, the network between you and Connect is slow or cut.",
    405: "This cannot be done here.",
    431: "Delete the cookies of this site and try again.",
    500: "Try again. If it happens again, report it with the id below.",
    502: "Try again. If it persists, look at the Studio's log, or restart the Studio.",
    503: "This page tries again by itself.",
    504: "Try again in a moment. If it persists, restart the Studio.",
}
_FALLBACK_ADVICE = "Try again. If it persists, report it with the id below."
_RETRY_SECONDS = 3


def new_id() -> str:
    """An id for one failure, short enough to be read out on the phone."""
    return secrets.token_hex(4)


@attrs.frozen(kw_only=True)
class Problem:
    """A failure that a visitor is told about.

    part: which part failed: "request", "proxy", or one of `dial.Failure`'s parts. text: what failed, one sentence.
    headers: to add to the answer. retry: whether a browser should try again by itself.
    """

    status: int
    part: str
    text: str
    id: str = attrs.field(factory=new_id)
    headers: Headers = ()
    retry: bool = False

    def reply(self, *, html: bool, frame_ancestors: bytes = NOBODY) -> Reply:
        """The complete answer, as a page or as JSON. frame_ancestors: who may show the page in a frame."""
        kind = _HTML_HEADERS + page_policy(_POLICY, frame_ancestors) if html else _JSON_HEADERS
        headers = kind + _COMMON_HEADERS + self.headers
        if self.retry:
            headers += ((b"Retry-After", b"%d" % _RETRY_SECONDS),)
        body = _page(self) if html else _json(self)
        return Reply(status=self.status, headers=headers, body=body)


def _json(problem: Problem) -> bytes:
    error = {"status": problem.status, "part": problem.part, "message": problem.text, "id": problem.id}
    return json.dumps({"error": error}).encode("ascii") + b"\n"


def _page(problem: Problem) -> bytes:
    title = f"{problem.status} {phrase(problem.status)}"
    refresh = f'<meta http-equiv="refresh" content="{_RETRY_SECONDS}">' if problem.retry else ""
    advice = _ADVICE.get(problem.status, _FALLBACK_ADVICE)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE and not problem.retry:
        advice = "Try again in a moment."
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width">{refresh}<style>{_STYLE}</style></head><body><main>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(problem.text)}</p><p>{html.escape(advice)}</p>"
        f"<p><small>Failed part: {html.escape(problem.part)} · id: {html.escape(problem.id)}</small></p>"
        "</main></body></html>\n"
    ).encode()


def phrase(status: int) -> str:
    """The reason phrase of a status; empty for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def serialise(reply: Reply, *, method: bytes, close: bool) -> bytes:
    """A reply as bytes, with Date, Content-Length and Connection; without its body for HEAD (RFC 9110, 9.3.2)."""
    bodiless = reply.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (reply.status, phrase(reply.status).encode("ascii")),
        *(b"%b: %b\r\n" % header for header in reply.headers),
        b"Date: %b\r\n" % formatdate(usegmt=True).encode("ascii"),
    ]
    if not bodiless:
        lines.append(b"Content-Length: %d\r\n" % len(reply.body))
    if close:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    if not bodiless and method != b"HEAD":
        lines.append(reply.body)
    return b"".join(lines)
