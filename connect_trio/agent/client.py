"""One of the agent's tunnels: dialled again whenever it ends, and replaced before that where a better place is known.

A slot has one tunnel; while it is being replaced also those that it had, until their servers close them.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import attrs
import trio

from connect_trio.agent.backoff import Backoff
from connect_trio.agent.dialling import Dialled, NoTunnel, TunnelDialler, Wishes
from connect_trio.agent.places import Place, Places
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.frames import Goaway, Hello
from connect_trio.mux.hub import Hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Liveness, Wire

LEAST = 0.1  # seconds between two dials
HELD = 10.0  # a tunnel that lasted this long was a good one
LOOK = 10.0  # seconds, more or less, until the first look for a better place
LOOK_CAP = 300.0  # between two later ones: where there is none, ten thousand agents look in vain
STAND_BY = 30.0  # seconds, more or less, between two questions whether the other agent of the session has gone
MAX_LEFT = 2  # tunnels of a slot that may wait for their servers to close them

logger = logging.getLogger(__name__)


class TunnelRefused(Exception):
    """Connect does not let this agent in, and another try would not help; the text says why."""


class _Tunnel:
    """One connection of a slot. place: where it is, once the server has said HELLO. over: it has ended or will soon.
    yields: whether it was asked for so that it takes no other agent's place."""

    def __init__(self, mux: MuxSession, *, yields: bool) -> None:
        self.mux = mux
        self.yields = yields
        self.place: Place | None = None
        self.up_at = 0.0
        self.reason = ""
        self.draining = False
        self.settled = trio.Event()  # HELLO came, or the end before it
        self.over = trio.Event()
        self.looking: trio.CancelScope | None = None  # the look for another place, of no use when this is over

    def finish(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.settled.set()
        self.over.set()
        if self.looking is not None:
            self.looking.cancel()


class _Handler:
    """The acceptor as the handler of one wire, and who wants to know what the server says of the wire itself."""

    def __init__(self, acceptor: Acceptor, greeted: Callable[[Hello], None], parted: Callable[[Goaway], None]) -> None:
        self._acceptor = acceptor
        self._greeted = greeted
        self._parted = parted
        self.on_frame = acceptor.on_frame  # as they are: this is the path of all bytes
        self.on_batch_end = acceptor.on_batch_end
        self.on_lost = acceptor.on_lost

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        self._acceptor.on_hello(wire, hello, now)
        self._greeted(hello)

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        self._acceptor.on_goaway(wire, goaway, now)
        self._parted(goaway)


class TunnelClient:
    """Keeps the tunnel of one slot open. dialler, places: shared by the slots of an agent."""

    def __init__(self, hub: Hub, acceptor: Acceptor, dialler: TunnelDialler, places: Places, *, slot: int = 0) -> None:
        self._hub = hub
        self._acceptor = acceptor
        self._dialler = dialler
        self._places = places
        self._slot = slot
        self._newest: _Tunnel | None = None  # of those that were begun
        self._held: _Tunnel | None = None
        self._left: deque[MuxSession] = deque()
        self._yields = False  # in another slot than 0, whose tunnels ask as `Standing` says
        self._unsaid: list[MuxSession] = []  # left, and their servers do not know yet that there is another one
        self.connected = trio.Event()

    async def run(self) -> None:
        """Keep the tunnel open, for ever. Raises TunnelRefused."""
        refused: TunnelRefused | None = None
        if self._slot:
            self._places.standing.told.append(self._stand_by)
        async with trio.open_nursery() as nursery:
            try:
                await self._keep(nursery)
            except TunnelRefused as exc:
                refused = exc
                nursery.cancel_scope.cancel()
        if refused is not None:
            raise refused

    async def _keep(self, nursery: trio.Nursery) -> NoReturn:
        backoff = Backoff()
        said: deque[str] = deque(maxlen=4)  # the carriers take turns, and each has words of its own
        while True:
            if self._slot:
                await self._places.standing.serving()
            began = trio.current_time()
            pause = 0.0
            try:
                tunnel = await self._open(nursery)
                self._say_replaced()
                tunnel = await self._hold(tunnel, nursery)
                reason = _last_words(tunnel)
                if tunnel.draining:
                    self._leave(tunnel)
                elif self._was_displaced(tunnel):
                    pause = self._make_way(tunnel, said)
                lasted = trio.current_time() - tunnel.up_at
                backoff.held(lasted)
                if lasted >= HELD:
                    said.clear()
                    if tunnel.draining:
                        continue  # at once: when its server has stopped it is too late
                began = trio.current_time()
            except NoTunnel as exc:
                reason = str(exc)
            if reason not in said and not (self._slot and self._places.standing.by):
                logger.warning("no tunnel, dialling again", extra={"reason": reason, "slot": self._slot})
                said.append(reason)
            # An attacker gains nothing by guessing when we dial.
            delay = max(backoff.delay(random.random()), pause)  # noqa: S311
            await trio.sleep_until(max(began + delay, trio.current_time() + LEAST))  # the proxy may have let us wait

    def _was_displaced(self, tunnel: _Tunnel) -> bool:
        """Whether its server has ended it for another agent: this one has no newer tunnel of the slot."""
        said = tunnel.mux.wire.closing
        return tunnel is self._newest and said is not None and said.code == GoawayCode.DISPLACED

    def _make_way(self, tunnel: _Tunnel, said: deque[str]) -> float:
        """There is another agent of the session. Seconds until the next dial at least."""
        pause = STAND_BY * (0.75 + random.random() / 2)  # noqa: S311
        if self._slot:
            self._yields = True  # the other one may be gone, and not be withdrawn
            return pause
        if self._places.standing.displaced(asked=tunnel.yields):
            about = {"reason": _last_words(tunnel), "instance": self._dialler.instance.hex()}
            logger.warning("another agent has this session, waiting until it has gone", extra=about)
        said.append(_last_words(tunnel))
        return pause if tunnel.yields else 0.0

    def _stand_by(self) -> None:
        if self._held is not None:
            self._held.mux.close("another agent has this session")

    async def _hold(self, tunnel: _Tunnel, nursery: trio.Nursery) -> _Tunnel:
        """Stay until the tunnel is over, looking for another place now and then if it shares its server or its proxy
        with one of a lower slot; the tunnel that was the last."""
        self._held = tunnel
        if self._slot and self._places.standing.by:
            self._stand_by()
        if tunnel.yields:
            with trio.move_on_after(HELD):
                await tunnel.over.wait()
                return tunnel
            # Nobody has taken this place away: it is taken for good, by a tunnel that counts as its token does.
            self._alone()
            tunnel.draining = True
            tunnel.finish("there is no other agent")
            return tunnel
        pause = LOOK
        while True:
            # Spread, as agents that were thrown out together would look together.
            with trio.move_on_after(pause * (0.75 + random.random() / 2)):  # noqa: S311
                await tunnel.over.wait()
                return tunnel
            if tunnel.place is None or not any(self._places.shares(tunnel.place)):
                pause = LOOK
                continue
            found = await self._look(tunnel, tunnel.place, nursery)
            pause = min(2 * pause, LOOK_CAP) if found is tunnel else LOOK
            self._held = tunnel = found

    def _alone(self) -> None:
        self._yields = False
        if not self._slot:
            self._places.standing.alone()
            logger.info("the other agent of this session has gone", extra={"instance": self._dialler.instance.hex()})

    async def _look(self, tunnel: _Tunnel, place: Place, nursery: trio.Nursery) -> _Tunnel:
        """A tunnel that is better off, which takes over; or the one that there is."""
        with trio.CancelScope() as tunnel.looking:
            wishes = None if tunnel.over.is_set() else self._better(place)
            while wishes is not None:
                try:
                    better = await self._open(nursery, wishes)
                except NoTunnel as exc:
                    logger.debug("no better place for a tunnel", extra={"reason": str(exc), "slot": self._slot})
                    wishes = self._less(place, wishes, exc.conflict)
                else:
                    self._leave(tunnel)
                    self._say_replaced()
                    return better
        return tunnel

    def _better(self, place: Place) -> Wishes:
        """What would be better than here: neither the server nor the proxy of another tunnel."""
        server, _ = self._places.shares(place)
        servers = self._places.servers(but=None if server else place)
        return Wishes(servers=servers, proxies=self._places.proxies(self._slot), strictly=True)

    def _less(self, place: Place, wishes: Wishes, conflict: str | None) -> Wishes | None:
        """What is still better than here when one of both cannot be had; None for nothing."""
        if all(self._places.shares(place)) and wishes.servers and wishes.proxies:
            if conflict == "proxy":
                return attrs.evolve(wishes, proxies=())
            if conflict == "server":
                return attrs.evolve(wishes, servers=())
        return None

    def _leave(self, tunnel: _Tunnel) -> None:
        """Another one takes its slot, or soon will; its server closes it when it has seen that, or is done."""
        if tunnel.place is not None:
            tunnel.place.left = True
        if tunnel.mux.wire.gone:
            return
        self._left.append(tunnel.mux)
        self._unsaid.append(tunnel.mux)
        if len(self._left) > MAX_LEFT:
            self._left.popleft().close("it was replaced, and its server did not close it")

    def _say_replaced(self) -> None:
        """Another tunnel is up: servers need not wait any longer before they close those that were left."""
        for mux in self._unsaid:
            if not mux.wire.gone:
                mux.wire.goaway(GoawayCode.DISPLACED, "another tunnel has taken its place")
        self._unsaid.clear()

    async def _open(self, nursery: trio.Nursery, wishes: Wishes | None = None) -> _Tunnel:
        """A new tunnel, up, and carried in `nursery`. wishes: None for away from all others, if that can be had.

        Raises NoTunnel and TunnelRefused.
        """
        places = self._places
        async with places.turn():
            yields = self._yields if self._slot else places.standing.yields
            wishes = wishes or Wishes(servers=places.servers(), proxies=places.proxies(self._slot), yields=yields)
            try:
                dialled = await self._dialler.dial(wishes)
            except NoTunnel as exc:
                if exc.final:
                    raise TunnelRefused(str(exc)) from exc
                raise
            tunnel = self._newest = self._begin(dialled, yields=wishes.yields)
            nursery.start_soon(self._carry, tunnel, dialled.opened.early)
            try:
                await tunnel.settled.wait()
            except trio.Cancelled:
                tunnel.mux.close("it is not wanted any more")
                raise
        if tunnel.place is None:
            if not wishes.strictly:
                self._dialler.failed(raw=dialled.raw)
            raise NoTunnel(tunnel.reason)
        return tunnel

    def _begin(self, dialled: Dialled, *, yields: bool) -> _Tunnel:
        now = trio.current_time()
        ours = Hello(
            peer=Peer.ACCEPTOR,
            instance=self._dialler.instance,
            slot=self._slot,
            generation=self._places.next_generation(),
            name="agent",
        )
        # Spread over ten seconds, so that ten thousand agents that dialled at once do not ask at once.
        liveness = Liveness(idle_ping=20 + 10 * random.random())  # noqa: S311
        tunnel: _Tunnel

        def greeted(theirs: Hello) -> None:
            self._arrived(tunnel, Place(self._slot, theirs.instance.hex(), dialled.proxy))

        def parted(goaway: Goaway) -> None:
            if goaway.code == GoawayCode.DRAIN:
                tunnel.draining = True
                tunnel.finish("the server is about to stop")

        handler = _Handler(self._acceptor, greeted, parted)
        wire = Wire(handler, ours, dialled=True, now=now, liveness=liveness, label="tunnel")
        tunnel = _Tunnel(MuxSession(self._hub, wire, dialled.opened.transport), yields=yields)
        return tunnel

    def _arrived(self, tunnel: _Tunnel, place: Place) -> None:
        tunnel.place = place
        tunnel.up_at = trio.current_time()
        tunnel.settled.set()
        self._places.arrived(place)
        self._dialler.known = True
        self.connected.set()
        about = {"url": self._dialler.netloc, "slot": place.slot, "server": place.server, "proxy": place.proxy}
        logger.log(logging.DEBUG if tunnel.yields else logging.INFO, "tunnel is up", extra=about)

    async def _carry(self, tunnel: _Tunnel, early: bytes) -> None:
        try:
            reason = await tunnel.mux.run(early)
        finally:
            if tunnel.place is not None:
                self._places.gone(tunnel.place)
        if tunnel.mux in self._left:
            self._left.remove(tunnel.mux)
        tunnel.finish(reason)


def _last_words(tunnel: _Tunnel) -> str:
    """Why it has ended, as its server says it or as it shows."""
    said = tunnel.mux.wire.closing
    return said.text if said is not None and said.code == GoawayCode.DISPLACED and said.text else tunnel.reason
