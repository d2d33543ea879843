"""httpio says what `h11.Connection` says, except where it is stricter on purpose."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_trio.httpio import (
    ChunkedBody,
    HttpError,
    Inbox,
    RequestHead,
    ResponseHead,
    StrictInbox,
    read_request,
    read_response,
)

LIMIT = 16 * 1024  # that of h11

Transcript = list[tuple[object, ...]]

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"POST /x?y HTTP/1.1\r\nhost:a\r\nContent-Length:   5  \r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA \r\n0123456789\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\x01\r\nY:\t z \t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"\r\n\r\n",
    b"\x16\x03\x01",
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2 * LIMIT,
]

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nother bytes",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\nX: a\n b\n\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 000 What\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"nonsense\r\n\r\n",
]

FRAGMENTS = st.sampled_from(
    [
        *(b"GET", b"POST", b"HEAD", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1 200 OK", b"HTTP/1.1 100 X"),
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\n\n", b"\t", b":", b",", b";", b"\0", b"\xff"),
        *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"content-length: 3, 3\r\n", b"Content-Length: 0\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding:",
            b"Connection: close\r\n",
            b"X: y\r\n",
            b" folded\r\n",
        ),
        *(b"0\r\n", b"3\r\nabc\r\n", b"abc", b"5;x\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffffffffff\r\n"),
    ]
)
SKELETONS = st.sampled_from([*REQUESTS, *RESPONSES])
HOSTILE = st.lists(FRAGMENTS, max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message with something inserted, removed or replaced somewhere."""
    message = draw(SKELETONS)[:2000]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(message)))
        stop = draw(st.integers(start, min(start + 4, len(message))))
        message = message[:start] + draw(st.one_of(FRAGMENTS, st.binary(max_size=3))) + message[stop:]
    return message


MESSAGES = st.one_of(HOSTILE, damaged())


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def said_by_h11(pieces: Sequence[bytes], role: type[h11.CLIENT | h11.SERVER], method: bytes) -> Transcript:
    """What one message is for `h11.Connection`: heads, body as a whole, how it ends."""
    connection = h11.Connection(h11.SERVER if role is h11.CLIENT else h11.CLIENT, LIMIT)
    if role is h11.SERVER:
        asked = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "x")]  # or a 101 would be an error
        connection.send(h11.Request(method=method, target="/", headers=asked))
        connection.send(h11.EndOfMessage())
    said: Transcript = []
    body = b""
    for piece in [*pieces, b""]:
        connection.receive_data(piece)
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return [*said, ("body", body), ("error",)]
            if event is h11.NEED_DATA:
                break
            if isinstance(event, h11.Request):
                said.append(("request", event.method, event.target, event.http_version, list(event.headers)))
            elif isinstance(event, h11.InformationalResponse | h11.Response):
                said.append(("response", event.status_code, event.reason, list(event.headers)))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return [*said, ("body", body), ("end",)]
            else:  # closed before a message, or paused after a 101
                return [*said, ("body", body), ("nothing",)]
    raise AssertionError("h11 waits for more after the end")


class Ours:
    """One message by httpio, as the edge uses it."""

    def __init__(self, inbox: Inbox, read: Callable[[], RequestHead | ResponseHead | None]) -> None:
        self._inbox = inbox
        self._read = read
        self._said: Transcript = []
        self._head: RequestHead | ResponseHead | None = None
        self._chunks: ChunkedBody | None = None
        self._body = b""

    def say(self, pieces: Sequence[bytes]) -> Transcript:
        try:
            for piece in pieces:
                self._inbox.feed(piece)
                if self._head is None:
                    self._read_heads()
                end = self._read_body() if self._head is not None else None
                if end is not None:
                    return [*self._said, ("body", self._body), (end,)]
        except HttpError:
            return [*self._said, ("body", self._body), ("error",)]
        return [*self._said, ("body", self._body), (self._at_the_end_of_the_stream(),)]

    def _read_heads(self) -> None:
        while self._head is None and self._inbox:
            head = self._read()
            if head is None:
                return
            headers = [(name, value) for _, name, value in head.headers]
            if isinstance(head, RequestHead):
                self._said.append(("request", head.method, head.target, head.version, headers))
            else:
                self._said.append(("response", head.status, head.reason, headers))
                if head.status < 200 and head.status != 101:
                    continue
            self._head = head
            self._chunks = ChunkedBody(self._inbox) if head.chunked else None

    def _read_body(self) -> str | None:
        assert self._head is not None
        if self._chunks is not None:
            self._body += b"".join(self._chunks.take())
            return "end" if self._chunks.ended else None
        if isinstance(self._head, ResponseHead) and self._head.status == 101:
            return "nothing"
        length = self._head.length
        self._body += self._inbox.take(len(self._inbox) if length is None else length - len(self._body))
        return "end" if len(self._body) == length else None

    def _at_the_end_of_the_stream(self) -> str:
        if self._head is None:
            return "error" if self._inbox else "nothing"
        return "error" if self._chunks is not None or self._head.length is not None else "end"


def request_by_us(pieces: Sequence[bytes]) -> Transcript:
    inbox = StrictInbox(LIMIT)
    return Ours(inbox, lambda: read_request(inbox)).say(pieces)


