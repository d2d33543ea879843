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
    MAX_SLOTS,
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


class MemoryRegistry:
    """A `Registry` in a dict. clock: monotonic seconds. limit: leases held at most."""

    def __init__(self, *, clock: Clock = trio.current_time, limit: int = 100_000) -> None:
        self._clock = clock
        self._limit = limit
        self._leases: dict[tuple[str, int], _Lease] = {}
        self._listeners: dict[object, Tell] = {}

    # Each method takes its checkpoint first and then acts without another one: acting is atomic, and a caller
    # that is cancelled knows that nothing happened.

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """See `Registry.publish`. Raises RegistryUnavailable when full of live leases."""
        check_slot(route.slot)
        await checkpoint()
        held = self._held(route.session, route.slot)
        if held is not None and held.epoch >= route.epoch and held.connector != route.connector:
            return False
        self._set(route, ttl)
        self._tell(route.session)
        return True

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """See `Registry.renew`. Raises RegistryUnavailable when full of live leases."""
        for route in routes:
            check_slot(route.slot)
        await checkpoint()
        taken = []
        for route in routes:
            held = self._held(route.session, route.slot)
            if held is None or held.epoch < route.epoch or _same(held, route):
                self._set(route, ttl)
                if held is None or not _same(held, route):
                    self._tell(route.session)
            else:
                taken.append(route)
        return taken

    async def withdraw(self, route: Route) -> bool:
        """See `Registry.withdraw`."""
        check_slot(route.slot)
        await checkpoint()
        held = self._held(route.session, route.slot)
        if held is None or not _same(held, route):
            return False
        del self._leases[route.session, route.slot]
        self._tell(route.session)
        return True

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
        lease = self._leases.get((session, slot))
        if lease is None:
            return None
        if lease.expires <= self._clock():
            del self._leases[session, slot]
            return None
        return lease.route

    def _set(self, route: Route, ttl: float) -> None:
        place = (route.session, route.slot)
        if place not in self._leases and len(self._leases) >= self._limit:
            now = self._clock()
            self._leases = {key: lease for key, lease in self._leases.items() if lease.expires > now}
            if len(self._leases) >= self._limit:
                raise RegistryUnavailable(f"the registry in memory is full ({self._limit} routes)")
        self._leases[place] = _Lease(route, self._clock() + ttl)


def _same(held: Route, route: Route) -> bool:
    return held.connector == route.connector and held.epoch == route.epoch


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
