"""How long to wait before dialling again: exponential, with jitter. Pure: the caller brings the chance."""

from __future__ import annotations

FIRST = 0.2
FACTOR = 2.0
CAP = 10.0  # a proxy lets a dial wait nearly as long for a server
GOOD = 10.0  # seconds after which a connection was a good one
WORTH = 4.0  # times the next delay are as good as that


class Backoff:
    """Delays in seconds: the first is 100 to 200 ms, later ones double up to 10 s; jitter takes up to half away."""

    def __init__(self) -> None:
        self._next = FIRST

    def delay(self, chance: float) -> float:
        """The delay before the next try; `chance` is a random number from 0 to 1."""
        delay = self._next * (1 - chance / 2)
        self._next = min(CAP, self._next * FACTOR)
        return delay

    def held(self, seconds: float) -> None:
        """A connection lasted so long. Begin anew if that was worth the wait: one that is cut now and then is dialled
        at once each time, one that never lasts is not dialled without end."""
        if seconds >= min(GOOD, WORTH * self._next):
            self._next = FIRST
