"""One dial of a tunnel at Connect's public URL: connection, TLS, and the request by the carrier that works here."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs
import trio

from connect_trio.mux.transport import Transport
from connect_trio.transport.avoiding import AVOID, AVOID_PROXY, CONFLICT, PROXY, STRICTLY, YIELD, ids_value, is_id
from connect_trio.transport.secure import Secure
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.tunnels import HeaderList, Opened, dial_tunnel
from connect_trio.transport.websocket import HandshakeError, UpgradeRefused

PATH = "/_connect/tunnel"
DIAL_TIMEOUT = 10.0
WEBSOCKET_ONLY = 600.0  # seconds without another try of the raw carrier after it failed
PROXY_DIALS = 3  # dials at most to reach a proxy that is not to be avoided
MAX_REASON = 300  # characters of what a refusal says
UNAUTHORISED = 401
ENDED = (403, 410)


class NoTunnel(Exception):
    """A dial that came to nothing; the text says why. final: another try would not help. conflict: what could not be
    avoided, "server" or "proxy", where that was the reason."""

    def __init__(self, reason: str, *, final: bool = False, conflict: str | None = None) -> None:
        super().__init__(reason)
        self.final = final
        self.conflict = conflict


@attrs.frozen
class Wishes:
    """Where a tunnel is not to end. servers, proxies: ids of those to avoid. strictly: rather none than there. yields:
    rather none than in another agent's place."""

    servers: Sequence[str] = ()
    proxies: Sequence[str] = ()
    strictly: bool = False
    yields: bool = False

    def headers(self) -> HeaderList:
        found: HeaderList = []
        if self.servers:
            found.append((AVOID, ids_value(self.servers)))
            if self.strictly:
                found.append((STRICTLY, b"1"))
        if self.proxies:
            found.append((AVOID_PROXY, ids_value(self.proxies)))
        if self.yields:
            found.append((YIELD, b"1"))
        return found


@attrs.frozen
class Dialled:
    """A tunnel before its HELLO. raw: by which carrier. proxy: id of the one it passes through, if that says so."""

    opened: Opened
    raw: bool
    proxy: str | None


