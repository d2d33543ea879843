"""What an acceptor remembers of streams that have ended, so that nothing late opens or resumes them again.

In a healthy network there are none: the opener's answer to the end of a stream that was asked for once removes its
tombstone, since no other question about it can be on its way.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs

from connect_trio.mux.streams import StreamEnd
from connect_trio.mux.timers import Timers

MAX_TOMBSTONES = 65536
SHORT_LINGER = 135.0  # seconds; longer than an abandoned attempt can be on its way: twice the silence that an idle wire
# is allowed (a paused switch may hold it back on either hop), and the longest attempt


@attrs.frozen
class Tombstone:
    """attempt: the highest that was seen of the stream. end: how it ended."""

    attempt: int
    end: StreamEnd


class Tombstones:
    """Ended streams by token, for `linger` seconds; at most `limit`, the oldest go first."""

    def __init__(self, timers: Timers, *, linger: float, limit: int = MAX_TOMBSTONES) -> None:
        self._timers = timers
        self._linger = linger
        self._limit = limit
        self._stones: OrderedDict[bytes, Tombstone] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stones)

    def get(self, token: bytes) -> Tombstone | None:
        return self._stones.get(token)

    def bury(self, token: bytes, attempt: int, end: StreamEnd, now: float | None = None) -> None:
        """The stream has ended here; whether the opener knows is not known. Cheaper for those who know the time."""
        self._put(token, Tombstone(attempt, end), self._linger, now)
        while len(self._stones) > self._limit:
            self._remove(next(iter(self._stones)))

    def confirmed(self, token: bytes, now: float | None = None) -> None:
        """The opener has forgotten the stream: only its earlier questions can still come."""
        stone = self._stones.get(token)
        if stone is None:
            return
        if stone.attempt == 1:
            self._remove(token)
        else:
            self._put(token, stone, min(SHORT_LINGER, self._linger), now)

    def _put(self, token: bytes, stone: Tombstone, seconds: float, now: float | None) -> None:
        self._stones[token] = stone
        self._stones.move_to_end(token)
        if now is None:
            self._timers.after((token, "tombstone"), seconds, lambda now: self._remove(token))
        else:
            self._timers.at((token, "tombstone"), now + seconds, lambda now: self._remove(token))

    def _remove(self, token: bytes) -> None:
        self._stones.pop(token, None)
        self._timers.cancel((token, "tombstone"))
