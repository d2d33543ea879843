"""Several servers and one registry between which everything may go wrong: who leads a session's visitors where?

The servers' tables are real, and so are the wires of their tunnels; agents are played byte by byte. What stands between
a server and the registry (`Front`) loses calls, answers and time.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

import attrs
import trio

from connect_trio import sessions
from connect_trio.mux import frames
from connect_trio.mux.frames import FrameType
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Liveness, Wire
from connect_trio.routing.registry import Registry, RegistryUnavailable, Route, Tell, epoch_of
from connect_trio.sessions import TunnelTable
from connect_trio.transport.sockets import Socket, SocketTransport
from tests.support.dialled import SESSION, DialledTunnel
from tests.support.tables import server_hello

T = TypeVar("T")

SLOTS = 2
SERVERS = 3
AGENTS = ("aa" * 16, "bb" * 16)  # two tools behind one name


@attrs.frozen(kw_only=True)
class Pace:
    """Seconds. lease, renew, retry: the servers'. silent: until a server gives a silent agent up. turn: in which
    whatever can happen at once has happened."""

    lease: float
    renew: float
    retry: float
    silent: float
    turn: float


class Front:
    """A server's way to the registry. acked: when the registry was last heard to hold a route."""

    def __init__(self, registry: Registry, nursery: trio.Nursery, fronts: list[Front]) -> None:
        self._fronts = fronts
        fronts.append(self)
        self._registry = registry
        self._nursery = nursery
        self.away = False
        self.answers_lost = 0
        self.late: list[float] = []
        self.underway = 0  # calls that their callers have given up, and that will arrive
        self.frozen: trio.Event | None = None
        self.acked: dict[Route, float] = {}

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
            self._supersede([route] if done else [])
            return done

        done = await self._call(call)
        if done:
            self.acked[route] = trio.current_time()
        return done

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        async def call() -> Sequence[Route]:
            taken = await self._registry.renew(routes, ttl=ttl)
            self._supersede([route for route in routes if route not in taken])
            return taken

        taken = await self._call(call)
        for route in routes:
            self.acked.pop(route, None)
            if route not in taken:
                self.acked[route] = trio.current_time()
        return taken

    def _supersede(self, routes: Sequence[Route]) -> None:
        """The registry remembers one lease for each place: it no longer knows of the older ones that it held before."""
        for route in routes:
            for front in self._fronts:
                for old in [old for old in front.acked if old.slot == route.slot and old.epoch < route.epoch]:
                    del front.acked[old]

    async def withdraw(self, route: Route) -> bool:
        self.acked.pop(route, None)
        return await self._call(lambda: self._registry.withdraw(route))

    async def find(self, session: str) -> Sequence[Route]:
        return await self._registry.find(session)

    async def changes(self, tell: Tell) -> NoReturn:
        await self._registry.changes(tell)


