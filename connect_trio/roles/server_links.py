"""What connects to a server: proxies' links and agents' tunnels, each served in a task of its own."""

from __future__ import annotations

import logging
import re
import secrets
import socket
import ssl
from http import HTTPStatus

import trio

from connect_trio.context import serving
from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.frames import Goaway, Hello
from connect_trio.mux.hub import Hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Handler, Wire
from connect_trio.routing.names import label_of
from connect_trio.routing.registry import MAX_ISSUED
from connect_trio.sessions import TunnelTable
from connect_trio.transport.avoiding import AVOID, VIA, is_id, parse_ids
from connect_trio.transport.keyring import Keyring
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.trusted import Door, transport_of
from connect_trio.transport.tunnels import TunnelRequest, TurnedAway, accept_tunnel
from connect_trio.transport.websocket import HandshakeError

HANDSHAKE = 10.0
SESSION_HEADER = b"x-connect-session"
INSTANCE_HEADER = b"x-connect-instance"
ISSUED_HEADER = b"x-connect-issued"
_INSTANCE = re.compile(r"[0-9a-f]{32}")
_ISSUED = re.compile(rb"0|[1-9][0-9]{0,12}")

logger = logging.getLogger(__name__)


class _LinkHandler:
    """The switch as the handler of a link, and who wants to know when its proxy is about to stop."""

    def __init__(self, table: TunnelTable) -> None:
        self._table = table
        switch = table.switch
        self.on_hello = switch.on_hello  # as they are: this is the path of all bytes
        self.on_frame = switch.on_frame
        self.on_batch_end = switch.on_batch_end
        self.on_lost = switch.on_lost

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        self._table.switch.on_goaway(wire, goaway, now)
        if goaway.code != GoawayCode.VIA or wire.peer is None or wire.peer.peer != Peer.OPENER:
            return
        # A proxy speaks for itself only: its own id is the one of its HELLO.
        proxy = wire.peer.instance.hex()
        count = self._table.send_away(proxy, goaway.grace / 1000)
        logger.info("a proxy will stop", extra={"proxy": proxy, "tunnels": count})


