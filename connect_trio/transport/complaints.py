"""How often a line may be logged about peers that nobody knows: a port scan is worth some lines, not a full disk."""

from __future__ import annotations

BURST = 20.0
"""Lines at once."""

PER_SECOND = 0.5
"""Lines from then on."""


class Complaints:
    """A token bucket for lines of one kind."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._filled: float | None = None
        self._left_out = 0

    def admit(self, now: float) -> int | None:
        """None: not this line. Else it may be logged, and this is how many before it were left out."""
        passed = 0.0 if self._filled is None else now - self._filled
        self._tokens = min(BURST, self._tokens + passed * PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            self._left_out += 1
            return None
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
