"""Finds a way for each stream that has none: over which link to ask, and when to ask again.

A stream that is being opened and one that lost its link, its server or its agent's tunnel are the same case: the
registry tells where the session's tunnels are, and RESUME (or OPEN) goes to one server after the other. What worked for
others comes first, what the stream has just lost comes last; after a round in vain the registry is asked anew: at once
when it tells that the session's routes have changed, and less and less often for as long as it says nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable

import attrs
import trio

from connect_trio.dial import Failure
from connect_trio.link_pool import DISTRUSTED, LinkPool
from connect_trio.mux.codes import DetachCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.opener import Opener
from connect_trio.mux.outbox import MAX_CONTROL
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.registry import RegistryUnavailable

FIRST_REST = 0.1  # seconds between two rounds, doubled up to LONGEST_REST; jitter takes up to half away
LONGEST_REST = 2.0
LONGEST_WAIT = 0.5  # the same while somebody waits for a stream to be opened
FULL_REST = 0.01  # seconds, while a link does not take our questions as fast as we ask
FULL_WAIT = 5.0  # seconds that a link may take to make room for the next one; then others are asked
TURN = 64  # streams that are asked for before others may run
MOVES = 200.0  # healthy streams that are moved in a second

NO_AGENT = Failure(status=503, part="agent", text="the Studio's agent is not connected to Connect")
NO_SERVER = Failure(status=502, part="server", text="the server that holds the tunnel cannot be reached")

logger = logging.getLogger(__name__)


@attrs.define
class _Round:
    """Where one stream has asked since it lost its home, or since it last asked everywhere. lost: where that was."""

    lost: str | None = None
    tried: set[str] = attrs.field(factory=set)


class _Search:
    """The streams of one session that need a way. fresh: set when one is added, and with `news`: the routes changed.
    vain: whether a round has ended without somebody to ask for all of them. until: when those that were everywhere ask
    again."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.streams: dict[CoreStream, _Round] = {}
        self.fresh = trio.Event()
        self.news = False
        self.failure = NO_AGENT
        self.vain = False
        self.until = 0.0
        self.rest = FIRST_REST

    def add(self, stream: CoreStream, about: _Round) -> None:
        self.streams[stream] = about
        self.fresh.set()

    def prune(self, opener: Opener) -> None:
        """Forget those that found a way, or that nobody wants any more."""
        for stream in [each for each in self.streams if each.home or each.trial or each not in opener.streams]:
            del self.streams[stream]


