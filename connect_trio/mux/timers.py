"""Deadlines of many things, each of them named: one heap for an endpoint, whatever its streams wait for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable

Action = Callable[[float], None]

_SLACK = 1024  # entries of timers long gone that may lie in the heap beside those that count


class Timers:
    """One deadline a key. Setting it again replaces it. `alarm` is told when the first one may have moved nearer."""

    def __init__(self) -> None:
        self.alarm: Callable[[float], None] = _nobody
        self._set: dict[Hashable, tuple[float, int, Action]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._fresh: dict[Hashable, tuple[float, Action]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._set) + len(self._fresh)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._set or key in self._fresh

    def at(self, key: Hashable, due: float, action: Action) -> None:
        """Call `action(now)` once, at `due`."""
        self._fresh.pop(key, None)
        self._count += 1
        self._set[key] = (due, self._count, action)
        if len(self._heap) > 2 * len(self._set) + _SLACK:
            self._heap = [(due, count, key) for key, (due, count, _) in self._set.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, self._count, key))
        self.alarm(due)

    def after(self, key: Hashable, seconds: float, action: Action) -> None:
        """The same for those who do not know what time it is: counted from the next `run`, which is asked for."""
        self._set.pop(key, None)
        self._fresh[key] = (seconds, action)
        self.alarm(0.0)

    def cancel(self, key: Hashable) -> None:
        self._set.pop(key, None)
        self._fresh.pop(key, None)

    def run(self, now: float) -> None:
        """Do what is due."""
        fresh, self._fresh = self._fresh, {}
        for key, (seconds, action) in fresh.items():
            self.at(key, now + seconds, action)
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, count, key = heapq.heappop(heap)
            current = self._set.get(key)
            if current is not None and current[1] == count:
                del self._set[key]
                current[2](now)
                heap = self._heap

    def deadline(self) -> float | None:
        """When `run` has something to do; 0 for at once, None for never."""
        if self._fresh:
            return 0.0
        heap = self._heap
        while heap:
            current = self._set.get(heap[0][2])
            if current is not None and current[1] == heap[0][1]:
                return heap[0][0]
            heapq.heappop(heap)
        return None


def _nobody(due: float) -> None:
    """Nobody keeps the clock (yet)."""
