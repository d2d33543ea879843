"""How long to wait before dialling again: exponential, with jitter. Pure: the caller brings the chance."""

from __future__ import annotations

FIRST = 0.2
FACTOR = 2.0
CAP = 10.0  # a proxy lets a dial wait nearly as long for a server


class Backoff:
    """Delays in seconds: the first is 100 to 200 ms, later ones double up to 10 s; jitter takes up to half away."""

    def __init__(self) -> None:
        self._next = FIRST

    def delay(self, chance: float) -> float:
        """The delay before the next try; `chance` is a random number from 0 to 1."""
        delay = self._next * (1 - chance / 2)
        self._next = min(CAP, self._next * FACTOR)
        return delay

    def reset(self) -> None:
        """A connection held: begin anew."""
        self._next = FIRST
