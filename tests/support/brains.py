"""Several servers and one registry between which everything may go wrong: who leads a session's visitors where?"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from connect_trio import sessions
from connect_trio.mux import frames
from connect_trio.mux.frames import FrameType
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.routing.registry import Registry
from tests.support.brain_servers import Held, Known, Pace, Server
from tests.support.dialled import SESSION, DialledTunnel

__all__ = ["AGENTS", "SERVERS", "SLOTS", "Pace", "World", "open_world"]

SLOTS = 2
SERVERS = 3
STEP = 6000  # what agents count from one dial to the next
AGENTS = ("aa" * 16, "bb" * 16)  # two tools behind one name


class World:
    """Servers, agents, and a registry that may forget everything. Each public method with a plain name is a step."""

    def __init__(self, registry: Registry, forget: Callable[[], Awaitable[None]], hub: Hub, pace: Pace) -> None:
        self._registry = registry
        self._forget = forget
        self._hub = hub
        self._pace = pace
        self._generations = [1_000_000, 1_003_000]  # milliseconds: the agents' clocks differ by seconds
        self._issued = [1_800_000_000, 1_800_000_000]  # as in a container that was started again
        self._held: list[Held] = []
        self._orphans = False  # whether there may be leases that only their time ends
        self._numbers = itertools.count()
        self._known = Known()
        self._agents = list(AGENTS)
        self._servers: list[Server] = []
        self._everyone: list[Server] = []  # those that have crashed, too
        for _ in range(SERVERS):
            self._servers.append(self._new_server())

    def _new_server(self) -> Server:
        server = Server(next(self._numbers), self._registry, self._hub, self._known)
        self._everyone.append(server)
        return server

    # steps

    async def dial(self, server: int, agent: int, slot: int) -> None:
        self._dial(server, agent, slot, self._issued[agent])

    async def stand_by(self, server: int, agent: int, slot: int) -> None:
        """An agent asks for a tunnel so that it takes no other agent's place: it has lost what it had in this slot."""
        for held in self._held:
            if held.live and (held.instance, held.slot) == (self._agents[agent], slot):
                await self._end(held)
        self._dial(server, agent, slot, 0)

    def _dial(self, server: int, agent: int, slot: int, issued: int) -> None:
        instance = self._agents[agent]
        self._generations[agent] += STEP
        stream = self._servers[server].accept(instance, issued, self._pace)
        held = Held(slot, instance, issued, self._generations[agent], DialledTunnel(stream))
        self._held.append(held)
        self._hub.nursery.start_soon(self._play, held)

    async def restart(self, agent: int, dials: int) -> None:
        """An agent's process ends, and the next one's clock is set back by several dials; the token is the same."""
        for held in self._held:
            if held.live and held.instance == self._agents[agent]:
                await self._end(held)
        self._agents[agent] = f"{agent:02x}{next(self._numbers):02x}" * 8
        self._generations[agent] -= dials * STEP - 1  # no two tunnels have the same one

    async def renew_token(self, agent: int, seconds: int) -> None:
        """Platform gives this agent a newer token; its next tunnel comes with it."""
        self._issued[agent] += seconds

    async def cut(self, which: int) -> None:
        """The agent closes a tunnel."""
        if held := self._chosen(which):
            await self._end(held)

    async def _end(self, held: Held) -> None:
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
        self._servers[server] = self._new_server()

    async def forget(self) -> None:
        """The registry starts anew, and empty."""
        await self._forget()
        self._known.routes.clear()

    async def nothing(self) -> None:
        pass

    async def rest(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def _chosen(self, which: int) -> Held | None:
        live = [held for held in self._held if held.live]
        return live[which % len(live)] if live else None

    async def _play(self, held: Held) -> None:
        with held.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stay_alive, held)
                await held.agent.say_hello(instance=held.instance, slot=held.slot, epoch=held.generation)
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
        """The epoch of the newest live tunnel that the registry knows; 0 for none."""
        live = {held.epoch for held in self._held if held.live and held.slot == slot}
        known = {(route.connector, route.epoch) for route in self._known.routes if route.slot == slot}
        uses = [(server.connector, server.epoch(slot)) for server in self._servers]
        return max((epoch for owner, epoch in uses if epoch in live and (owner, epoch) in known), default=0)

    async def _led_to(self, slot: int) -> int | None:
        """The epoch of the tunnel that a visitor would be led to."""
        for route in await self._registry.find(SESSION):
            for server in self._servers:
                if route.slot == slot and server.address == route.address:
                    return server.epoch(slot)
        return None

    async def _check(self, slot: int) -> None:
        """A route leads to the newest live tunnel that the registry has heard of since it began, or to none that works:
        however long its server is cut off, and whoever had the place meanwhile."""
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
        while any(server.front.underway for server in self._everyone):  # these are trouble, too
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
            assert not server.table._withdrawn
            assert not server.table._left


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
