"""Taking a process out of use without throwing anybody out: once, by a signal or by the management port."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio

from connect_trio.edge.listener import Edge
from connect_trio.link_pool import LinkPool
from connect_trio.management.health import Health
from connect_trio.mux.codes import GoawayCode
from connect_trio.roles.server_links import Server
from connect_trio.routing.registry import Registry, RegistryUnavailable
from connect_trio.sessions import TunnelTable
from connect_trio.ssh.listener import SshEdge

STALLED = 5.0  # seconds in which nothing has moved: nobody else can take it
LEAVE = 2.0  # seconds that an idle tunnel waits for its agent to have another one
LOOK = 0.1

logger = logging.getLogger(__name__)


class Drain:
    """work: what a drain is, as bounded as its own grace says. nursery: where it runs, until the farewell is over."""

    def __init__(self, work: Callable[[], Awaitable[None]], health: Health, nursery: trio.Nursery) -> None:
        self._work = work
        self._health = health
        self._nursery = nursery
        self._over = trio.Event()

    def begin(self) -> None:
        """Start it, if it has not been started."""
        if not self._health.draining:
            self._health.draining = True
            self._nursery.start_soon(self._run, name="drain")

    async def finish(self) -> None:
        """Do it, or wait for its end if it has been started.

        In the caller's task: where a role is stopped in the moment of its start, its nursery may be going already.
        """
        if self._health.draining:
            await self._over.wait()
        else:
            self._health.draining = True
            await self._run()

    async def _run(self) -> None:
        logger.info("draining")
        since = trio.current_time()
        try:
            await self._work()
        finally:
            self._over.set()
        logger.info("drained", extra={"seconds": round(trio.current_time() - since, 1)})


class ServerDrain:
    """Agents open their tunnels elsewhere, proxies move their streams there; then wires are closed one by one.

    It is over when nothing is left, after `grace` seconds, or when nothing has moved for STALLED seconds: then there
    is nobody to take the rest, which detaches and is resumed when somebody is there.
    """

    def __init__(self, server: Server, table: TunnelTable, *, grace: float) -> None:
        self._server = server
        self._table = table
        self._grace = grace

    async def run(self) -> None:
        if self._grace > 0:
            self._server.drain()
            with trio.move_on_after(self._grace):
                await self._until_left(trio.current_time() + LEAVE)
        self._server.close_all("the server stops")
        await trio.lowlevel.checkpoint()

    async def _until_left(self, patience: float) -> None:
        before: tuple[int, int] | None = None
        moved = trio.current_time()
        while True:
            self._server.close_idle(even_without_another=trio.current_time() >= patience)
            left = len(self._table), self._server.circuits
            if left == (0, 0):
                return
            if left != before:
                before, moved = left, trio.current_time()
            if trio.current_time() - moved >= STALLED:
                logger.info("nobody takes what is left", extra={"tunnels": left[0], "streams": left[1]})
                return
            await trio.sleep(LOOK)


class ProxyDrain:
    """Agents open their tunnels by another way, requests end, and WebSockets are closed when `grace` is nearly over.

    ssh: whose clients are then told to connect anew; None where there is none.
    """

    def __init__(
        self, edge: Edge, pool: LinkPool, registry: Registry, *, grace: float, ssh: SshEdge | None = None
    ) -> None:
        self._edge = edge
        self._ssh = ssh
        self._pool = pool
        self._registry = registry
        self._grace = grace

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._grace > 0:
                nursery.start_soon(send_tunnels_away, self._pool, self._registry, self._edge.tunnels, self._grace)
            async with trio.open_nursery() as edges:
                edges.start_soon(self._edge.drain, self._grace)
                if self._ssh is not None:
                    edges.start_soon(self._ssh.drain, self._grace)
            nursery.cancel_scope.cancel()


async def send_tunnels_away(pool: LinkPool, registry: Registry, sessions: Iterable[str], grace: float) -> None:
    """Have the servers ask agents, whose tunnels pass through this proxy, to come by another way.

    A server may hold such a tunnel without having a link from here: it is found by way of its sessions, and gets one.
    """
    pool.say_goodbye(GoawayCode.VIA, grace)
    told = pool.addresses()
    for session in dict.fromkeys(sessions):
        try:
            routes = await registry.find(session)
        except RegistryUnavailable as exc:
            logger.warning("not all servers are told of the drain", extra={"reason": str(exc)})
            return
        for address in {route.address for route in routes} - told:
            told.add(address)
            try:
                wire = await pool.wire(address)
            except OSError as exc:
                logger.info("a server is not told of the drain", extra={"server": address, "reason": str(exc)})
            else:
                wire.goaway(GoawayCode.VIA, "this proxy will stop", grace=grace)
