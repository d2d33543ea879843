"""How a tunnel begins: an HTTP upgrade, to raw bytes where the whole path allows it, else to a WebSocket.

Both pass reverse proxies. The raw carrier (`Upgrade: connect-mux`, RFC 9110 section 7.8) has no framing of its own:
masking a WebSocket's bytes (RFC 6455 section 5.3) costs as much as all the rest of a tunnel.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus

import attrs
import trio

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
from connect_trio.mux.transport import Transport
from connect_trio.transport.websocket import (
    MAX_REFUSAL,
    REFUSAL,
    HandshakeError,
    UpgradeRefused,
    accept_websocket,
    connect_websocket,
)

RAW = b"connect-mux"
WEBSOCKET = b"websocket"
MAX_HEAD = 16384
SWITCHING = 101
READ = 4096

HeaderList = list[tuple[bytes, bytes]]


@attrs.frozen
class TunnelRequest:
    """What a tunnel's first request said: its headers by lower-case name, and the carrier that it asks for."""

    headers: dict[bytes, bytes]
    carrier: bytes


@attrs.frozen
class Opened:
    """A transport that carries mux frames. early: frames that came with the answer, before all others.

    headers: those of the answer by lower-case name, where this side has asked.
    """

    transport: Transport
    early: bytes = b""
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)


class TurnedAway(HandshakeError):
    """A proper request for a tunnel that is not to be had here: it is answered with a status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def answer(self) -> bytes:
        body = json.dumps({"error": str(self)}).encode("ascii") + b"\n"
        return (
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        ) % (self.status, self.status.phrase.encode("ascii"), len(body), body)


def _anybody(request: TunnelRequest) -> None:
    """Turns nobody away."""


async def accept_tunnel(
    inner: Transport, admit: Callable[[TunnelRequest], None] = _anybody
) -> tuple[TunnelRequest, Opened]:
    """Answer the request of an agent, which came through a proxy. The caller bounds the time.

    admit: raises TurnedAway for a request that is to be refused. Raises HandshakeError, trio.BrokenResourceError.
    """
    inbox = StrictInbox(MAX_HEAD)
    while True:
        await _feed(inner, inbox)
        try:
            head = read_request(inbox)
        except HttpError as exc:
            raise HandshakeError(f"not an HTTP request: {exc}") from exc
        if head is not None:
            break
    request = _judge(head)
    try:
        admit(request)
    except TurnedAway as exc:
        await send_all(inner, exc.answer())
        raise
    if request.carrier == WEBSOCKET:
        if inbox:  # RFC 6455, section 4.1: a client waits for the answer
            raise HandshakeError("WebSocket frames came before the handshake was answered")
        pairs = [(name, value) for name, value in request.headers.items()]
        return request, Opened(await accept_websocket(inner, pairs, head.target))
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % RAW
    await send_all(inner, answer)
    return request, Opened(inner, bytes(inbox.take(len(inbox))))


def _judge(head: RequestHead) -> TunnelRequest:
    headers = {name: value for _, name, value in head.headers}
    carrier = headers.get(b"upgrade", b"").lower()
    if head.method != b"GET" or carrier not in (RAW, WEBSOCKET):
        raise HandshakeError("a request that does not ask for a tunnel")
    if head.version != b"1.1" or head.length != 0:
        raise HandshakeError("an upgrade needs HTTP/1.1 and a request without a body")
    return TunnelRequest(headers, carrier)


async def dial_tunnel(inner: Transport, *, host: str, target: str, headers: HeaderList, raw: bool) -> Opened:
    """Ask for a tunnel, by the raw carrier or a WebSocket. The caller bounds the time.

    Raises UpgradeRefused, HandshakeError, trio.BrokenResourceError; ValueError for a header that cannot be sent.
    """
    for name, value in headers:
        if not value.isascii() or any(byte < 0x20 for byte in value):
            raise ValueError(f"the header {name.decode()} has characters that cannot be sent")
    if not raw:
        websocket, answered = await connect_websocket(inner, host=host, target=target, headers=headers)
        return Opened(websocket, headers=answered)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    request = b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: %b\r\nConnection: Upgrade\r\n%b\r\n"
    await send_all(inner, request % (target.encode(), host.encode(), RAW, lines))
    inbox = Inbox(MAX_HEAD)
    answer = await _answer(inner, inbox)
    if answer.status != SWITCHING:
        raise UpgradeRefused(answer.status, await _refusal(inner, inbox, answer))
    answered = {name: value for _, name, value in answer.headers}
    if answered.get(b"upgrade", b"").lower() != RAW:
        raise HandshakeError("the server switched to another protocol than was asked for")
    return Opened(inner, bytes(inbox.take(len(inbox))), answered)


async def _answer(inner: Transport, inbox: Inbox) -> ResponseHead:
    """The head of the answer, after any interim ones (RFC 9110, section 15.2)."""
    await _feed(inner, inbox)
    while True:
        try:
            answer = read_response(inbox, b"GET") if inbox else None
        except HttpError as exc:
            raise HandshakeError(f"not an HTTP answer: {exc}") from exc
        if answer is None:
            await _feed(inner, inbox)
        elif answer.status == SWITCHING or answer.status >= 200:
            return answer


async def _refusal(inner: Transport, inbox: Inbox, answer: ResponseHead) -> str:
    """The beginning of a body that says why; less of it if the connection ends or is slow."""
    wanted = MAX_REFUSAL if answer.length is None else min(answer.length, MAX_REFUSAL)
    chunks = ChunkedBody(inbox) if answer.chunked else None
    body = bytearray()
    with trio.move_on_after(REFUSAL), contextlib.suppress(HandshakeError, HttpError, trio.BrokenResourceError):
        while len(body) < wanted:
            body += inbox.take(wanted - len(body)) if chunks is None else b"".join(chunks.take())
            if len(body) >= wanted or (chunks is not None and chunks.ended):
                break
            await _feed(inner, inbox)
    return body[:wanted].decode(errors="replace").strip()


async def _feed(inner: Transport, inbox: Inbox) -> None:
    """More bytes of the peer. Raises HandshakeError at the end of the stream."""
    await trio.lowlevel.checkpoint()  # a peer that never stops talking must not outlast its deadline
    raw = memoryview(bytearray(READ))
    count = inner.receive_now(raw)
    while count is None:
        await inner.wait_readable()
        count = inner.receive_now(raw)
    if not count:
        raise HandshakeError("the connection ended within the handshake")
    inbox.feed(raw[:count])


async def send_all(inner: Transport, data: bytes) -> None:
    """Send everything over a transport."""
    view = memoryview(data)
    while view:
        view = view[inner.send_now((view,)) :]
        if view or inner.pending:
            await inner.wait_writable()