@attrs.define(eq=False)
class Held:
    """A tunnel as its agent sees it. live: the agent answers, and knows of no end."""

    slot: int
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

    def __init__(self, number: int, registry: Registry, hub: Hub, fronts: list[Front]) -> None:
        self.address = f"server-{number}:7777"
        self.connector = f"{number:02x}" * 16
        self.front = Front(registry, hub.nursery, fronts)
        self.hub = hub
        self.crashed = False
        self.muxes: list[MuxSession] = []
        self._keeper = trio.CancelScope()
        self.table = TunnelTable(
            self.front, address=self.address, connector=self.connector, clock=lambda: 1_800_000_000.0 - 7 * number
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
        return tunnel.route.epoch if tunnel is not None and tunnel.route is not None else None


class World:
    """Servers, agents, and a registry that may forget everything. Each public method with a plain name is a step."""

    def __init__(self, registry: Registry, forget: Callable[[], Awaitable[None]], hub: Hub, pace: Pace) -> None:
        self._registry = registry
        self._forget = forget
        self._hub = hub
        self._pace = pace
        self._generations = [100, 103]  # the agents' clocks differ by seconds
        self._issued = [1_800_000_000, 1_800_000_000]  # as in a container that was started again
        self._held: list[Held] = []
        self._orphans = False  # whether there may be leases that only their time ends
        self._numbers = itertools.count()
        self._fronts: list[Front] = []
        self._servers = [Server(next(self._numbers), registry, hub, self._fronts) for _ in range(SERVERS)]

    # steps

    async def dial(self, server: int, agent: int, slot: int) -> None:
        if self._servers[server].crashed:
            return
        instance = AGENTS[agent]
        self._generations[agent] += len(AGENTS) * 3
        stream = self._servers[server].accept(instance, self._issued[agent], self._pace)
        held = Held(slot, self._issued[agent], self._generations[agent], DialledTunnel(stream))
        self._held.append(held)
        self._hub.nursery.start_soon(self._play, held, instance)

    async def renew_token(self, agent: int, seconds: int) -> None:
        """Platform gives this agent a newer token; its next tunnel comes with it."""
        self._issued[agent] += seconds

    async def cut(self, which: int) -> None:
        """The agent closes a tunnel."""
        if held := self._chosen(which):
            held.live = False
            held.scope.cancel()
            await held.agent.stream.aclose()

    async def silence(self, which: int) -> None:
        """The agent is gone, and nobody tells the server."""
        if held := self._chosen(which):
            held.live = False
            held.scope.cancel()

    async def part(self, server: int) -> None:
        self._servers[server].front.away = True

    async def join(self, server: int) -> None:
        self._servers[server].front.away = False

    async def lose_answers(self, server: int, count: int) -> None:
        self._servers[server].front.answers_lost += count

    async def delay(self, server: int, turns: int) -> None:
        """A call arrives, but only when its caller has given it up."""
        self._orphans = True
        self._servers[server].front.late.append(turns * self._pace.retry)

    async def freeze(self, server: int) -> None:
        front = self._servers[server].front
        if front.frozen is None:
            front.frozen = trio.Event()

    async def thaw(self, server: int) -> None:
        front = self._servers[server].front
        if front.frozen is not None:
            front.frozen.set()
            front.frozen = None

    async def crash(self, server: int) -> None:
        """And another one starts in its place, which is a process of its own."""
        self._orphans = True
        self._servers[server].crash()
        self._servers[server] = Server(next(self._numbers), self._registry, self._hub, self._fronts)

    async def forget(self) -> None:
        """The registry starts anew, and empty."""
        await self._forget()
        for server in self._servers:
            server.front.acked.clear()

    async def nothing(self) -> None:
        pass

    async def rest(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _chosen(self, which: int) -> Held | None:
        live = [held for held in self._held if held.live]
        return live[which % len(live)] if live else None

    async def _play(self, held: Held, instance: str) -> None:
        with held.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stay_alive, held)
                await held.agent.say_hello(instance=instance, slot=held.slot, epoch=held.generation)
                await held.agent.serve()
                nursery.cancel_scope.cancel()
            held.live = False

    async def _stay_alive(self, held: Held) -> None:
        try:
            while True:
                await trio.sleep(self._pace.silent / 3)
                await held.agent.stream.send_all(frames.encode(FrameType.PING, 0, bytes(8)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            held.live = False

    # what must hold

    async def run(self, steps: Sequence[tuple[str, tuple[float, ...]]]) -> None:
        for name, arguments in steps:
            await getattr(self, name)(*arguments)
            await trio.sleep(self._pace.turn)
            for slot in range(SLOTS):
                await self._check(slot)
        await self._heal()

    def _newest(self, slot: int) -> int:
        """The epoch of the newest live tunnel of which the registry has heard lately; 0 for none."""
        young = trio.current_time() - self._pace.lease / 2
        live = {held.epoch for held in self._held if held.live and held.slot == slot}
        return max(
            (
                route.epoch
                for server in self._servers
                for route, at in server.front.acked.items()
                if route.slot == slot and route.epoch in live and at > young and server.epoch(slot) == route.epoch
            ),
            default=0,
        )

    async def _led_to(self, slot: int) -> int | None:
        """The epoch of the tunnel that a visitor would be led to."""
        for route in await self._registry.find(SESSION):
            for server in self._servers:
                if route.slot == slot and server.address == route.address:
                    return server.epoch(slot)
        return None

    async def _check(self, slot: int) -> None:
        """A route leads to the newest live tunnel that the registry has not forgotten, or to none that works.

        It forgets a tunnel with its lease: when that ends, when the registry starts anew, or when a newer one takes
        the place. If that one then goes, an older agent may have the place until the next renewal (`_heal`).
        """
        before = self._newest(slot)
        led = await self._led_to(slot)
        if before == self._newest(slot) and led is not None:
            assert led >= before, f"slot {slot}: led to {led} while {before} lives"

    async def _heal(self) -> None:
        """Without further trouble all agree soon, and nothing dead is left in the end."""
        pace = self._pace
        for number, server in enumerate(self._servers):
            server.front.away, server.front.answers_lost, server.front.late = False, 0, []
            await self.thaw(number)
        while any(front.underway for front in self._fronts):  # these are trouble, too
            await trio.sleep(pace.retry)
        await trio.sleep(3 * pace.renew + 2 * pace.retry + sessions.CATCH_UP)
        for slot in range(SLOTS):
            known = [epoch for server in self._servers if (epoch := server.epoch(slot)) is not None]
            assert len(known) <= 1, f"slot {slot}: {known} are each believed to be the one"
            if known:
                assert await self._led_to(slot) == known[0]
            elif not self._orphans:
                left = [route for route in await self._registry.find(SESSION) if route.slot == slot]
                assert left == [], "what is over was withdrawn"
        await trio.sleep(pace.silent + pace.lease + 3 * pace.renew + 10 * pace.retry)
        found = await self._registry.find(SESSION)
        routes = {route.slot: route.epoch for route in found}
        for slot in range(SLOTS):
            mine = [held for held in self._held if held.slot == slot]
            newest = max((held.epoch for held in mine if held.live), default=None)
            # One that was replaced may linger for what it carries; it has no route, even if its successor has gone.
            replaced = newest is not None and any(held.epoch > newest for held in mine)
            assert routes.get(slot) == newest or (replaced and slot not in routes)
        for server in self._servers:
            assert server.table._withdrawn == {}


@asynccontextmanager
async def open_world(registry: Registry, forget: Callable[[], Awaitable[None]], pace: Pace) -> AsyncIterator[World]:
    async with open_hub() as hub:
        world = World(registry, forget, hub, pace)
        try:
            yield world
        finally:
            for held in world._held:
                held.scope.cancel()
                held.agent.stream.socket.close()
