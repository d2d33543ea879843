"""A bounded cache in front of a registry: visitors to known sessions get in while the registry is away.

A cached answer passes through three ages: up to `fresh` seconds it is given without asking; up to `ttl` it is asked
for again, and given only if the registry is away, slow or has lost its memory; after that it is forgotten.

A registry that comes back empty knows no session until its owners renew their leases. So "no route" replaces a known
route only if that was reported wrong: by somebody who tried it (`invalidate`), or by the server that took it out
(`changes`, which whoever owns the cache keeps running). Until all owners have renewed theirs, an older tunnel may have
the place of a newer one. So for REGAIN after the registry was away, a newer route that is known stands against an
older one that is found, unless who tried it reports that it is wrong.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NoReturn

import attrs
import trio

from connect_trio.routing.registry import Registry, RegistryUnavailable, Route, Tell

REGAIN = 10.0
"""Seconds in which servers are back at a registry that was away, and have renewed their leases."""


@attrs.define
class _Entry:
    """disproved: somebody took it out of the registry, or found it wrong. tried: the latter."""

    routes: Sequence[Route]
    ask_again: float
    expires: float
    disproved: bool = False
    tried: bool = False


@attrs.define
class _Flight:
    """A question that is on its way; those who have the same one wait for its answer."""

    landed: trio.Event = attrs.field(factory=trio.Event)
    routes: Sequence[Route] | None = None
    error: RegistryUnavailable | None = None


class CachedRegistry:
    """A `Registry` that remembers what `find` found.

    ttl: seconds for which a known answer may stand in for a registry that is away (LOCAL_CACHE_TTL).
    fresh: seconds for which a known answer is given without asking. negative_ttl: the same for "no route", below 1 s
    so that a session that has just started is found. patience: seconds that a caller with a known answer waits for a
    newer one. outage: seconds after a failure in which a known answer is given without asking. limit: sessions
    remembered, the least recently used are forgotten first.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        ttl: float = 120.0,
        fresh: float = 2.0,
        negative_ttl: float = 0.5,
        patience: float = 0.25,
        outage: float = 1.0,
        limit: int = 10_000,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._registry = registry
        self._ttl = ttl
        self._fresh = min(fresh, ttl)
        self._negative_ttl = min(negative_ttl, ttl)
        self._patience = patience
        self._outage = outage
        self._limit = limit
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._away_until = -math.inf
        self._regained = -math.inf  # when the registry knows again what it may have forgotten

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """See `Registry.publish`; the session is asked for again afterwards."""
        try:
            return await self._registry.publish(route, ttl=ttl)
        finally:
            self.invalidate(route.session)

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """See `Registry.renew`; not cached."""
        return await self._registry.renew(routes, ttl=ttl)

    async def withdraw(self, route: Route) -> bool:
        """See `Registry.withdraw`; the session is asked for again afterwards."""
        try:
            return await self._registry.withdraw(route)
        finally:
            self.invalidate(route.session)

    async def changes(self, tell: Tell) -> NoReturn:
        """See `Registry.changes`. What is told is no longer fresh here: who asks then is answered by the registry."""

        def told(session: str | None) -> None:
            if session is None:
                self._doubt_all()
            else:
                self._doubt(session, tried=False)
            tell(session)

        await self._registry.changes(told)

    async def find(self, session: str) -> Sequence[Route]:
        """See `Registry.find`. A fresh answer costs no checkpoint.

        Raises RegistryUnavailable only where there is no answer younger than `ttl`.
        """
        known = self._lookup(session)
        now = self._clock()
        if known is not None and (now < known.ask_again or (known.routes and now < self._away_until)):
            return known.routes
        if known is None or not known.routes:
            return await self._ask(session)
        try:
            with trio.fail_after(self._patience):
                return await self._ask(session)
        except (RegistryUnavailable, trio.TooSlowError):
            self._away_until = self._clock() + self._outage
            return known.routes

    def invalidate(self, session: str) -> None:
        """What is known of this session proved wrong: ask again at the next `find`.

        It still stands in while the registry is away, since then there is nothing better.
        """
        self._doubt(session, tried=True)

    def _doubt(self, session: str, *, tried: bool) -> None:
        entry = self._entries.get(session)
        if entry is not None and entry.routes:
            entry.ask_again = -math.inf
            entry.disproved = True
            entry.tried = entry.tried or tried
        elif entry is not None:
            del self._entries[session]
        # An answer that is on its way may be as old as what proved wrong: it serves those who wait, nobody else.
        self._flights.pop(session, None)

    def _doubt_all(self) -> None:
        """Changes may have been missed: ask again for each session. Nothing was said to be wrong, though."""
        self._regained = self._clock() + REGAIN
        for session, entry in list(self._entries.items()):
            if entry.routes:
                entry.ask_again = -math.inf
            else:
                del self._entries[session]
        self._flights.clear()
        self._away_until = -math.inf

    def _lookup(self, session: str) -> _Entry | None:
        entry = self._entries.get(session)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            del self._entries[session]
            return None
        self._entries.move_to_end(session)
        return entry

    async def _ask(self, session: str) -> Sequence[Route]:
        """Ask the registry, once for all who ask at the same time."""
        while True:
            flight = self._flights.get(session)
            if flight is None:
                return await self._lead(session)
            await flight.landed.wait()
            if flight.error is not None:
                raise RegistryUnavailable(str(flight.error)) from flight.error
            if flight.routes is not None:
                return flight.routes
            # Whoever asked was cancelled; somebody else must ask.

    async def _lead(self, session: str) -> Sequence[Route]:
        flight = self._flights[session] = _Flight()
        try:
            flight.routes = await self._registry.find(session)
        except RegistryUnavailable as exc:
            self._regained = self._clock() + REGAIN
            flight.error = exc
            raise
        else:
            if self._flights.get(session) is flight:
                flight.routes = self._remember(session, flight.routes)
            return flight.routes
        finally:
            if self._flights.get(session) is flight:
                del self._flights[session]
            flight.landed.set()

    def _remember(self, session: str, routes: Sequence[Route]) -> Sequence[Route]:
        """Keep an answer; returns what is now believed."""
        now = self._clock()
        known = self._lookup(session)
        if not routes and known is not None and known.routes and not known.disproved:
            known.ask_again = now + self._fresh
            return known.routes
        if known is not None and not known.tried and now < self._regained:
            routes = _newest(known.routes, routes)
        if routes:
            entry = _Entry(routes, now + self._fresh, now + self._ttl)
        else:
            entry = _Entry(routes, now + self._negative_ttl, now + self._negative_ttl)
        self._entries[session] = entry
        self._entries.move_to_end(session)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return routes


def _newest(known: Sequence[Route], found: Sequence[Route]) -> Sequence[Route]:
    """What was found, but for slots where something newer is known."""
    by_slot = {route.slot: route for route in known}
    return [max(route, by_slot.get(route.slot, route), key=lambda each: each.epoch) for route in found]
