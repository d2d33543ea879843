"""The tunnel's bytes as WebSocket messages, so that they pass every ingress and corporate proxy.

wsproto judges what comes and frames all but the bulk; one task drives it, without trio's streams in between, so that
an idle tunnel costs little. Message boundaries mean nothing: each flush of the mux becomes one binary message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from connect_trio.mux.transport import Transport
from connect_trio.transport.websocket_frames import binary_message

READ = 65536
MESSAGE = 262144  # most bytes of one message that this side makes
MAX_HEAD = 16384
MAX_REFUSAL = 4096
REFUSAL = 2.0  # seconds that the text of a refusal may take: its status is told without, if need be

Data = bytes | bytearray | memoryview
HeaderList = list[tuple[bytes, bytes]]

_scratch = memoryview(bytearray(READ))  # for the one read that happens at a time; what it holds is copied at once


class HandshakeError(Exception):
    """The peer did not speak the WebSocket handshake; the text says what was wrong."""


class UpgradeRefused(HandshakeError):
    """The server answered with another status than 101. `body` is the beginning of what it said."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"the server answered {status}: {body}" if body else f"the server answered {status}")
        self.status = status
        self.body = body


class WebSocketTransport:
    """A `mux.transport.Transport` whose bytes travel in WebSocket messages over another transport."""

    __slots__ = ("_arrived", "_connection", "_ended", "_inner", "_out", "_pong")

    def __init__(self, inner: Transport, connection: Connection) -> None:
        self._inner = inner
        self._connection = connection
        self._out = memoryview(b"")
        self._pong: bytes | None = None  # waits for `_out`: a peer that asks without reading is answered once
        self._arrived: list[memoryview] = []
        self._ended = False
        self._take_events()  # the peer may have sent more than its handshake

    @property
    def pending(self) -> bool:
        return bool(self._out) or self._inner.pending

    def send_now(self, parts: Sequence[Data]) -> int:
        if self._out and not self._send_rest():
            return 0
        if self._connection.state is not ConnectionState.OPEN:
            raise trio.BrokenResourceError("the peer closed the WebSocket")
        taken = list(_first(parts, MESSAGE))
        self._send_frame(binary_message(taken, masked=self._connection.client))
        return sum(map(len, taken))

    def _send_frame(self, frame: bytes | bytearray) -> None:
        if self._out:
            self._out = memoryview(bytes(self._out) + frame)
        else:
            self._out = memoryview(frame)
        self._send_rest()

    def _close(self, event: CloseConnection) -> None:
        """Answer a peer's close. wsproto says the same of a broken frame, but only a real one changes its state."""
        asked = self._connection.state is ConnectionState.REMOTE_CLOSING
        self._ended = True
        self._send_frame(self._connection.send(event.response()))
        if not asked:
            raise trio.BrokenResourceError(f"not a WebSocket any more: {event.reason}")

    def _send_pong(self, frame: bytes) -> None:
        if self._out:
            self._pong = frame
        else:
            self._send_frame(frame)

    def _send_rest(self) -> bool:
        """Whether everything that was framed is with the inner transport."""
        self._out = self._out[self._inner.send_now((self._out,)) :]
        if not self._out and self._pong is not None:
            self._out, self._pong = memoryview(self._pong), None
            return self._send_rest()
        return not self._out

    def receive_now(self, into: memoryview) -> int | None:
        while not self._arrived:
            if self._ended:
                return 0
            count = self._inner.receive_now(_scratch)
            if count is None:
                return None
            if not count:
                self._ended = True
                return 0
            self._feed(bytes(_scratch[:count]))
        filled = 0
        while self._arrived and filled < len(into):
            data = self._arrived[0]
            count = min(len(data), len(into) - filled)
            into[filled : filled + count] = data[:count]
            filled += count
            if count == len(data):
                del self._arrived[0]
            else:
                self._arrived[0] = data[count:]
        return filled

    def _feed(self, data: bytes) -> None:
        """Take what arrived apart. Raises trio.BrokenResourceError where it is not a WebSocket of the mux."""
        try:
            self._connection.receive_data(data)
        except (RemoteProtocolError, LocalProtocolError) as exc:
            raise trio.BrokenResourceError(f"not a WebSocket any more: {exc}") from exc
        self._take_events()

    def _take_events(self) -> None:
        ping: Ping | None = None
        try:
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    if event.data:
                        self._arrived.append(memoryview(event.data))
                elif isinstance(event, Ping):
                    ping = event  # RFC 6455 section 5.5.3: answering the newest is enough, and bounds our answers
                elif isinstance(event, CloseConnection):
                    self._close(event)
                elif isinstance(event, TextMessage):
                    raise trio.BrokenResourceError("a text message came where only binary ones have a meaning")
                elif not isinstance(event, Pong):
                    raise trio.BrokenResourceError(f"{type(event).__name__} is not expected on this WebSocket")
            if ping is not None and not self._ended:
                self._send_pong(self._connection.send(ping.response()))
        except (RemoteProtocolError, LocalProtocolError) as exc:
            raise trio.BrokenResourceError(f"not a WebSocket any more: {exc}") from exc

    async def wait_readable(self) -> None:
        if self._arrived or self._ended:  # the peer may say nothing after its close, and wait for ours
            await trio.lowlevel.checkpoint()
        else:
            await self._inner.wait_readable()

    async def wait_writable(self) -> None:
        await self._inner.wait_writable()
        self._send_rest()

    def close(self) -> None:
        self._inner.close()


