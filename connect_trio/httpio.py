"""HTTP/1.1 heads and bodies out of bytes: h11 judges every byte, nothing here is I/O.

h11's reader functions are used without its `Connection`, which halves what a request costs. What `Connection` did
besides reading is done by the edge: 1xx answers, upgrades, HTTP/1.0, close after errors, the end of the stream in a
body. The tests compare this module with `h11.Connection` event by event. It is the only one that knows h11, and it
uses names that h11 does not promise to keep: its minor version is pinned.

Where h11 is lenient and two readers could disagree on where a request ends, a `StrictInbox` refuses (RFC 9112,
sections 2.2, 5.2, 6.1 and 11.2): bare LF, folded lines, repeated Content-Length, Content-Length beside
Transfer-Encoding, Transfer-Encoding in HTTP/1.0.
"""

from __future__ import annotations

import re
from typing import NoReturn

import attrs
from h11 import EndOfMessage, InformationalResponse, LocalProtocolError
from h11._connection import _body_framing, _keep_alive
from h11._readers import ChunkedReader, maybe_read_from_IDLE_client, maybe_read_from_SEND_RESPONSE_server
from h11._receivebuffer import ReceiveBuffer

HeaderItem = tuple[bytes, bytes, bytes]
"""A header as it was written, its name in lower case, its value."""

_LENGTH_LINE = re.compile(rb"\r\ncontent-length:([^\r]*)", re.IGNORECASE)
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
_TOO_LARGE = 431  # RFC 6585, section 5


class HttpError(Exception):
    """A peer does not speak HTTP/1.1. status: what to answer if the peer is a visitor."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Inbox(ReceiveBuffer):
    """Bytes of one connection that were received and not yet read. As lenient as h11: for answers of tools.

    limit: the size in bytes of the largest head, chunk header or trailer section; what is longer is refused while it
    is still incomplete. Whoever feeds an inbox does so only when reading needs more, so it holds little beyond.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append received bytes."""
        self._data += data

    def take(self, count: int) -> bytearray:
        """Remove and return at most `count` bytes."""
        return self._extract(count)

    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = len(self._data)
        lines = super().maybe_extract_lines()
        if before - len(self._data) > self._limit or (lines is None and before > self._limit):
            self._refuse_size()
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        line = super().maybe_extract_next_line()
        if len(self._data if line is None else line) > self._limit:
            self._refuse_size()
        return line

    def _refuse_size(self) -> NoReturn:
        raise LocalProtocolError(f"longer than {self._limit} bytes", error_status_hint=_TOO_LARGE)


class StrictInbox(Inbox):
    """An inbox for requests: lines end in CRLF, are never folded, and there is one way to read the framing."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.section = bytearray()

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """The lines up to an empty one; `section` is what they were made of. None: more bytes are needed."""
        data = self._data
        if data.startswith(b"\r\n"):
            self._extract(2)
            return []
        searched = self._multiple_lines_search
        end = data.find(b"\r\n\r\n", max(0, searched - 3))
        if end + 4 > self._limit or (end < 0 and len(data) > self._limit):
            self._refuse_size()
        stop = len(data) if end < 0 else end
        if data.count(b"\n", searched, stop) != data.count(b"\r\n", max(0, searched - 1), stop):
            raise LocalProtocolError("a line ends in a bare LF")
        if end < 0:
            self._multiple_lines_search = len(data)
            return None
        section = self._extract(end + 4)
        if b"\n " in section or b"\n\t" in section:
            raise LocalProtocolError("a header line is folded")
        self.section = section
        return section[:end].split(b"\r\n")


