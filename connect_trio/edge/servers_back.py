"""Agents' tunnels that find no server wait here, so that they are back as soon as one is, and not all at once.

An agent that was refused would dial again less and less often, and its visitors would wait with it. Those who wait try
again now and then, all together no more often than `TRIES` times a second; the first one that finds a server wakes the
others, which spread.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

FIRST = 0.2  # seconds, more or less, between two tries of one that waits alone
TRIES = 200.0  # a second, of all that wait
ARRIVALS = 500.0  # a second, of those that were woken
MOST = 10_000  # that may wait in one process


class ServersBack:
    """chance: random numbers from 0 to 1."""

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self.waiting = 0
        self._back = trio.Event()
        self._chance = chance

    @property
    def full(self) -> bool:
        return self.waiting >= MOST

    def notice(self) -> None:
        """A server has taken a tunnel."""
        if self.waiting:
            self._back.set()
            self._back = trio.Event()

    async def pause(self, until: float) -> None:
        """Return when it is worth another try, not later than `until`."""
        self.waiting += 1
        try:
            seconds = max(FIRST, self.waiting / TRIES) * (0.5 + self._chance())
            with trio.move_on_at(min(until, trio.current_time() + seconds)):
                await self._back.wait()
                await trio.sleep(self._chance() * self.waiting / ARRIVALS)
        finally:
            self.waiting -= 1
