"""What all streams of a process may keep together, and what became of those that did not fit.

A window bounds one stream; this bounds their sum. Bytes count from the moment that they are written until the peer has
received them, and from the moment that they come until the application has taken them.
"""

from __future__ import annotations

from collections import Counter

BUDGET = 256 << 20  # bytes that the streams of a process may keep


class Budget:
    """Bytes in use; shared by all halves of all streams of one or more endpoints.

    limit: beyond it detached streams are given up, the longest detached first, and new ones are refused. Attached ones
    never are.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = BUDGET) -> None:
        self.limit = limit
        self.used = 0

    @property
    def over(self) -> bool:
        return self.used > self.limit


class Counts:
    """What happened to the streams of an endpoint since it began, for metrics.

    detached: how often a stream lost its way. resumed: how often one found another. moved: how often that was done
    while the old way still worked. resets: streams that this side dropped, by code.
    """

    __slots__ = ("detached", "moved", "resets", "resumed")

    def __init__(self) -> None:
        self.detached = 0
        self.resumed = 0
        self.moved = 0
        self.resets: Counter[int] = Counter()
