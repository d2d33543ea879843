"""The agent's tunnel: dialled at Connect's public URL, and dialled again whenever it ends."""

from __future__ import annotations

import json
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import trio

from connect_trio.agent.backoff import Backoff
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.transport import StreamTransport, Transport
from connect_trio.mux.wire import Liveness, Wire
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.tunnels import Opened, dial_tunnel
from connect_trio.transport.websocket import HandshakeError, UpgradeRefused

PATH = "/_connect/tunnel"
DIAL_TIMEOUT = 10.0
WEBSOCKET_ONLY = 600.0  # seconds without another try of the raw carrier after it failed
HELD = 10.0  # a tunnel that lasted this long was a good one
MAX_REASON = 300  # characters of what a refusal says
UNAUTHORISED = 401
ENDED = (403, 410)

logger = logging.getLogger(__name__)


class TunnelRefused(Exception):
    """Connect does not let this agent in, and another try would not help; the text says why."""


class _Secure(StreamTransport):
    """TLS: closing it closes the socket underneath too."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        super().__init__(stream)
        self._secure = stream
        self._socket = stream.transport_stream.socket

    async def handshake(self) -> None:
        await self._secure.do_handshake()

    def close(self) -> None:
        super().close()
        self._socket.close()


class _Handler:
    """The acceptor as the handler of one wire, and who wants to know that the server has said HELLO."""

    def __init__(self, acceptor: Acceptor, greeted: Callable[[], None]) -> None:
        self._acceptor = acceptor
        self._greeted = greeted
        self.on_frame = acceptor.on_frame  # as they are: this is the path of all bytes
        self.on_batch_end = acceptor.on_batch_end
        self.on_goaway = acceptor.on_goaway
        self.on_lost = acceptor.on_lost

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        self._acceptor.on_hello(wire, hello, now)
        self._greeted()


class TunnelClient:
    """Keeps one tunnel open.

    proxy_url: Connect's public URL. token: called for each dial, so that a token that was renewed in its file counts;
    an OSError or ValueError of it means "not now". instance: 16 random bytes of this agent process. slot: which of its
    tunnels this is. websocket_only: never try the raw carrier.
    """

    def __init__(
        self,
        hub: Hub,
        acceptor: Acceptor,
        *,
        proxy_url: str,
        token: Callable[[], str],
        instance: bytes,
        slot: int = 0,
        tls: ssl.SSLContext | None = None,
        websocket_only: bool = False,
    ) -> None:
        url = urlsplit(proxy_url)
        self._hub = hub
        self._acceptor = acceptor
        self._secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._secure else 80)
        self._netloc = url.netloc
        self._token = token
        self._instance = instance
        self._slot = slot
        self._tls = tls
        self._generation = time.time_ns() // 1_000_000
        self._websocket_only = websocket_only
        self._raw_again = 0.0
        self._was_up = False
        self._up_at: float | None = None
        self.connected = trio.Event()

    async def run(self) -> None:
        """Keep the tunnel open, for ever. Raises TunnelRefused."""
        backoff = Backoff()
        said: deque[str] = deque(maxlen=4)  # the carriers take turns, and each has words of its own
        while True:
            reason = await self._once()
            if self._held():
                backoff.reset()
                said.clear()
            if reason not in said:
                logger.warning("no tunnel, dialling again", extra={"reason": reason})
                said.append(reason)
            # An attacker gains nothing by guessing when we dial.
            await trio.sleep(backoff.delay(random.random()))  # noqa: S311

    def _held(self) -> bool:
        """Whether there was a tunnel, and a good one; asked once for each."""
        up_at, self._up_at = self._up_at, None
        return up_at is not None and trio.current_time() - up_at > HELD

    async def _once(self) -> str:
        """One tunnel from its dial to its end; why it ended. Raises TunnelRefused."""
        try:
            headers = self._headers()
        except (OSError, ValueError) as exc:
            return f"the agent's token cannot be used: {exc}"
        try:
            with trio.fail_after(DIAL_TIMEOUT):
                inner = await self._connect()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            return f"{self._netloc} cannot be reached: {_why(exc)}"
        raw = not self._websocket_only and trio.current_time() >= self._raw_again
        try:
            with trio.fail_after(DIAL_TIMEOUT):
                opened = await dial_tunnel(inner, host=self._netloc, target=PATH, headers=headers, raw=raw)
            return await self._carry(opened, raw=raw)
        except UpgradeRefused as exc:
            self._judge(exc)
            self._failed(raw=raw)
            return f"{self._netloc} answered {exc.status}: {_text(exc.body) or 'without a reason'}"
        except (HandshakeError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            self._failed(raw=raw)
            return f"{self._netloc} does not answer as Connect does: {_why(exc)}"
        finally:
            inner.close()

    def _judge(self, refusal: UpgradeRefused) -> None:
        if refusal.status in ENDED:
            raise TunnelRefused(f"Connect refuses this session: {_text(refusal.body) or refusal.status}")
        if refusal.status == UNAUTHORISED and not self._was_up:
            raise TunnelRefused(f"Connect refuses this agent: {_text(refusal.body) or refusal.status}")

    async def _connect(self) -> Transport:
        # RFC 6761 section 6.3: names under localhost are this machine, whatever the resolver says.
        local = self._host == "localhost" or self._host.endswith(".localhost")
        stream = await trio.open_tcp_stream("127.0.0.1" if local else self._host, self._port)
        if not self._secure:
            return SocketTransport(Socket.adopt(stream))
        context = self._tls or ssl.create_default_context()
        transport = _Secure(trio.SSLStream(stream, context, server_hostname=self._host, https_compatible=True))
        try:
            await transport.handshake()
        except BaseException:
            transport.close()
            raise
        return transport

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Raises OSError and ValueError of the token."""
        token = self._token()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("it must be one line of printable ASCII without spaces")
        return [
            (b"Authorization", b"Bearer " + token.encode("ascii")),
            (b"X-Connect-Instance", self._instance.hex().encode()),
        ]

    def _failed(self, *, raw: bool) -> None:
        """Perhaps something on the way knows only WebSockets; but if they fail too, it is not the carrier's fault."""
        self._raw_again = trio.current_time() + WEBSOCKET_ONLY if raw else 0.0

    async def _carry(self, opened: Opened, *, raw: bool) -> str:
        self._generation += 1
        hello = Hello(
            peer=Peer.ACCEPTOR, instance=self._instance, slot=self._slot, generation=self._generation, name="agent"
        )
        # Spread over ten seconds, so that ten thousand agents that dialled at once do not ask at once.
        liveness = Liveness(idle_ping=20 + 10 * random.random())  # noqa: S311
        handler = _Handler(self._acceptor, self._up)
        wire = Wire(handler, hello, dialled=True, now=trio.current_time(), liveness=liveness, label="tunnel")
        reason = await MuxSession(self._hub, wire, opened.transport).run(opened.early)
        if wire.peer is None:
            self._failed(raw=raw)
        return reason

    def _up(self) -> None:
        self._was_up = True
        self._up_at = trio.current_time()
        self.connected.set()
        logger.info("tunnel is up", extra={"url": self._netloc, "slot": self._slot})


def _why(exc: BaseException) -> str:
    """trio wraps what TLS found wrong in an error without a text."""
    if isinstance(exc, trio.TooSlowError):
        return "no answer in time"
    return str(exc) or str(exc.__cause__ or "") or type(exc).__name__


def _text(body: str) -> str:
    """What a refusal says, in one line: Connect says it in JSON, others in whatever they like."""
    try:
        told = json.loads(body)["error"]
        text = told if isinstance(told, str) else told["message"]
    except (ValueError, KeyError, TypeError):
        text = body
    return " ".join(str(text).split())[:MAX_REASON]
