"""Judging a request head before anybody acts on it: method, Host, target, upgrade; and writing it for a tool."""

from __future__ import annotations

import attrs

from connect_trio.edge.context import Context
from connect_trio.edge.errors import Refusal
from connect_trio.edge.gate import NOBODY, Admission, Reply, VisitorRequest
from connect_trio.edge.headers import identity_lines, request_lines, upgrade_tokens, values
from connect_trio.edge.pages import Problem
from connect_trio.edge.path_headers import PathMode
from connect_trio.edge.studio_paths import SlashMissing, StudioPath, studio_path
from connect_trio.edge.targets import BadTarget, Reach, origin_form, origin_refusal, reach
from connect_trio.httpio import RequestHead
from connect_trio.routing.names import InvalidHost, StudioHost, UnknownHost, studio_base

# CONNECT would make a tunnel of the connection (RFC 9110, section 9.3.6), TRACE would show what the edge added.
_REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))
_HTML = b"text/html"
_ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_NAVIGATING = (b"GET", b"HEAD")
_USUALLY_WITHOUT_BODY = frozenset((b"GET", b"HEAD", b"OPTIONS", b"DELETE"))


@attrs.define(kw_only=True, eq=False)
class Judged:
    """A request that is well formed and aimed at one of our hosts.

    target: in origin form. host: the Host header as it came. upgrade: protocols it asks to switch to.
    forwarded: the header lines that tell a tool about the visitor. moved: the path where this is really.
    """

    head: RequestHead
    target: bytes
    host: bytes
    reach: Reach
    upgrade: tuple[bytes, ...]
    forwarded: bytes
    request: VisitorRequest
    moved: str | None = None

    @property
    def paths(self) -> PathMode | None:
        """What to see to in a tool's answer; None on a host of the Studio's own."""
        return PathMode(self.request.base.encode("ascii"), self.host) if self.request.base else None


def wants_html(head: RequestHead) -> bool:
    """Whether a page is the right answer."""
    return any(_HTML in value for value in values(head.headers, b"accept"))


class Judge:
    """Judges the requests of one visitor connection.

    peer: the address of whoever connected.
    """

    def __init__(self, context: Context, peer: str) -> None:
        self._context = context
        self._peer = peer
        self._trusted = context.forwarding.trusts(peer)
        self._host: bytes | None = None
        self._name = ""
        self._label: str | None = None
        self._forwarded = b""

    def judge(self, head: RequestHead) -> Judged:
        """Raises Refusal, which closes the connection where the request cannot be trusted to end where it seems to."""
        if head.method in _REFUSED_METHODS:
            text = f"The method {head.method.decode('ascii')} is not available here."
            raise _refusal(405, text, headers=(_ALLOW,))
        items = head.headers
        named = {name: value for _, name, value in items}  # h11 refuses a second Host
        host = named.get(b"host")
        if host is None:
            raise _refusal(400, "A request needs a Host header.")
        if host != self._host:
            self._look_up(host)
        try:
            target = origin_form(head.method, head.target, host)
        except BadTarget as exc:
            raise _refusal(400, _sentence(exc)) from exc
        client, forwarded = self._describe(head, host)
        upgrade: tuple[bytes, ...] = ()
        if b"upgrade" in named and head.version >= b"1.1" and head.length == 0:
            upgrade = upgrade_tokens(items)
        shared_origin = self._label is None and self._context.path_routing()
        place = studio_path(target) if shared_origin else None
        label, base, rest = self._label, "", target
        if isinstance(place, StudioPath):
            label, base, rest = place.label, place.base, place.rest
        request = VisitorRequest(
            method=head.method,
            target=target,
            host=self._name,
            label=label,
            base=base,
            shared_origin=shared_origin,
            headers=tuple([(name, value) for _, name, value in items]),
            client=client,
            upgrade=bool(upgrade),
            wants_html=_HTML in named.get(b"accept", b""),
            frame_ancestors=NOBODY if label is None else self._context.frame_ancestors,
        )
        return Judged(
            head=head,
            target=target,
            host=host,
            reach=reach(rest),
            upgrade=upgrade,
            forwarded=forwarded,
            request=request,
            moved=place.location if isinstance(place, SlashMissing) else None,
        )

    def _look_up(self, host: bytes) -> None:
        """Whose host this is; remembered, since one connection rarely has two. Raises Refusal."""
        try:
            place = self._context.names.classify(host.decode("latin-1"))
        except InvalidHost as exc:
            raise _refusal(400, _sentence(exc)) from exc
        except UnknownHost as exc:
            raise Refusal(Problem(status=404, part="session", text=_sentence(exc))) from exc
        self._host = host
        self._name = host.decode("ascii").partition(":")[0].lower()
        self._label = place.label if isinstance(place, StudioHost) else None
        self._forwarded = self._context.forwarding.lines([self._peer], host, (), trusted=False)

    def _describe(self, head: RequestHead, host: bytes) -> tuple[str, bytes]:
        """The visitor's address, and the lines that tell a tool about it."""
        if not self._trusted:
            return self._peer, self._forwarded
        forwarding = self._context.forwarding
        path = forwarding.path(self._peer, head.headers)
        return path[0], forwarding.lines(path, host, head.headers, trusted=True)


def _refusal(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Refusal:
    return Refusal(Problem(status=status, part="request", text=text, headers=headers), close=True)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def lines_for_tool(judged: Judged, admission: Admission) -> bytes:
    """The head for the tool, complete: what Connect itself says comes last and cannot be said by anybody else."""
    head = judged.head
    lines = [
        b"%b %b HTTP/1.1\r\n" % (head.method, judged.target),
        *request_lines(head.headers, strip_cookies=admission.strip_cookies, expect=head.version >= b"1.1"),
    ]
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif head.length or head.method not in _USUALLY_WITHOUT_BODY:
        lines.append(b"Content-Length: %d\r\n" % (head.length or 0))
    if judged.upgrade:
        lines.append(b"Upgrade: %b\r\nConnection: Upgrade\r\n" % b", ".join(judged.upgrade))
    lines += judged.forwarded, identity_lines(admission.subject, admission.username), b"\r\n"
    return b"".join(lines)


def check_origin(context: Context, judged: Judged) -> None:
    """Refuse an upgrade that a page of another origin asks for. Raises Refusal."""
    label, names = judged.request.label, context.names
    if label is None or not judged.upgrade:
        return
    reason = origin_refusal(
        judged.head.headers,
        own_origin=names.own_origin if judged.request.base else names.studio_origin(label),
        scheme=names.scheme,
        host=judged.host,
    )
    if reason is not None:
        text = f"The connection was refused: {reason}."
        raise Refusal(Problem(status=403, part="request", text=text), close=True)


def moved(location: str) -> Reply:
    """To a path on the same host, with the same method."""
    return Reply(status=307, headers=((b"Location", location.encode("ascii")), (b"Cache-Control", b"no-store")))


def below_prefix(context: Context, judged: Judged) -> Reply | None:
    """Where on the Studio's own host to look for a page that its tool does not find there; None for nowhere.

    A tool that was started for paths has all its pages below that prefix, whatever the host.
    """
    request = judged.request
    if request.label is None or request.base or judged.upgrade or not context.path_routing():
        return None
    base = studio_base(request.label)
    if request.method not in _NAVIGATING or not request.wants_html or not request.target.startswith(b"/"):
        return None
    path = request.target.partition(b"?")[0] + b"/"
    below = path.startswith(f"{base}/".encode("ascii"))
    return None if below or not request.target.isascii() else moved(base + request.target.decode("ascii"))