class Ways:
    """Looks for ways in one task for each session that needs one. chance: random numbers from 0 to 1."""

    def __init__(
        self,
        pool: LinkPool,
        opener: Opener,
        registry: CachedRegistry,
        nursery: trio.Nursery,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        self._opener = opener
        self._registry = registry
        self._nursery = nursery
        self._chance = chance
        self._searches: dict[str, _Search] = {}
        opener.homeless = self.seek
        opener.leaving = self._leave

    def seek(self, stream: CoreStream, lost: Wire | None = None) -> None:
        """This stream needs a way; `lost` is the link over which it had its last one. Never waits."""
        session = stream.ask.session
        if not isinstance(stream.search, _Round):
            stream.search = _Round(self._pool.address_of(lost) if lost is not None else None)
        if stream.lost in (DetachCode.NO_ROUTE, DetachCode.DRAINING) and lost is not None:
            self._registry.invalidate(session)
        search = self._searches.get(session)
        if search is None:
            search = self._searches[session] = _Search(session)
            self._nursery.start_soon(self._run, search, name=f"ways to {session}")
        search.add(stream, stream.search)

    def changed(self, session: str | None) -> None:
        """The routes of a session have changed, or may have for all (None): who looks for a way looks there at once."""
        for search in [self._searches.get(session)] if session is not None else list(self._searches.values()):
            if search is not None:
                search.news = True
                search.fresh.set()

    def in_vain(self, session: str) -> bool:
        """Whether there is somebody who found nobody to ask for this session. Observers are told when that is so."""
        search = self._searches.get(session)
        return search is not None and search.vain

    def failure(self, session: str) -> Failure:
        """Why there is no way to a session, as far as is known."""
        search = self._searches.get(session)
        return search.failure if search is not None else NO_AGENT

    async def _run(self, search: _Search) -> None:
        try:
            while True:
                search.fresh = trio.Event()
                await self._round(search)
                search.prune(self._opener)
                if not search.streams:
                    return
                search.vain = True
                for stream in search.streams:
                    stream.notify()
                await self._rest(search)
        finally:
            del self._searches[search.session]

    async def _rest(self, search: _Search) -> None:
        """Wait before those that were refused everywhere ask again; others, that come meanwhile, need not wait."""
        if search.until <= trio.current_time():
            tries = min(stream.tries for stream in search.streams)
            longest = LONGEST_REST if all(stream.accepted for stream in search.streams) else LONGEST_WAIT
            rest = min(longest, max(search.rest, FIRST_REST * 1.5 ** min(tries, 10)))
            search.rest = min(LONGEST_REST, 2 * search.rest)
            search.until = trio.current_time() + rest * (1 - self._chance() / 2)
        with trio.move_on_at(search.until):
            await search.fresh.wait()
        if search.news or trio.current_time() >= search.until:
            search.news, search.until = False, trio.current_time()
            for about in search.streams.values():
                about.tried.clear()
            self._registry.invalidate(search.session)

    async def _round(self, search: _Search) -> None:
        """Ask everywhere for each stream until somebody is asked: one after the other, since each answer counts."""
        try:
            routes = await self._registry.find(search.session)
        except RegistryUnavailable as exc:
            search.failure = Failure(status=503, part="registry", text=f"Connect's registry does not answer: {exc}")
            return
        if not routes:
            search.failure = NO_AGENT
        addresses = list(dict.fromkeys(route.address for route in routes))
        for _ in addresses:
            groups: dict[str, list[CoreStream]] = {}
            for stream, about in search.streams.items():
                address = self._choose(about, addresses)
                if address is not None and stream.trial is None:
                    about.tried.add(address)
                    groups.setdefault(address, []).append(stream)
            for address, streams in groups.items():
                await self._ask(search, address, streams)
            search.prune(self._opener)

    def _choose(self, about: _Round, addresses: Iterable[str]) -> str | None:
        """Where a stream asks next; None if it was everywhere."""
        left = [address for address in addresses if address not in about.tried]
        return min(left, key=lambda each: (each == about.lost, self._pool.trust(each)), default=None)

    async def _ask(self, search: _Search, address: str, streams: list[CoreStream]) -> None:
        known = self._pool.trust(address) == DISTRUSTED  # once for a server, and not for each session that asks
        try:
            wire = await self._pool.wire(address)
        except OSError as exc:
            level = logging.DEBUG if known else logging.WARNING
            logger.log(level, "server cannot be reached", extra={"server": address, "reason": str(exc)})
            search.failure = NO_SERVER
            self._registry.invalidate(search.session)
            return
        for count, stream in enumerate(streams, 1):
            if stream not in self._opener.streams or stream.trial or stream.home:
                continue  # it ended, or found another way meanwhile
            if _full(wire) and not await _made_room(wire):
                logger.warning("link takes no stream", extra={"server": address, "reason": "it does not read"})
                search.failure = NO_SERVER
                return
            try:
                self._opener.attempt(stream, wire, trio.current_time())
            except LocalError as exc:
                logger.warning("link takes no stream", extra={"server": address, "reason": str(exc)})
                search.failure = NO_SERVER
            if count % TURN == 0:
                await trio.lowlevel.checkpoint()

    # moving streams that still work

    def _leave(self, wire: Wire) -> None:
        """The server wants the streams of this link elsewhere."""
        self._nursery.start_soon(self._move_all, wire, name="moving streams")

    async def _move_all(self, wire: Wire) -> None:
        """Move what can be moved without a pause, until nothing is left or the link is gone."""
        while not wire.gone and (streams := _movable(wire)):
            for stream in streams:
                await self._move(stream, wire)
                await trio.sleep(1 / MOVES)
            await trio.sleep(LONGEST_REST / 2)

    async def _move(self, stream: CoreStream, away: Wire) -> None:
        here = self._pool.address_of(away)
        try:
            routes = await self._registry.find(stream.ask.session)
        except RegistryUnavailable:
            return  # the next round asks again; the stream still works
        for address in dict.fromkeys(route.address for route in routes):
            if address == here:
                continue
            try:
                wire = await self._pool.wire(address)
                if stream.home is not None and stream.home.wire is away:
                    self._opener.attempt(stream, wire, trio.current_time())
            except (OSError, LocalError) as exc:
                logger.info("a stream cannot be moved there", extra={"server": address, "reason": str(exc)})
            else:
                return


def _full(wire: Wire) -> bool:
    """Whether a link has so much to say that more would soon have it given up for what it does not take."""
    return wire.outbox.control_size > MAX_CONTROL // 2 and not wire.gone


async def _made_room(wire: Wire) -> bool:
    """Whether a link that is full takes more within FULL_WAIT: a server may live, and read nothing."""
    with trio.move_on_after(FULL_WAIT):
        while _full(wire):  # noqa: ASYNC110 - a core has no events
            await trio.sleep(FULL_REST)
        return True
    return False


def _movable(wire: Wire) -> list[CoreStream]:
    streams: list[CoreStream] = [place.stream for place in wire.ports.values()]
    return [each for each in streams if each.attached and each.home and each.home.wire is wire and each.trial is None]
