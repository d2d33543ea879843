"""The registry and the store of a single process: the development stack's, and the tests'.

Not a mock: the same contract suite holds these and the Redis ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NoReturn

import attrs
import trio
from trio.lowlevel import checkpoint

from connect_trio.routing.registry import (
    MAX_FORMER,
    MAX_SLOTS,
    REMEMBER,
    STANDING_BY,
    RegistryUnavailable,
    Route,
    Tell,
    check_key,
    check_slot,
    check_value,
)

Clock = Callable[[], float]


@attrs.define
class _Lease:
    route: Route
    expires: float


@attrs.define
class _Place:
    """mark: who held it last and has not withdrawn. former: who held it before and has not withdrawn, newest first."""

    lease: _Lease | None = None
    mark: _Lease | None = None
    former: list[Route] = attrs.field(factory=list)
    forget_former: float = -math.inf

    def look(self, now: float) -> None:
        """Let go of what is over."""
        if self.lease is not None and self.lease.expires <= now:
            self.lease = None
        if self.mark is not None and self.mark.expires <= now:
            self.mark = None
        if self.forget_former <= now:
            self.former.clear()

    @property
    def empty(self) -> bool:
        return self.lease is None and self.mark is None and not self.former

    @property
    def known(self) -> list[Route]:
        """Who may be back."""
        return self.former if self.mark is None else [self.mark.route, *self.former]

    def newer_may_be_back(self, route: Route, *, but: str = "") -> bool:
        """but: a connector that does not count."""
        return any(each.epoch > route.epoch and each.connector != but for each in self.known)

    def late(self, route: Route) -> bool:
        """Whether its connector has said of a newer tunnel since: calls may arrive in another order."""
        own = [each for each in self.known if each.connector == route.connector]
        return any(each.epoch > route.epoch and each.since > route.since for each in own)

    def hold(self, route: Route, *, expires: float, forget: float) -> None:
        last = self.lease or self.mark
        self.former = [each for each in self.former if each.connector != route.connector]
        if last is not None and last.route.connector != route.connector:
            self.former = sorted([last.route, *self.former], key=lambda each: -each.epoch)[:MAX_FORMER]
            self.forget_former = forget
        self.lease, self.mark = _Lease(route, expires), _Lease(route, forget)


class MemoryRegistry:
    """A `Registry` in a dict. clock: monotonic seconds. limit: places at most. remember: seconds, see `Registry`."""

    def __init__(self, *, clock: Clock = trio.current_time, limit: int = 100_000, remember: float = REMEMBER) -> None:
        self._clock = clock
        self._limit = limit
        self._remember = remember
        self._places: dict[tuple[str, int], _Place] = {}
        self._listeners: dict[object, Tell] = {}

    # Each method takes its checkpoint first and then acts without another one: acting is atomic, and a caller
    # that is cancelled knows that nothing happened.

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """See `Registry.publish`. Raises RegistryUnavailable when full of live leases."""
        check_slot(route.slot)
        await checkpoint()
        place = self._look(route)
        held = None if place.lease is None else place.lease.route
        if held is None or (held.epoch >= route.epoch and _owner(held) != _owner(route)):
            if (held is not None and held.connector != route.connector) or place.late(route):
                return False
            passed = place.newer_may_be_back(route, but=route.connector)
            if self._another_serves(route) if route.epoch < STANDING_BY else passed:
                return False
            if passed:
                place = _Place()
        self._hold(place, route, ttl)
        self._tell(route.session)
        return True

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """See `Registry.renew`. Raises RegistryUnavailable when full of live leases."""
        for route in routes:
            check_slot(route.slot)
        await checkpoint()
        taken = []
        for route in routes:
            place = self._look(route)
            ours = _same(place.lease, route)
            if place.lease is not None:
                may = ours or place.lease.route.epoch < route.epoch
            else:
                may = not place.newer_may_be_back(route)
            if not may:
                taken.append(route)
                continue
            self._hold(place, route, ttl)
            if not ours:
                self._tell(route.session)
        return taken

    async def withdraw(self, route: Route) -> bool:
        """See `Registry.withdraw`."""
        check_slot(route.slot)
        await checkpoint()
        place = self._look(route)
        if _same(place.mark, route):
            place.mark = None
        place.former = [each for each in place.former if (each.connector, each.epoch) != _owner(route)]
        held = _same(place.lease, route)
        if held:
            place.lease = None
            self._tell(route.session)
        if place.empty:
            self._places.pop((route.session, route.slot), None)
        return held

    async def find(self, session: str) -> Sequence[Route]:
        """See `Registry.find`."""
        await checkpoint()
        held = (self._held(session, slot) for slot in range(MAX_SLOTS))
        return [route for route in held if route is not None]

    async def changes(self, tell: Tell) -> NoReturn:
        """See `Registry.changes`."""
        place = object()
        self._listeners[place] = tell
        try:
            tell(None)
            while True:
                await trio.sleep_forever()
        finally:
            del self._listeners[place]

    def _tell(self, session: str) -> None:
        for tell in list(self._listeners.values()):
            tell(session)

    def _held(self, session: str, slot: int) -> Route | None:
        lease = self._look_at(session, slot).lease
        return None if lease is None else lease.route

    def _another_serves(self, route: Route) -> bool:
        """Whether a newer agent of the session has a tunnel in any slot."""
        held = (self._held(route.session, slot) for slot in range(MAX_SLOTS))
        return any(each is not None and each.instance != route.instance and each.epoch > route.epoch for each in held)

    def _look(self, route: Route) -> _Place:
        return self._look_at(route.session, route.slot)

    def _look_at(self, session: str, slot: int) -> _Place:
        place = self._places.get((session, slot))
        if place is None:
            return _Place()
        place.look(self._clock())
        if place.empty:
            del self._places[session, slot]
        return place

    def _hold(self, place: _Place, route: Route, ttl: float) -> None:
        key = (route.session, route.slot)
        if key not in self._places and len(self._places) >= self._limit:
            self._make_room()
        now = self._clock()
        place.hold(route, expires=now + ttl, forget=now + max(ttl, self._remember))
        self._places[key] = place

    def _make_room(self) -> None:
        """What has a lease stays; who held a place without one is forgotten."""
        for place in self._places.values():
            place.look(self._clock())
        self._places = {key: place for key, place in self._places.items() if place.lease is not None}
        if len(self._places) >= self._limit:
            raise RegistryUnavailable(f"the registry in memory is full ({self._limit} routes)")


def _same(held: _Lease | None, route: Route) -> bool:
    return held is not None and _owner(held.route) == _owner(route)


def _owner(route: Route) -> tuple[str, int]:
    return route.connector, route.epoch


@attrs.define
class _Entry:
    value: bytes
    expires: float


class MemoryStore:
    """A `Store` in a dict. clock: monotonic seconds. limit, max_bytes: entries and bytes of values held at most."""

    def __init__(
        self, *, clock: Clock = trio.current_time, limit: int = 100_000, max_bytes: int = 64 * 1024 * 1024
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Store.put`. Raises RegistryUnavailable when full of live values."""
        check_key(key)
        check_value(value)
        await checkpoint()
        self._set(key, value, self._clock() + ttl)

    def _set(self, key: str, value: bytes, expires: float) -> None:
        if not self._has_room(key, value):
            self._expire()
        if not self._has_room(key, value):
            raise RegistryUnavailable(f"the store in memory is full ({len(self._entries)} values)")
        self._pop(key)
        self._entries[key] = _Entry(value, expires)
        self._bytes += len(value)

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        check_key(key)
        await checkpoint()
        entry = self._live(key)
        return entry.value if entry is not None else None

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See `Store.get_many`."""
        for key in keys:
            check_key(key)
        await checkpoint()
        entries = [self._live(key) for key in keys]
        return [entry.value if entry is not None else None for entry in entries]

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bool:
        """See `Store.claim`. Raises RegistryUnavailable when full of live values."""
        check_key(key)
        check_value(value)
        await checkpoint()
        entry = self._live(key)
        if entry is not None:
            return entry.value == value
        self._set(key, value, self._clock() + ttl)
        return True

    async def replace(self, key: str, value: bytes) -> bool:
        """See `Store.replace`. Raises RegistryUnavailable when full of live values."""
        check_key(key)
        check_value(value)
        await checkpoint()
        entry = self._live(key)
        if entry is None:
            return False
        self._set(key, value, entry.expires)
        return True

    async def prolong(self, key: str, *, ttl: float) -> None:
        """See `Store.prolong`."""
        check_key(key)
        await checkpoint()
        entry = self._live(key)
        if entry is not None:
            entry.expires = max(entry.expires, self._clock() + ttl)

    async def take(self, key: str) -> bytes | None:
        """See `Store.take`."""
        check_key(key)
        await checkpoint()
        entry = self._pop(key)
        return entry.value if entry is not None and entry.expires > self._clock() else None

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        check_key(key)
        await checkpoint()
        self._pop(key)

    async def agree(self, key: str, value: bytes) -> bytes:
        """See `Store.agree`. Raises RegistryUnavailable when full of live values."""
        check_key(key)
        check_value(value)
        await checkpoint()
        entry = self._live(key)
        if entry is None:
            self._set(key, value, math.inf)
            return value
        return entry.value

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires <= self._clock():
            self._pop(key)
            return None
        return entry

    def _has_room(self, key: str, value: bytes) -> bool:
        old = self._entries.get(key)
        entries = len(self._entries) + (old is None)
        size = self._bytes + len(value) - (len(old.value) if old is not None else 0)
        return entries <= self._limit and size <= self._max_bytes

    def _pop(self, key: str) -> _Entry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)
        return entry

    def _expire(self) -> None:
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if entry.expires <= now]:
            self._pop(key)
