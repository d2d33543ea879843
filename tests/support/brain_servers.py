"""Servers that keep one registry, and what may go wrong between them and it: a part of `tests.support.brains`.

The servers' tables are real, and so are the wires of their tunnels; agents are played byte by byte. What stands between
a server and the registry (`Front`) loses calls, answers and time.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

import attrs
import trio

from connect_trio.mux.hub import Hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Liveness, Wire
from connect_trio.routing.registry import STANDING_BY, Registry, RegistryUnavailable, Route, Tell, epoch_of
from connect_trio.sessions import TunnelTable
from connect_trio.transport.sockets import Socket, SocketTransport
from tests.support.dialled import SESSION, DialledTunnel
from tests.support.tables import server_hello

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Pace:
    """Seconds. lease, renew, retry: the servers'. silent: until a server gives a silent agent up. turn: in which
    whatever can happen at once has happened."""

    lease: float
    renew: float
    retry: float
    silent: float
    turn: float


class Known:
    """The routes that the registry let have their places, ever since it was last empty."""

    def __init__(self) -> None:
        self.routes: set[Route] = set()

    def let_in(self, route: Route) -> None:
        """An agent that stands by gets a place of which nobody holds the lease: then all others count as dead until
        they are heard of again. The registry cannot tell a server that is cut off from one that was killed."""
        if route.epoch < STANDING_BY:
            self.routes = {each for each in self.routes if each.slot != route.slot or each.epoch < route.epoch}
        self.routes.add(route)


class Front:
    """A server's way to the registry."""

    def __init__(self, registry: Registry, nursery: trio.Nursery, known: Known) -> None:
        self._registry = registry
        self._nursery = nursery
        self._known = known
        self.away = False
        self.answers_lost = 0
        self.late: list[float] = []
        self.underway = 0  # calls that their callers have given up, and that will arrive
        self.frozen: trio.Event | None = None

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.frozen is not None:
            await self.frozen.wait()
        if self.away:
            await trio.lowlevel.checkpoint()
            raise RegistryUnavailable("the registry is away")
        if self.late:
            self.underway += 1
            self._nursery.start_soon(self._later, self.late.pop(), call)
            raise RegistryUnavailable("no answer in time, but the call is on its way")
        result = await call()
        if self.answers_lost:
            self.answers_lost -= 1
            raise RegistryUnavailable("the answer is lost")
        return result

    async def _later(self, delay: float, call: Callable[[], Awaitable[object]]) -> None:
        await trio.sleep(delay)
        await call()
        self.underway -= 1

    async def publish(self, route: Route, *, ttl: float) -> bool:
        async def call() -> bool:
            done = await self._registry.publish(route, ttl=ttl)
            if done:
                self._known.let_in(route)
            return done

        return await self._call(call)

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        async def call() -> Sequence[Route]:
            taken = await self._registry.renew(routes, ttl=ttl)
            self._known.routes.update(set(routes) - set(taken))
            return taken

        return await self._call(call)

    async def withdraw(self, route: Route) -> bool:
        return await self._call(lambda: self._registry.withdraw(route))

    async def find(self, session: str) -> Sequence[Route]:
        return await self._registry.find(session)

    async def changes(self, tell: Tell) -> NoReturn:
        await self._registry.changes(tell)


@attrs.define(eq=False)
class Held:
    """A tunnel as its agent sees it. live: the agent answers, and knows of no end."""

    slot: int
    instance: str
    issued: int
    generation: int
    agent: DialledTunnel
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    live: bool = True

    @property
    def epoch(self) -> int:
        return epoch_of(self.issued, self.generation)


class Server:
    """One server's table and what keeps it. Its clock is not that of the others."""

    def __init__(self, number: int, registry: Registry, hub: Hub, known: Known) -> None:
        self.address = f"server-{number}:7777"
        self.connector = f"{number:02x}" * 16
        self.front = Front(registry, hub.nursery, known)
        self.hub = hub
        self.crashed = False
        self.muxes: list[MuxSession] = []
        self._keeper = trio.CancelScope()
        self.table = TunnelTable(
            self.front,
            address=self.address,
            connector=self.connector,
            clock=lambda: 1_800_000_000.0 - 7 * number + trio.current_time(),
        )
        hub.nursery.start_soon(self._keep)

    async def _keep(self) -> None:
        with self._keeper:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.table.keep_routes)
                nursery.start_soon(self.table.sweep_forever)

    def accept(self, instance: str, issued: int, pace: Pace) -> trio.SocketStream:
        """The agent's end of a new tunnel."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        liveness = Liveness(idle_dead=pace.silent, hello=pace.silent)
        now = trio.current_time()
        wire = Wire(self.table.switch, server_hello(), dialled=False, now=now, liveness=liveness, label="tunnel")
        mux = MuxSession(self.hub, wire, SocketTransport(Socket(ours)))
        self.muxes.append(mux)
        self.table.expect(SESSION, mux, wire, instance, issued=issued)
        self.hub.nursery.start_soon(self._serve, mux)
        return trio.SocketStream(trio.socket.from_stdlib_socket(theirs))

    async def _serve(self, mux: MuxSession) -> None:
        try:
            await mux.run()
        finally:
            self.table.gone(mux.wire)

    def crash(self) -> None:
        """The process is gone, and its leases stay."""
        self.crashed = True
        self._keeper.cancel()
        for mux in self.muxes:
            mux.close("killed")

    def epoch(self, slot: int) -> int | None:
        """Of the tunnel that visitors would be led to here."""
        tunnel = self.table._tunnels.get(SESSION, {}).get(slot)
        if tunnel is None or tunnel.route is None or self.table._held_back(tunnel):
            return None
        return tunnel.route.epoch
