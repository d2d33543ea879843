"""The role `server`: holds agents' tunnels, and switches frames between them and proxies' links."""

from __future__ import annotations

import logging
import secrets
import socket
from contextlib import AsyncExitStack
from functools import partial

import attrs
import trio

from connect_trio.config import ServerSettings
from connect_trio.metrics import SERVER
from connect_trio.mux.hub import open_hub
from connect_trio.roles.draining import Drain, ServerDrain
from connect_trio.roles.life import this_life
from connect_trio.roles.listeners import accept_forever, all_listening, listen, port_of
from connect_trio.roles.managing import LISTENERS, REDIS, Managed
from connect_trio.roles.measuring import CountingRegistry, read_server
from connect_trio.roles.registry import answers, in_memory, redis_from
from connect_trio.roles.server_links import Server
from connect_trio.roles.stopping import Farewell, run_with_farewell
from connect_trio.roles.trust import reload_server_tls, server_tls, trust_from
from connect_trio.routing.registry import Registry, RegistryUnavailable
from connect_trio.sessions import TunnelTable

STOP = 2.0  # seconds that the registry has to hear that our routes are over

logger = logging.getLogger(__name__)


@attrs.frozen
class ServerRunning:
    """Where a server listens: `listener_port` for links, `tunnel_port` for tunnels; `address` is what it publishes.

    management_port: None if there is none.
    """

    listener_port: int
    tunnel_port: int
    address: str
    management_port: int | None = None


async def run_server(
    settings: ServerSettings,
    *,
    registry: Registry | None = None,
    task_status: trio.TaskStatus[ServerRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then it is drained: nobody is thrown out who can go elsewhere in time.

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
    managed = Managed("server", SERVER)
    async with AsyncExitStack() as stack:
        links = stack.enter_context(
            listen(settings.bind_host, settings.listener_port, variable="CONNECT_LISTENER_PORT")
        )
        tunnels = stack.enter_context(listen(settings.bind_host, settings.tunnel_port, variable="CONNECT_TUNNEL_PORT"))
        await stack.enter_async_context(managed.open(settings))
        address = settings.published_address(_own_name(settings), port=port_of(links))
        tls = server_tls(settings)
        if tls is not None:
            this_life().on_reload("certificate of links", partial(reload_server_tls, settings, tls))
        redis = None
        if registry is None:
            redis = await redis_from(settings, stack)
            registry = redis.registry
        managed.health.provide(REDIS, in_memory if redis is None else partial(answers, redis))
        trust = await trust_from(settings, redis.store if redis is not None else None)
        shared = CountingRegistry(registry)
        table = TunnelTable(shared, address=address, connector=instance.hex())
        hub = await stack.enter_async_context(open_hub())
        server = Server(hub, table, instance=instance, keyring=trust.keyring, tls=tls, grace=settings.drain_grace)
        managed.read = partial(read_server, server, table, shared)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trust.keep)
            nursery.start_soon(table.keep_routes)
            nursery.start_soon(table.sweep_forever)
            nursery.start_soon(accept_forever, links, server.serve_link, nursery, "link")
            nursery.start_soon(accept_forever, tunnels, server.serve_tunnel, nursery, "tunnel")
            managed.health.provide(LISTENERS, partial(all_listening, links, tunnels))
            drain = Drain(ServerDrain(server, table, grace=settings.drain_grace).run, managed.health, nursery)
            managed.drains(drain)
            logger.info(
                "server is ready",
                extra={"links": port_of(links), "tunnels": port_of(tunnels), "address": address},
            )
            running = ServerRunning(port_of(links), port_of(tunnels), address, managed.port)
            task_status.started((running, partial(_take_leave, drain, table)))


def _own_name(settings: ServerSettings) -> str:
    """The name that proxies reach this server by: what listens on loopback only is reached there alone."""
    loopback = settings.bind_host == "localhost" or settings.bind_host.startswith("127.") or settings.bind_host == "::1"
    return settings.bind_host if loopback and settings.host_domain is None else socket.gethostname()


async def _take_leave(drain: Drain, table: TunnelTable) -> None:
    """Drain, and take the routes out of the registry if it answers in time: else their leases end anyway."""
    await drain.finish()
    with trio.move_on_after(STOP) as scope:
        try:
            await table.withdraw_all()
        except RegistryUnavailable as exc:
            logger.warning("routes stay in the registry until their leases end", extra={"reason": str(exc)})
    if scope.cancelled_caught:
        logger.warning("routes stay in the registry until their leases end", extra={"reason": "no answer in time"})
