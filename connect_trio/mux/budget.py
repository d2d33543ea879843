"""What all streams of a process may keep together, each one's share of it, and what became of those that did not fit.

A window bounds one stream; this bounds their sum. Bytes count from the moment that they are written until the peer has
received them, and from the moment that they come until the application has taken them.

The fuller it gets, the smaller is the share of each stream, down to a floor: what a receiver grants anew, and what a
sender is ready to keep. Half of the budget is enough for the floors of as many streams as a process may have, so that
none has to be refused for want of memory.
"""

from __future__ import annotations

from collections import Counter

BUDGET = 512 << 20  # bytes that the streams of a process may keep
STREAMS = 65_536  # that a process may have; 2,000 SSH connections of 30 channels are 60,000
FULL = 1 << 20  # bytes: what the first halving is the half of
FLOOR = 2 << 10  # bytes that a stream may always keep in each direction
OVERCOMMIT = 2  # how often the budget may be promised, if all streams had their whole share
FREE = 1 << 40  # the share while there is plenty: windows bound what a stream keeps

_NEVER = 1 << 62


class Budget:
    """Bytes in use; shared by all halves of all streams of one or more endpoints.

    limit: bytes beyond which detached streams are given up, the longest detached first, and an acceptor refuses new
    ones. Attached ones never are. most: streams beyond which new ones are refused.

    share: bytes that a stream may have in each direction. It is halved step by step while the use grows from a quarter
    of `limit` to half of it, and when so many streams have it that together they had OVERCOMMIT times `limit`. What was
    granted before is not taken back. It is computed when one of four marks is passed, not for each byte, and is doubled
    again only well below the mark at which it was halved.
    """

    __slots__ = ("_above", "_below", "_crowd", "_fewer", "_fill", "_limit", "_more", "most", "share", "streams", "used")

    def __init__(self, limit: int = BUDGET, *, most: int = STREAMS) -> None:
        self.most = most
        self.streams = 0
        self.used = 0
        self._fill = self._crowd = 0  # halvings: because much is in use, because there are many streams
        self.limit = limit

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._adapt()

    @property
    def over(self) -> bool:
        return self.used > self._limit

    def add(self, count: int) -> None:
        """`count` bytes more are kept."""
        self.used = used = self.used + count
        if used >= self._above:
            self._adapt()

    def free(self, count: int) -> None:
        """`count` bytes are kept no more."""
        self.used = used = self.used - count
        if used < self._below:
            self._adapt()

    def begin(self) -> None:
        """There is one stream more."""
        self.streams += 1
        if self.streams > self._more:
            self._adapt()

    def end(self) -> None:
        """There is one stream less."""
        self.streams -= 1
        if self.streams < self._fewer:
            self._adapt()

    def _adapt(self) -> None:
        """The share, and the marks at which it changes next."""
        last = (FULL // FLOOR).bit_length() - 1
        quarter = self._limit // 4
        marks = [quarter + quarter * at // max(1, last - 1) for at in range(last)]
        slack = quarter // 4
        while self._fill < last and self.used >= marks[self._fill]:
            self._fill += 1
        while self._fill and self.used < marks[self._fill - 1] - slack:
            self._fill -= 1
        self._above = marks[self._fill] if self._fill < last else _NEVER
        self._below = marks[self._fill - 1] - slack if self._fill else -_NEVER
        heads = [max(0, OVERCOMMIT * self._limit) // (FULL >> at) for at in range(last)]
        while self._crowd < last and self.streams > heads[self._crowd]:
            self._crowd += 1
        while self._crowd and self.streams < heads[self._crowd - 1] * 7 // 8:
            self._crowd -= 1
        self._more = heads[self._crowd] if self._crowd < last else _NEVER
        self._fewer = heads[self._crowd - 1] * 7 // 8 if self._crowd else -_NEVER
        halvings = max(self._fill, self._crowd)
        self.share = max(FLOOR, FULL >> halvings) if halvings else FREE


class Counts:
    """What happened to the streams of an endpoint since it began, for metrics.

    detached: how often a stream lost its way. resumed: how often one found another. moved: how often that was done
    while the old way still worked. refused: streams that were not opened, since there were too many or for want of
    memory. resets: streams that this side dropped, by code.
    """

    __slots__ = ("detached", "moved", "refused", "resets", "resumed")

    def __init__(self) -> None:
        self.detached = 0
        self.resumed = 0
        self.moved = 0
        self.refused = 0
        self.resets: Counter[int] = Counter()
