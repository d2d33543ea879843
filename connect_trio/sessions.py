"""The server's tunnels: which agents are connected here, and their leases in the registry."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import trio

from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import Hello
from connect_trio.mux.session import MuxSession
from connect_trio.mux.switch import Switch
from connect_trio.mux.wire import Wire
from connect_trio.routing.registry import MAX_SLOTS, Registry, RegistryUnavailable, Route, epoch_of
from connect_trio.session_tunnels import Tunnel, TunnelCounts, short, taken_by

LEASE = 30.0  # life-time of a route without renewal, seconds
RENEW = 5.0  # well below the time that a proxy waits for a route: a registry may come back empty
RETRY = 1.0
LINGER = 30.0  # seconds that a tunnel, whose agent has a newer one elsewhere, may go on with what it carries
SWEEP = 0.25  # seconds between two looks for tunnels that carry nothing more
AT_ONCE = 64  # routes that are on their way to the registry together
PROOF = 10.0  # seconds, and up to RENEW more, that an agent may take to answer the first PING
LATE = 1.0  # this process did not run for that long (seconds) when it should have: it was paused, or starved
CATCH_UP = 0.1  # seconds that wires then have to find out who has left meanwhile

logger = logging.getLogger(__name__)


class TunnelTable:
    """Tunnels by session and slot. Finds the tunnel for a stream, and keeps the routes in the registry true.

    A tunnel is used and published when bytes have passed both ways between server and agent, through the proxy and
    whatever else lies between: after a PONG, not after a HELLO.

    address: "host:port" that proxies reach this server at. connector: hex id of this process. stopping: whether the
    server takes its leave, and no more tunnels.
    """

    def __init__(
        self, registry: Registry, *, address: str, connector: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.switch = Switch(self._find)
        self.switch.greeted = self._greeted
        self.stopping = False
        self._registry = registry
        self._address = address
        self._connector = connector
        self._clock = clock
        self._waiting: dict[Wire, Tunnel] = {}
        self._tunnels: dict[str, dict[int, Tunnel]] = {}
        self._by_wire: dict[Wire, Tunnel] = {}
        self._unpublished: dict[Wire, Tunnel] = {}
        self._changed = trio.Event()
        self._withdrawn: dict[Route, float] = {}  # to be taken out of the registry, and when the lease is over anyway
        self._left: dict[tuple[str, int], Route] = {}  # the newest of these that has ended, by session and slot
        self._lingering: dict[Tunnel, float] = {}  # superseded elsewhere, and until when they may go on
        self._sent_away: set[Tunnel] = set()  # asked to go by another way, since theirs is about to be cut
        self.counts = TunnelCounts()

    def __len__(self) -> int:
        return len(self._by_wire)

    def __iter__(self) -> Iterator[Tunnel]:
        """All that are up, the superseded among them. A copy: they may come and go meanwhile."""
        return iter(list(self._by_wire.values()))

    @property
    def published(self) -> int:
        """How many the registry knows."""
        return sum(tunnel.published for tunnel in self)

    # tunnels come and go

    def expect(
        self, session: str, mux: MuxSession, wire: Wire, instance: str, *, issued: int, via: str | None = None
    ) -> None:
        """A tunnel for `session` was opened by the agent `instance` (hex); it is used once it has proven to work.

        issued: when the agent's token was, Unix time of Platform; 0 for an agent that makes way for all others. via: id
        of the proxy that it passes through, if that says so.
        """
        self._waiting[wire] = Tunnel(session, mux, wire, instance, issued=issued, via=via)

    def gone(self, wire: Wire, reason: str = "lost") -> None:
        """The tunnel has ended; the reason is a word for metrics."""
        self._waiting.pop(wire, None)
        tunnel = self._by_wire.get(wire)
        if tunnel is not None:
            self._forget(tunnel, reason)

    def _greeted(self, wire: Wire, hello: Hello) -> None:
        """HELLO of a link or tunnel came. A tunnel is asked for a proof that it works. Raises WireError."""
        tunnel = self._waiting.get(wire)
        if tunnel is None:
            return
        if hello.peer != Peer.ACCEPTOR or hello.instance.hex() != tunnel.instance or hello.slot >= MAX_SLOTS:
            raise WireError("HELLO does not fit the tunnel's authorisation")
        if self.stopping:
            raise WireError("the server stops", GoawayCode.SHUTDOWN)
        tunnel.generation = hello.generation
        tunnel.route = Route(
            session=tunnel.session,
            slot=hello.slot,
            address=self._address,
            connector=self._connector,
            epoch=epoch_of(tunnel.issued, hello.generation),
            since=self._clock(),
            instance=tunnel.instance,
        )
        self._rivals(tunnel, tunnel.route)
        tunnel.greeted = trio.current_time()
        wire.ponged = partial(self._proven, tunnel, tunnel.route)
        wire.ping(tunnel.proof)

    def _proven(self, tunnel: Tunnel, route: Route, answer: bytes) -> None:
        """PONG came. A newer tunnel of the same slot takes the place of the older one at once.

        A newer agent displaces all tunnels of an older one: they are two tools behind one name, and a stream is to
        find the same one in every slot. Raises WireError.
        """
        if answer != tunnel.proof or self._waiting.pop(tunnel.wire, None) is None:
            return
        if self.stopping:
            raise WireError("the server stops", GoawayCode.SHUTDOWN)
        rivals = self._rivals(tunnel, route)
        for old in rivals:
            self._forget(old, "displaced")
            self.switch.displace(old.wire)
            old.mux.close(taken_by(None if old.instance == tunnel.instance else tunnel.instance), GoawayCode.DISPLACED)
        for older in {old.instance: old for old in rivals if old.instance != tunnel.instance}.values():
            _say_replaced(older, tunnel.instance)
        self._tunnels.setdefault(route.session, {})[route.slot] = tunnel
        self.counts.accepted += 1
        self._by_wire[tunnel.wire] = self._unpublished[tunnel.wire] = tunnel
        about = {"session": route.session, "slot": route.slot, "instance": tunnel.instance}
        logger.log(_level(tunnel), "tunnel is up", extra=about)
        self._wake()

    def _rivals(self, tunnel: Tunnel, route: Route) -> list[Tunnel]:
        """Those that `tunnel` cannot be beside. Raises WireError if one of them is newer."""
        held = self._tunnels.get(route.session, {})
        rivals = [old for slot, old in held.items() if slot == route.slot or old.instance != tunnel.instance]
        newer = next((old for old in rivals if old.newer_than(tunnel)), None)
        if newer is not None and newer.instance == tunnel.instance:
            raise WireError("a newer tunnel of the same agent is here already", GoawayCode.DISPLACED)
        if newer is not None:
            who = {"session": route.session, "instance": tunnel.instance, "newer": newer.instance}
            logger.log(_level(tunnel), "an agent is refused: a newer one of its session is here", extra=who)
            text = f"a newer agent (instance {short(newer.instance)}) of the same session is here"
            raise WireError(text, GoawayCode.DISPLACED)
        return rivals

    def _forget(self, tunnel: Tunnel, reason: str) -> None:
        """It is used no more, and its route is to go."""
        self._unpublished.pop(tunnel.wire, None)
        if self._by_wire.pop(tunnel.wire, None) is None or tunnel.route is None:
            return
        self._sent_away.discard(tunnel)
        self.counts.ended[tunnel.leaving or reason] += 1
        if self._lingering.pop(tunnel, None) is not None:
            return
        slots = self._tunnels[tunnel.session]
        del slots[tunnel.route.slot]
        if not slots:
            del self._tunnels[tunnel.session]
        self._withdrawn[tunnel.route] = trio.current_time() + LEASE
        place = (tunnel.session, tunnel.route.slot)
        if place not in self._left or self._left[place].epoch < tunnel.route.epoch:
            self._left[place] = tunnel.route
        self._wake()

    def _held_back(self, tunnel: Tunnel) -> bool:
        """Whether visitors may be led to it by the lease of a newer one that was here: until it has a lease itself."""
        if tunnel.published or tunnel.route is None:
            return False
        left = self._left.get((tunnel.session, tunnel.route.slot))
        return left is not None and left.epoch > tunnel.route.epoch and trio.current_time() < self._withdrawn[left]

    def _drop_unproven(self) -> None:
        """An agent that says HELLO and answers no PING may dial again: this tunnel carries nothing."""
        for tunnel in [each for each in self._waiting.values() if trio.current_time() >= each.greeted + PROOF]:
            tunnel.mux.close(f"the agent has not answered PING within {PROOF:g} s")

    def _find(self, session: str, link: Wire) -> Wire | None:
        """The tunnel for a stream: the lowest slot that takes new ones, but rather one whose agent has answered."""
        silent: Wire | None = None
        for _, tunnel in sorted(self._tunnels.get(session, {}).items()):
            wire = tunnel.wire
            if wire.closing is None and not wire.gone and not self._held_back(tunnel):
                if not wire.asked:
                    return wire
                silent = silent or wire
        return silent

    # routes

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def keep_routes(self) -> None:
        """Publish, renew and withdraw routes, for ever. The registry may be away: then it is tried again."""
        renew_at = trio.current_time() + RENEW
        away = False
        while True:
            changed = self._changed
            self._drop_unproven()
            try:
                await self._publish_new()
                await self._withdraw_gone()
                if trio.current_time() >= renew_at:
                    await self._renew_all()
                    renew_at = trio.current_time() + RENEW
            except RegistryUnavailable as exc:
                if not away:  # the registry itself tells operators when it is away, once for all who use it
                    logger.debug("routes cannot be kept in the registry", extra={"reason": str(exc)})
                away, renew_at = True, -math.inf  # who knows what it still holds when it is back
                await trio.sleep(RETRY)
                continue
            away = False
            with trio.move_on_at(renew_at):
                await changed.wait()
            if trio.current_time() > renew_at + LATE:
                await trio.sleep(CATCH_UP)  # or the registry would hear of tunnels that ended during the pause

    async def _publish_new(self) -> None:
        """Those that come meanwhile, too: a route is to be replaced before the one that it replaces is withdrawn."""
        while self._unpublished:
            failures: list[RegistryUnavailable] = []
            async with trio.open_nursery() as nursery:
                for tunnel in islice(self._unpublished.values(), AT_ONCE):
                    nursery.start_soon(self._publish, tunnel, failures)
            if failures:
                raise failures[0]

    async def _publish(self, tunnel: Tunnel, failures: list[RegistryUnavailable]) -> None:
        if tunnel.route is not None and not tunnel.wire.gone:
            try:
                with self._taking([tunnel.route]):
                    tunnel.published = await self._registry.publish(tunnel.route, ttl=LEASE)
            except RegistryUnavailable as exc:
                failures.append(exc)
                return
            if not tunnel.published:
                self._supersede(tunnel)
            elif self.stopping:  # said too late: take it back
                tunnel.published = False
                self._withdrawn[tunnel.route] = trio.current_time() + LEASE
        self._unpublished.pop(tunnel.wire, None)

    @contextmanager
    def _taking(self, routes: Sequence[Route]) -> Iterator[None]:
        """Leases of those that end meanwhile may be as young as the end of this call, however it ends."""
        try:
            yield
        finally:
            if self._withdrawn:
                over = trio.current_time() + LEASE
                self._withdrawn.update({route: over for route in routes if route in self._withdrawn})

    async def _withdraw_gone(self) -> None:
        while self._withdrawn:
            route, over = next(iter(self._withdrawn.items()))
            successor = self._tunnels.get(route.session, {}).get(route.slot)
            if trio.current_time() < over and not (successor is not None and successor.published):
                await self._registry.withdraw(route)
            del self._withdrawn[route]
            if self._left.get((route.session, route.slot)) == route:
                del self._left[route.session, route.slot]

    async def _renew_all(self) -> None:
        published = [tunnel for tunnel in self._by_wire.values() if tunnel.published and not tunnel.wire.gone]
        routes = [tunnel.route for tunnel in published if tunnel.route is not None]
        if not routes or self.stopping:
            return
        with self._taking(routes):
            taken = set(await self._registry.renew(routes, ttl=LEASE))
        for tunnel in published if taken else ():
            if tunnel.route in taken:
                self._supersede(tunnel)

    def _supersede(self, tunnel: Tunnel) -> None:
        """A newer tunnel of the slot is at another server: nothing new passes here, and what does may go on a while."""
        slots = self._tunnels.get(tunnel.session, {})
        if tunnel.route is None or slots.get(tunnel.route.slot) is not tunnel:
            return  # it has ended meanwhile
        del slots[tunnel.route.slot]
        if not slots:
            del self._tunnels[tunnel.session]
        tunnel.published = False
        self._lingering[tunnel] = trio.current_time() + LINGER

    # tunnels that are to be left

    async def sweep_forever(self) -> None:
        """Close tunnels that are of no more use, soon after they are."""
        while True:
            await trio.sleep(SWEEP)
            await self._sweep_superseded()
            self._sweep_sent_away()

    async def _sweep_superseded(self) -> None:
        away = False
        for tunnel, until in list(self._lingering.items()):
            if tunnel.wire.ports and trio.current_time() < until:
                continue
            taker = None
            if not (tunnel.replaced or away):  # or its agent knows, since it has the newer tunnel
                try:
                    taker = await self._taker(tunnel)
                except RegistryUnavailable:
                    away = True
            if taker is not None and tunnel in self._lingering:
                _say_replaced(tunnel, taker)
            self._end(tunnel, "superseded", taken_by(taker))

    async def _taker(self, tunnel: Tunnel) -> str | None:
        """The other agent that has its place at another server, if it is another one. Raises RegistryUnavailable."""
        for route in await self._registry.find(tunnel.session):
            if tunnel.route is not None and route.slot == tunnel.route.slot and route.instance != tunnel.instance:
                return route.instance or None
        return None

    def _sweep_sent_away(self) -> None:
        if self.stopping:
            return
        for tunnel in list(self._sent_away):
            if tunnel.replaced:
                # Its streams find the new one in a round trip, rather than when this one is cut.
                self.switch.displace(tunnel.wire)
                self._end(tunnel, "proxy_drained", "the agent has a tunnel by another way")

    def _end(self, tunnel: Tunnel, word: str, text: str) -> None:
        tunnel.leaving = tunnel.leaving or word
        tunnel.mux.close(text, GoawayCode.DISPLACED)

    def send_away(self, proxy: str, grace: float) -> int:
        """The proxy is about to stop: its agents are asked to open their tunnels by another way; how many those are."""
        found = [tunnel for tunnel in self if tunnel.via == proxy and tunnel not in self._sent_away]
        self._sent_away.update(found)
        for tunnel in found:
            tunnel.wire.goaway(GoawayCode.DRAIN, "the proxy that this tunnel passes through will stop", grace=grace)
        return len(found)

    def drain(self, grace: float) -> None:
        """The server will stop: agents are asked to open their tunnels elsewhere, and routes leave the registry.

        What passes here goes on. New streams and new tunnels are sent elsewhere.
        """
        self.stopping = True
        self.switch.draining = True
        over = trio.current_time() + LEASE
        for tunnel in self:
            tunnel.wire.goaway(GoawayCode.DRAIN, "the server will stop", grace=grace)
            tunnel.leaving = "drained"
            if tunnel.published and tunnel.route is not None:
                tunnel.published = False
                self._withdrawn[tunnel.route] = over
        self._unpublished.clear()
        self._wake()

    async def withdraw_all(self) -> None:
        """The server stops: take its routes out, so that proxies need not find out. Bounded by the caller.

        Raises RegistryUnavailable.
        """
        routes = [tunnel.route for slots in self._tunnels.values() for tunnel in slots.values()]
        for route in (*routes, *self._withdrawn):
            if route is not None:
                await self._registry.withdraw(route)

    def close_all(self, reason: str) -> None:
        """Tell all agents, and take no more of them."""
        self.stopping = self.switch.draining = True
        for tunnel in self:
            tunnel.leaving = tunnel.leaving or "stopped"
            tunnel.mux.close(reason, GoawayCode.SHUTDOWN)


def _say_replaced(older: Tunnel, newer: str) -> None:
    who = {"session": older.session, "instance": newer, "replaced": older.instance}
    logger.log(_level(older), "a newer agent took the place of an older one of its session", extra=who)


def _level(tunnel: Tunnel) -> int:
    """An agent that waits for another one to go asks every minute, and the log need not say so each time."""
    return logging.INFO if tunnel.issued else logging.DEBUG