@attrs.define(eq=False)
class RequestHead:
    """The head of a request.

    version: b"1.0" or b"1.1". length: of the body in bytes; None if it is `chunked`. keep_alive: whether another
    request may follow.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: list[HeaderItem]
    length: int | None
    chunked: bool
    keep_alive: bool


@attrs.define(eq=False)
class ResponseHead:
    """The head of an answer.

    length: of the body in bytes; None if it is `chunked` or, where that is false too, lasts until the stream ends.
    An interim answer (status below 200) has no body.
    """

    status: int
    reason: bytes
    headers: list[HeaderItem]
    length: int | None
    chunked: bool
    keep_alive: bool


def read_request(inbox: StrictInbox) -> RequestHead | None:
    """The next request of a visitor, or None while its head is incomplete. Raises HttpError.

    Call it again only when there are more bytes: on an empty inbox it is a waste.
    """
    try:
        event = maybe_read_from_IDLE_client(inbox)
        if event is None:
            return None
        version, items = event.http_version, event.headers._full_items
        if not version.startswith(b"1."):
            raise HttpError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
        names = {name for _, name, _ in items}
        length: int | None = 0
        if not _FRAMING.isdisjoint(names):
            _, arguments = _body_framing(event.method, event)
            length = arguments[0] if arguments else None
            _judge_framing(inbox.section, version, chunked=length is None)
        # Most requests have neither a body nor a Connection header; then h11's functions would search for nothing.
        keep_alive = _keep_alive(event) if b"connection" in names else version >= b"1.1"
        return RequestHead(event.method, event.target, version, items, length, length is None, keep_alive)
    except LocalProtocolError as exc:
        raise HttpError(str(exc), exc.error_status_hint) from exc


def _judge_framing(section: bytearray, version: bytes, *, chunked: bool) -> None:
    """Refuse a body that another reader could see end elsewhere. Raises HttpError."""
    lengths = _LENGTH_LINE.findall(section)
    if not chunked:
        if len(lengths) != 1 or not lengths[0].strip(b" \t").isdigit():
            raise HttpError("Content-Length is given more than once")
    elif lengths:
        raise HttpError("Content-Length and Transfer-Encoding are both given")
    elif version < b"1.1":
        raise HttpError("HTTP/1.0 has no Transfer-Encoding")


def read_response(inbox: Inbox, method: bytes) -> ResponseHead | None:
    """The next answer (final or interim) to a request with `method`, None while its head is incomplete.

    Raises HttpError. Transfer-Encoding wins over Content-Length (RFC 9112, section 6.3); then `keep_alive` is false.
    """
    try:
        event = maybe_read_from_SEND_RESPONSE_server(inbox)
        if event is None:
            return None
        items = event.headers._full_items
        if isinstance(event, InformationalResponse):
            return ResponseHead(event.status_code, event.reason, items, 0, False, True)
        framing, arguments = _body_framing(method, event)
        keep_alive = _keep_alive(event)
        if framing == "chunked":
            keep_alive = keep_alive and not any(name == b"content-length" for _, name, _ in items)
            return ResponseHead(event.status_code, event.reason, items, None, True, keep_alive)
        length = arguments[0] if arguments else None
        return ResponseHead(event.status_code, event.reason, items, length, False, keep_alive and length is not None)
    except LocalProtocolError as exc:
        raise HttpError(str(exc)) from exc


class ChunkedBody:
    """Reads a chunked body out of an inbox. Chunk extensions and trailers are judged and left behind.

    ended: whether the last chunk and its trailers were read.
    """

    __slots__ = ("_inbox", "_reader", "ended")

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._reader = ChunkedReader()
        self.ended = False

    def take(self) -> list[bytes]:
        """The pieces of the body that can be read now; none: more bytes are needed, or it `ended`. Raises HttpError."""
        pieces: list[bytes] = []
        try:
            while self._inbox:
                event = self._reader(self._inbox)
                if event is None:
                    break
                if isinstance(event, EndOfMessage):
                    self.ended = True
                    break
                pieces.append(event.data)
        except LocalProtocolError as exc:
            raise HttpError(str(exc), exc.error_status_hint) from exc
        return pieces