def _first(parts: Sequence[Data], most: int) -> Iterable[Data]:
    """Pieces from the front of `parts`, `most` bytes of them."""
    for part in parts:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return


async def accept_websocket(inner: Transport, headers: HeaderList, target: bytes) -> WebSocketTransport:
    """Answer a peer's request, whose head was read already. Raises HandshakeError, trio.BrokenResourceError."""
    connection = WSConnection(ConnectionType.SERVER)
    try:
        connection.initiate_upgrade_connection(headers, target)
    except (RemoteProtocolError, UnicodeError) as exc:  # the latter for a Host that is no name
        raise HandshakeError(f"not a WebSocket handshake: {exc}") from exc
    handshake = _Handshake(inner, connection)
    await handshake.send(AcceptConnection())
    return handshake.transport()


async def connect_websocket(
    inner: Transport, *, host: str, target: str, headers: HeaderList
) -> tuple[WebSocketTransport, dict[bytes, bytes]]:
    """Ask a server for a WebSocket; it, and the answer's headers by lower-case name. The caller bounds the time.

    Raises UpgradeRefused, HandshakeError, trio.BrokenResourceError.
    """
    handshake = _Handshake(inner, WSConnection(ConnectionType.CLIENT))
    await handshake.send(Request(host=host, target=target, extra_headers=headers))
    event = await handshake.next_event()
    if isinstance(event, AcceptConnection):
        return handshake.transport(), {bytes(name).lower(): bytes(value) for name, value in event.extra_headers}
    if not isinstance(event, RejectConnection):
        raise HandshakeError("the server closed the connection instead of answering")
    raise UpgradeRefused(event.status_code, await _refusal(handshake) if event.has_body else "")


async def _refusal(handshake: _Handshake) -> str:
    """The beginning of a body that says why; less of it if the connection ends or is slow."""
    body = bytearray()
    with trio.move_on_after(REFUSAL), contextlib.suppress(HandshakeError, trio.BrokenResourceError):
        while len(body) < MAX_REFUSAL:
            event = await handshake.next_event()
            if not isinstance(event, RejectData):
                break
            body += event.data[: MAX_REFUSAL - len(body)]
            if event.body_finished:
                break
    return body.decode(errors="replace").strip()


class _Handshake:
    """A WebSocket until it is established."""

    def __init__(self, inner: Transport, connection: WSConnection) -> None:
        self._inner = inner
        self._connection = connection
        self._events: Generator[Event, None, None] = connection.events()
        self._received = 0

    async def next_event(self) -> Event | None:
        """What wsproto says next, None when the connection has ended. Raises HandshakeError for what is not HTTP."""
        raw = memoryview(bytearray(4096))
        while True:
            try:
                for event in self._events:
                    return event
                if self._received > MAX_HEAD + MAX_REFUSAL:
                    raise HandshakeError("the head of the handshake is too long")
                count = self._inner.receive_now(raw)
                if count is None:
                    await self._inner.wait_readable()
                    continue
                if not count:
                    return None
                self._received += count
                self._connection.receive_data(bytes(raw[:count]))
                self._events = self._connection.events()
            except (RemoteProtocolError, LocalProtocolError) as exc:
                raise HandshakeError(f"not a WebSocket handshake: {exc}") from exc

    async def send(self, event: Event) -> None:
        view = memoryview(self._connection.send(event))
        while view:
            view = view[self._inner.send_now((view,)) :]
            if view or self._inner.pending:
                await self._inner.wait_writable()

    def transport(self) -> WebSocketTransport:
        framing = self._connection.connection
        assert framing is not None
        return WebSocketTransport(self._inner, framing)