class Server:
    """Serves links and tunnels, each in a task of its own with a bounded handshake.

    keyring: what proxies have to prove by. tls: the certificate to show them, None for no TLS. grace: seconds of a
    drain, as peers are told. links: those that are up.
    """

    def __init__(
        self,
        hub: Hub,
        table: TunnelTable,
        *,
        instance: bytes,
        keyring: Keyring,
        tls: ssl.SSLContext | None = None,
        grace: float = 0.0,
    ) -> None:
        self._hub = hub
        self._table = table
        self._hello = Hello(peer=Peer.SWITCH, instance=instance, name=instance.hex())
        self._link_door = Door(keyring, Purpose.LINK, instance=instance, tls=tls)
        self._tunnel_door = Door(keyring, Purpose.TUNNEL, instance=instance, tls=tls)
        self._grace = grace
        self._on_links = _LinkHandler(table)
        self.links: set[MuxSession] = set()
        self.refused = 0

    async def serve_link(self, sock: socket.socket) -> None:
        with serving(secrets.token_hex(4)):
            connection = await self._link_door.admit(sock)
            if connection is None:
                return
            mux = MuxSession(self._hub, self._wire("link", self._on_links), transport_of(connection))
            self.links.add(mux)
            if self._table.stopping:
                self._send_away(mux)
            try:
                reason = await mux.run()
            finally:
                self.links.discard(mux)
            logger.info("link ended", extra={"reason": reason})

    def drain(self) -> None:
        """Ask everybody to go elsewhere; what passes here goes on."""
        self._table.drain(self._grace)
        for mux in self.links:
            self._send_away(mux)

    @property
    def circuits(self) -> int:
        """Streams that pass here."""
        return sum(len(mux.wire.ports) for mux in self.links)

    @property
    def held(self) -> int:
        """Bytes that wait here because the next hop does not take them."""
        wires = [*(mux.wire for mux in self.links), *(tunnel.wire for tunnel in self._table)]
        return sum(len(part) for wire in wires for leg in wire.ports.values() for part, _, _ in leg.queue)

    def close_idle(self, *, even_without_another: bool) -> None:
        """Close what carries nothing more, and is not to carry anything any more.

        even_without_another: also tunnels whose agents have not said that they have another one.
        """
        for tunnel in self._table:
            if not tunnel.wire.ports and (tunnel.replaced or even_without_another):
                tunnel.mux.close("the server stops", GoawayCode.SHUTDOWN)
        for mux in list(self.links):
            if not mux.wire.ports:
                mux.close("the server stops", GoawayCode.SHUTDOWN)

    def close_all(self, reason: str) -> None:
        """Tell all, and end everything."""
        self._table.close_all(reason)
        for mux in list(self.links):
            mux.close(reason, GoawayCode.SHUTDOWN)

    def _send_away(self, mux: MuxSession) -> None:
        mux.wire.goaway(GoawayCode.DRAIN, "the server will stop", grace=self._grace)

    async def serve_tunnel(self, sock: socket.socket) -> None:
        with serving(secrets.token_hex(4)):
            connection = await self._tunnel_door.admit(sock)
            if connection is None:
                return
            inner = transport_of(connection)
            try:
                with trio.fail_after(HANDSHAKE):
                    request, opened = await accept_tunnel(inner, self._admit)
                session, instance, issued = _identity(request)
                via = request.headers.get(VIA, b"")
                del request  # a tunnel lasts for days: its head need not
            except TurnedAway as exc:
                logger.info("tunnel turned away", extra={"reason": str(exc)})
                inner.close()
                self.refused += 1
                return
            except (HandshakeError, trio.TooSlowError, trio.BrokenResourceError) as exc:
                reason = str(exc) or f"no handshake within {HANDSHAKE:g} s"
                logger.warning("not a tunnel", extra={"reason": reason})
                inner.close()
                return
            wire = self._wire(f"tunnel {session}")
            mux, early = MuxSession(self._hub, wire, opened.transport), opened.early
            proxy = via.decode("ascii") if is_id(via) else None
            self._table.expect(session, mux, wire, instance, issued=issued, via=proxy)
            del connection, inner, opened, instance, via, proxy  # the table knows what is needed of them
            reason = "cancelled"
            try:
                reason = await mux.run(early)
                logger.info("tunnel ended", extra={"session": session, "reason": reason})
            finally:
                self._table.gone(wire, _word(reason))

    def _admit(self, request: TunnelRequest) -> None:
        """Raises TurnedAway for a tunnel that is better at another server."""
        if self._table.stopping:
            raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, "this server stops")
        try:
            avoided = parse_ids([request.headers[AVOID]] if AVOID in request.headers else [])
        except ValueError as exc:
            raise TurnedAway(HTTPStatus.BAD_REQUEST, f"{AVOID.decode()}: {exc}") from exc
        if self._hello.name in avoided:
            raise TurnedAway(HTTPStatus.CONFLICT, "the agent has a tunnel at this server already")

    def _wire(self, label: str, handler: Handler | None = None) -> Wire:
        handler = handler or self._table.switch
        return Wire(handler, self._hello, dialled=False, now=trio.current_time(), label=label)


def _word(reason: str) -> str:
    """Why a tunnel has ended, in one of few words."""
    if reason in ("the peer closed the connection", "cancelled"):
        return "closed"
    if reason.startswith(("nothing was heard", "no HELLO")):
        return "silent"
    return "lost" if reason.startswith("connection lost") else "protocol"


def _identity(request: TunnelRequest) -> tuple[str, str, int]:
    """Session, agent instance, and when its token was issued (Unix time), as the proxy that checked the token says.

    Raises HandshakeError.
    """
    session = request.headers.get(SESSION_HEADER, b"").decode("latin-1")
    instance = request.headers.get(INSTANCE_HEADER, b"").decode("latin-1")
    if not session or not instance:
        raise HandshakeError("a tunnel that did not come through a proxy")
    try:
        label_of(session)  # it becomes a key in the registry
    except ValueError as exc:
        raise HandshakeError(str(exc)) from exc
    if not _INSTANCE.fullmatch(instance):
        raise HandshakeError(f"not an agent's instance (32 lower-case hex digits): {instance!r}")
    issued = request.headers.get(ISSUED_HEADER, b"")
    if not _ISSUED.fullmatch(issued) or int(issued) > MAX_ISSUED:
        raise HandshakeError(f"not the time when a token was issued (0 to {MAX_ISSUED}): {issued!r:.60}")
    return session, instance, int(issued)
