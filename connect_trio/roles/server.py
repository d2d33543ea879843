"""The role `server`: holds agents' tunnels, and switches frames between them and proxies' links."""

from __future__ import annotations

import logging
import re
import secrets
import socket
import ssl
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus

import attrs
import trio

from connect_trio.config import ServerSettings
from connect_trio.context import serving
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Wire
from connect_trio.roles.listeners import accept_forever, listen, port_of
from connect_trio.roles.registry import redis_from
from connect_trio.roles.stopping import Farewell, run_with_farewell
from connect_trio.roles.trust import server_tls, trust_from
from connect_trio.routing.names import label_of
from connect_trio.routing.registry import Registry, RegistryUnavailable, Store
from connect_trio.sessions import TunnelTable
from connect_trio.transport.avoiding import AVOID, parse_ids
from connect_trio.transport.keyring import Keyring
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.trusted import Door, transport_of
from connect_trio.transport.tunnels import TunnelRequest, TurnedAway, accept_tunnel
from connect_trio.transport.websocket import HandshakeError

HANDSHAKE = 10.0
STOP = 2.0  # seconds that the registry has to hear that our routes are over
SESSION_HEADER = b"x-connect-session"
INSTANCE_HEADER = b"x-connect-instance"
_INSTANCE = re.compile(r"[0-9a-f]{32}")

logger = logging.getLogger(__name__)


@attrs.frozen
class ServerRunning:
    """Where a server listens: `listener_port` for links, `tunnel_port` for tunnels; `address` is what it publishes."""

    listener_port: int
    tunnel_port: int
    address: str


class Server:
    """Serves links and tunnels, each in a task of its own with a bounded handshake.

    keyring: what proxies have to prove by. tls: the certificate to show them, None for no TLS.
    """

    def __init__(
        self, hub: Hub, table: TunnelTable, *, instance: bytes, keyring: Keyring, tls: ssl.SSLContext | None = None
    ) -> None:
        self._hub = hub
        self._table = table
        self._hello = Hello(peer=Peer.SWITCH, instance=instance, name=instance.hex())
        self._link_door = Door(keyring, Purpose.LINK, instance=instance, tls=tls)
        self._tunnel_door = Door(keyring, Purpose.TUNNEL, instance=instance, tls=tls)

    async def serve_link(self, sock: socket.socket) -> None:
        with serving(secrets.token_hex(4)):
            connection = await self._link_door.admit(sock)
            if connection is None:
                return
            wire = self._wire("link")
            reason = await MuxSession(self._hub, wire, transport_of(connection)).run()
            logger.info("link ended", extra={"reason": reason})

    async def serve_tunnel(self, sock: socket.socket) -> None:
        with serving(secrets.token_hex(4)):
            connection = await self._tunnel_door.admit(sock)
            if connection is None:
                return
            inner = transport_of(connection)
            try:
                with trio.fail_after(HANDSHAKE):
                    request, opened = await accept_tunnel(inner, self._admit)
                session, instance = _identity(request)
                del request  # a tunnel lasts for days: its head need not
            except TurnedAway as exc:
                logger.info("tunnel turned away", extra={"reason": str(exc)})
                inner.close()
                return
            except (HandshakeError, trio.TooSlowError, trio.BrokenResourceError) as exc:
                reason = str(exc) or f"no handshake within {HANDSHAKE:g} s"
                logger.warning("not a tunnel", extra={"reason": reason})
                inner.close()
                return
            wire = self._wire(f"tunnel {session}")
            mux = MuxSession(self._hub, wire, opened.transport)
            self._table.expect(session, mux, wire, instance)
            try:
                reason = await mux.run(opened.early)
                logger.info("tunnel ended", extra={"session": session, "reason": reason})
            finally:
                self._table.gone(wire)

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

    def _wire(self, label: str) -> Wire:
        return Wire(self._table.switch, self._hello, dialled=False, now=trio.current_time(), label=label)


def _identity(request: TunnelRequest) -> tuple[str, str]:
    """Session and agent instance, as the proxy that checked the agent's token names them. Raises HandshakeError."""
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
    return session, instance


async def run_server(
    settings: ServerSettings,
    *,
    registry: Registry | None = None,
    task_status: trio.TaskStatus[ServerRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then agents are told, and their routes taken out.

    registry: None for Redis, as the settings say; without Redis and CONNECT_CLUSTER_KEY, only proxies in this process
    are trusted. Raises CannotListen, KeyUnusable, TlsUnusable and RegistryUnavailable, in groups; starts with a
    ServerRunning.
    """
    await run_with_farewell(partial(_serve, settings, registry), task_status=task_status)


async def _serve(
    settings: ServerSettings,
    registry: Registry | None,
    *,
    task_status: trio.TaskStatus[tuple[ServerRunning, Farewell]],
) -> None:
    instance = secrets.token_bytes(16)
    async with AsyncExitStack() as stack:
        links = stack.enter_context(
            listen(settings.bind_host, settings.listener_port, variable="CONNECT_LISTENER_PORT")
        )
        tunnels = stack.enter_context(listen(settings.bind_host, settings.tunnel_port, variable="CONNECT_TUNNEL_PORT"))
        address = settings.published_address(_own_name(settings), port=port_of(links))
        tls = server_tls(settings)
        store: Store | None = None
        if registry is None:
            redis = await redis_from(settings, stack)
            registry, store = redis.registry, redis.store
        trust = await trust_from(settings, store)
        table = TunnelTable(registry, address=address, connector=instance.hex())
        hub = await stack.enter_async_context(open_hub())
        server = Server(hub, table, instance=instance, keyring=trust.keyring, tls=tls)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trust.keep)
            nursery.start_soon(table.keep_routes)
            nursery.start_soon(accept_forever, links, server.serve_link, nursery, "link")
            nursery.start_soon(accept_forever, tunnels, server.serve_tunnel, nursery, "tunnel")
            logger.info(
                "server is ready",
                extra={"links": port_of(links), "tunnels": port_of(tunnels), "address": address},
            )
            running = ServerRunning(port_of(links), port_of(tunnels), address)
            task_status.started((running, partial(_take_leave, table)))


def _own_name(settings: ServerSettings) -> str:
    """The name that proxies reach this server by: what listens on loopback only is reached there alone."""
    loopback = settings.bind_host == "localhost" or settings.bind_host.startswith("127.") or settings.bind_host == "::1"
    return settings.bind_host if loopback and settings.host_domain is None else socket.gethostname()


async def _take_leave(table: TunnelTable) -> None:
    """Tell agents, and take the routes out of the registry if it answers in time: else their leases end anyway."""
    table.close_all("the server stops")
    with trio.move_on_after(STOP) as scope:
        try:
            await table.withdraw_all()
        except RegistryUnavailable as exc:
            logger.warning("routes stay in the registry until their leases end", extra={"reason": str(exc)})
    if scope.cancelled_caught:
        logger.warning("routes stay in the registry until their leases end", extra={"reason": "no answer in time"})