def response_by_us(pieces: Sequence[bytes], method: bytes) -> Transcript:
    inbox = Inbox(LIMIT)
    said = Ours(inbox, lambda: read_response(inbox, method)).say(pieces)
    if said[-1] == ("nothing",) and not any(entry[1] == 101 for entry in said[:-1]):
        said[-1] = ("error",)  # a client waits for an answer, so to h11 its absence is an error
    return said


AMBIGUOUS = (
    re.compile(rb"(?<!\r)\n"),  # a bare LF
    re.compile(rb"\n[ \t]"),  # a folded line
    re.compile(rb"content-length.*(content-length|,)", re.IGNORECASE | re.DOTALL),
    re.compile(rb"(content-length.*transfer-encoding|transfer-encoding.*content-length)", re.IGNORECASE | re.DOTALL),
    re.compile(rb"HTTP/1\.0.*transfer-encoding", re.IGNORECASE | re.DOTALL),
    re.compile(rb" HTTP/(?!1\.)[0-9]\.[0-9]"),
)


def has_ended_in_error(transcript: Transcript) -> bool:
    return transcript[-1] == ("error",)


def check_request(data: bytes, cuts: Sequence[int]) -> None:
    pieces = split(data, cuts)
    ours, theirs = request_by_us(pieces), said_by_h11(pieces, h11.CLIENT, b"")
    if ours == theirs:
        return
    assert has_ended_in_error(ours), "we are never more lenient than h11"
    assert any(pattern.search(data) for pattern in AMBIGUOUS) or has_ended_in_error(theirs), "stricter without a reason"


def check_response(data: bytes, cuts: Sequence[int], method: bytes) -> None:
    pieces = split(data, cuts)
    ours, theirs = response_by_us(pieces, method), said_by_h11(pieces, h11.SERVER, method)
    if has_ended_in_error(ours) and has_ended_in_error(theirs):
        # How much of a broken body was passed on before the error was seen is nobody's promise.
        (_, body), (_, known) = ours.pop(-2), theirs.pop(-2)
        assert isinstance(body, bytes)
        assert isinstance(known, bytes)
        assert known.startswith(body)
    assert ours == theirs


@pytest.mark.parametrize("data", REQUESTS, ids=lambda data: repr(data[:70]))
def test_requests_are_read_as_h11_reads_them_however_they_are_cut(data: bytes) -> None:
    check_request(data, ())
    if len(data) < LIMIT:
        check_request(data, range(len(data)))
        for cut in range(len(data)):
            check_request(data, (cut,))


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("data", RESPONSES, ids=lambda data: repr(data[:70]))
def test_answers_are_read_as_h11_reads_them_however_they_are_cut(data: bytes, method: bytes) -> None:
    check_response(data, (), method)
    check_response(data, range(len(data)), method)
    for cut in range(len(data)):
        check_response(data, (cut,), method)


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=5))
@settings(max_examples=500, deadline=None)
def test_any_request_is_read_as_h11_reads_it_or_refused(data: bytes, cuts: list[int]) -> None:
    check_request(data, cuts)


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=5), st.sampled_from([b"GET", b"HEAD"]))
@settings(max_examples=500, deadline=None)
def test_any_answer_is_read_as_h11_reads_it(data: bytes, cuts: list[int], method: bytes) -> None:
    check_response(data, cuts, method)


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=5))
@settings(max_examples=300, deadline=None)
def test_how_a_request_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole, cut = request_by_us([data] if data else []), request_by_us(split(data, cuts))
    if has_ended_in_error(whole):
        assert has_ended_in_error(cut)
    else:
        assert whole == cut


@pytest.mark.parametrize(
    ("version", "header", "another"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"CONNECTION: x, Close\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_another_request_follows_only_where_both_ends_know_it(version: bytes, header: bytes, another: bool) -> None:
    """Or what one takes for the next request, the other may not."""
    inbox = StrictInbox(LIMIT)
    inbox.feed(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, header))
    head = read_request(inbox)
    assert head is not None
    assert head.keep_alive is another


STRICT = {
    "a bare LF": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "a bare LF in an incomplete head": (b"GET / HTTP/1.1\nHost", 400),
    "a bare LF in a trailer": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n\r\n",
        400,
    ),
    "a folded line": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "a repeated length": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    "an unknown coding": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "a long head": (b"GET /" + b"x" * LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    "a long head without an end": (b"GET /" + b"x" * LIMIT, 431),
}


@pytest.mark.parametrize(("data", "status"), STRICT.values(), ids=STRICT.keys())
def test_what_is_refused_says_with_which_status(data: bytes, status: int) -> None:
    inbox = StrictInbox(LIMIT)
    inbox.feed(data)

    def read() -> None:
        head = read_request(inbox)
        assert head is not None
        ChunkedBody(inbox).take()

    with pytest.raises(HttpError) as caught:
        read()
    assert caught.value.status == status


def test_a_long_head_that_comes_in_small_pieces_is_searched_once() -> None:
    """Linear: a quadratic search through 4 MiB in pieces of 64 bytes would take minutes."""
    inbox = StrictInbox(8 * 1024 * 1024)
    inbox.feed(b"GET / HTTP/1.1\r\nHost: a\r\n")
    for _ in range(65536):
        inbox.feed(b"X: " + b"x" * 59 + b"\r\n")
        assert read_request(inbox) is None
    inbox.feed(b"\r\n")
    head = read_request(inbox)
    assert head is not None
    assert len(head.headers) == 65537
