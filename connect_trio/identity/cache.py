"""A bounded cache in front of something slow that may be away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import trio

K = TypeVar("K")
V = TypeVar("V")


@attrs.define
class _Entry(Generic[V]):
    value: V
    read_at: float
    fresh_until: float
    usable_until: float


class ReadThrough(Generic[K, V]):
    """Values for `fresh` seconds, up to `stale` seconds while their source is away.

    One task per key asks the source. Meanwhile others get the old value if there is a usable one and wait otherwise.

    fresh, stale: seconds from the time a value was read. size: how many values; the least recently used one goes.
    away: the error by which the source says that it is not there. keep: whether a value may be used when stale.
    """

    def __init__(
        self,
        *,
        fresh: float,
        stale: float,
        size: int,
        away: type[Exception],
        keep: Callable[[V], bool],
        clock: Callable[[], float],
    ) -> None:
        self._fresh = fresh
        self._stale = stale
        self._size = size
        self._away = away
        self._keep = keep
        self._clock = clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._asking: dict[K, trio.Lock] = {}

    def peek(self, key: K) -> V | None:
        """The value if it is fresh."""
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        self._entries.move_to_end(key)
        return entry.value

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The value, from `load` if it is not fresh. No checkpoint if it is. Raises what `load` raises."""
        value = self.peek(key)
        if value is not None:
            return value
        lock = self._asking.setdefault(key, trio.Lock())
        if lock.locked():
            entry = self._usable(key)
            if entry is not None:
                return entry.value
        try:
            async with lock:
                value = self.peek(key)
                return value if value is not None else await self._ask(key, load)
        finally:
            if not lock.locked():
                self._asking.pop(key, None)

    async def _ask(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await load()
        except self._away:
            entry = self._usable(key)
            if entry is None:
                raise
            entry.fresh_until = min(self._clock() + self._fresh, entry.usable_until)
            return entry.value
        self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        now = self._clock()
        usable = self._stale if self._keep(value) else self._fresh
        self._entries[key] = _Entry(value, now, now + self._fresh, now + max(usable, self._fresh))
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def age(self, key: K) -> float | None:
        """Seconds since the value was read from its source, however old that is; None if it is not kept any more."""
        entry = self._entries.get(key)
        return self._clock() - entry.read_at if entry is not None else None

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def _usable(self, key: K) -> _Entry[V] | None:
        entry = self._entries.get(key)
        return entry if entry is not None and self._clock() < entry.usable_until else None