class TunnelDialler:
    """Dials the tunnels of one agent.

    proxy_url: Connect's public URL. token: called for each dial, so that a token that was renewed in its file counts;
    an OSError or ValueError of it means "not now". instance: 16 random bytes of this agent process. websocket_only:
    never try the raw carrier. known: whether Connect has let this agent in before, so that its token may be right.
    """

    def __init__(
        self,
        *,
        proxy_url: str,
        token: Callable[[], str],
        instance: bytes,
        tls: ssl.SSLContext | None = None,
        websocket_only: bool = False,
    ) -> None:
        url = urlsplit(proxy_url)
        self.netloc = url.netloc
        self.instance = instance
        self.known = False
        self._secure = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._secure else 80)
        self._token = token
        self._tls = tls
        self._websocket_only = websocket_only
        self._raw_again = 0.0

    async def dial(self, wishes: Wishes) -> Dialled:
        """Raises NoTunnel."""
        for _ in range(PROXY_DIALS - 1):
            try:
                return await self._dial(wishes)
            except UpgradeRefused as exc:
                if exc.status != CONFLICT or not wishes.proxies or _told(exc.body, "part") != "proxy":
                    raise self._refused(exc) from exc
        if not wishes.strictly:
            wishes = attrs.evolve(wishes, proxies=())  # that proxy is better than none
        try:
            return await self._dial(wishes)
        except UpgradeRefused as exc:
            raise self._refused(exc) from exc

    async def _dial(self, wishes: Wishes) -> Dialled:
        """Raises NoTunnel and UpgradeRefused."""
        try:
            headers = self._headers() + wishes.headers()
        except (OSError, ValueError) as exc:
            raise NoTunnel(f"the agent's token cannot be used: {exc}") from exc
        try:
            with trio.fail_after(DIAL_TIMEOUT):
                inner = await self._connect()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            raise NoTunnel(f"{self.netloc} cannot be reached: {_why(exc)}") from exc
        raw = not self._websocket_only and trio.current_time() >= self._raw_again
        try:
            return await self._ask(inner, headers, wishes, raw=raw)
        except UpgradeRefused as exc:
            inner.close()
            if exc.status != CONFLICT and not wishes.strictly:
                self.failed(raw=raw)
            raise
        except (HandshakeError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            inner.close()
            if not wishes.strictly:
                self.failed(raw=raw)
            raise NoTunnel(f"{self.netloc} does not answer as Connect does: {_why(exc)}") from exc
        except BaseException:
            inner.close()
            raise

    async def _ask(self, inner: Transport, headers: HeaderList, wishes: Wishes, *, raw: bool) -> Dialled:
        with trio.fail_after(DIAL_TIMEOUT):
            opened = await dial_tunnel(inner, host=self.netloc, target=PATH, headers=headers, raw=raw)
        proxy = opened.headers.get(PROXY, b"")
        if not is_id(proxy):
            if wishes.strictly:  # it knows nothing of wishes: a second tunnel at the same server would be of no use
                raise HandshakeError("the proxy does not say who it is")
            return Dialled(opened, raw, None)
        return Dialled(opened, raw, proxy.decode("ascii"))

    def _refused(self, refusal: UpgradeRefused) -> NoTunnel:
        text = _text(refusal.body)
        if refusal.status in ENDED:
            return NoTunnel(f"Connect refuses this session: {text or refusal.status}", final=True)
        if refusal.status == UNAUTHORISED and not self.known:
            return NoTunnel(f"Connect refuses this agent: {text or refusal.status}", final=True)
        part = _told(refusal.body, "part") if refusal.status == CONFLICT else None
        conflict = part if isinstance(part, str) else None
        return NoTunnel(f"{self.netloc} answered {refusal.status}: {text or 'without a reason'}", conflict=conflict)

    async def _connect(self) -> Transport:
        # RFC 6761 section 6.3: names under localhost are this machine, whatever the resolver says.
        local = self._host == "localhost" or self._host.endswith(".localhost")
        stream = await trio.open_tcp_stream("127.0.0.1" if local else self._host, self._port)
        if not self._secure:
            return SocketTransport(Socket.adopt(stream))
        context = self._tls or ssl.create_default_context()
        transport = Secure.client(stream, context, self._host)
        try:
            await transport.handshake()
        except BaseException:
            transport.close()
            raise
        return transport

    def _headers(self) -> HeaderList:
        """Raises OSError and ValueError of the token."""
        token = self._token()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("it must be one line of printable ASCII without spaces")
        return [
            (b"Authorization", b"Bearer " + token.encode("ascii")),
            (b"X-Connect-Instance", self.instance.hex().encode()),
        ]

    def failed(self, *, raw: bool) -> None:
        """Perhaps something on the way knows only WebSockets; but if they fail too, it is not the carrier's fault."""
        self._raw_again = trio.current_time() + WEBSOCKET_ONLY if raw else 0.0


def _why(exc: BaseException) -> str:
    """trio wraps what TLS found wrong in an error without a text."""
    if isinstance(exc, trio.TooSlowError):
        return "no answer in time"
    return str(exc) or str(exc.__cause__ or "") or type(exc).__name__


def _told(body: str, name: str) -> object:
    """What a refusal of Connect says under this name; None for any other."""
    try:
        return json.loads(body)["error"][name]
    except (ValueError, KeyError, TypeError):
        return None


def _text(body: str) -> str:
    """What a refusal says, in one line: Connect says it in JSON, others in whatever they like."""
    try:
        told = json.loads(body)["error"]
        text = told if isinstance(told, str) else told["message"]
    except (ValueError, KeyError, TypeError):
        text = body
    return " ".join(str(text).split())[:MAX_REASON]
