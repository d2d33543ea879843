"""Credit arithmetic in absolute offsets, one class a direction.

A receiver tells two numbers: `received`, "I hold everything before this", which frees the sender's memory, and
`limit`, "you may send bytes before this", which moves only when the application took bytes. FIN sits at the offset
after the last byte and takes one position but no credit, so an acknowledged end is `received = length + 1`.
"""

from __future__ import annotations

from connect_trio.mux.budget import Budget
from connect_trio.mux.errors import StreamViolation
from connect_trio.mux.frames import MAX_OFFSET

_NEVER = 1 << 60
SOON = 0.25  # seconds after an acknowledgement by timer in which more bytes mean that the sender waited for it


class SendWindow:
    """What may be sent and what must be kept.

    base: everything before it is acknowledged. position: everything before it was handed to the attachment that the
    stream has now; FIN takes one position. end: everything before it was written by the application. limit: the peer's
    permission, as told on that attachment. allowance: how much this side is willing to keep, whatever the peer permits,
    if its share of the budget allows that.
    """

    __slots__ = ("allowance", "base", "budget", "end", "fin_acknowledged", "finished", "limit", "position")

    def __init__(self, *, limit: int, allowance: int, budget: Budget) -> None:
        self.base = 0
        self.position = 0
        self.end = 0
        self.limit = limit
        self.allowance = allowance
        self.budget = budget
        self.finished = False
        self.fin_acknowledged = False

    @property
    def room(self) -> int:
        """Bytes that may be written now."""
        return max(0, min(self.limit, self.base + min(self.allowance, self.budget.share)) - self.end)

    @property
    def behind(self) -> bool:
        """Whether something that was written is still to be handed to the attachment."""
        return self.position < self.end + self.finished

    def wrote(self, count: int) -> int:
        """`count` bytes go out; their first offset."""
        offset = self.end
        self.end += count
        self.budget.add(count)
        return offset

    def finish(self) -> int:
        """The end follows; its offset."""
        self.finished = True
        return self.end

    def attach(self, received: int, limit: int) -> None:
        """A new attachment begins with what the peer tells there. Its limit may be lower than the former one's, since
        another switch holds less. Raises StreamViolation if the peer lies."""
        self._check(received, limit)
        self.limit = limit
        self._acknowledge(received)
        self.position = max(received, self.base)

    def credit(self, received: int, limit: int) -> None:
        """A CREDIT or answer of the peer. Raises StreamViolation if it lies or takes back what it said."""
        if limit < self.limit:
            raise StreamViolation(f"limit went back from {self.limit} to {limit}")
        self._check(received, limit)
        self.limit = limit
        self._acknowledge(received)
        self.position = max(self.position, received, self.base)

    def _check(self, received: int, limit: int) -> None:
        if received > self.end + self.finished:
            raise StreamViolation(f"acknowledges {received}, but only {self.end} were sent")
        if limit > MAX_OFFSET:
            raise StreamViolation("limit out of range")

    def _acknowledge(self, received: int) -> None:
        if self.finished and received == self.end + 1:
            self.fin_acknowledged = True
            received = self.end
        if received > self.base:
            self.budget.free(received - self.base)
            self.base = received

    def drop(self) -> None:
        """Nothing of it is kept any more."""
        self.budget.free(self.end - self.base)
        self.base = self.end


class ReceiveWindow:
    """What has come, what the application took, and what the peer was told.

    The buffer that it allows holds at most `window` bytes, or the share that the budget gave when they were granted.
    Credit is due when a quarter of that was taken since the peer was last told, or at once for the end; the rest is
    told by a timer (`unacknowledged`).

    A sender may be ready to keep less than a quarter of our window, and would then move by that timer alone. If more
    comes as soon as the timer has acknowledged something, the sender has waited for it: from then on half of what it
    had sent until then is acknowledged at once (`pace`), until it shows that it can send much more.
    """

    __slots__ = ("_lulled_at", "budget", "finished", "granted", "lulled", "pace", "received", "taken", "told", "window")

    def __init__(self, *, granted: int, window: int, budget: Budget) -> None:
        self.window = window
        self.budget = budget
        self.received = 0
        self.taken = 0
        self.finished = False
        self.granted = granted  # the highest limit told
        self.told = 0  # the highest `received` told
        self.pace = _NEVER  # unacknowledged bytes that are acknowledged at once
        self.lulled = 0  # bytes that the timer has acknowledged, and when
        self._lulled_at = 0.0

    @property
    def buffered(self) -> int:
        return self.received - self.finished - self.taken

    @property
    def unacknowledged(self) -> bool:
        return self.told < self.received

    @property
    def share(self) -> int:
        """Bytes beyond those taken that the peer may send, as far as we decide that now."""
        return min(self.window, self.budget.share)

    @property
    def due(self) -> bool:
        """Whether the peer should be told now rather than by the timer."""
        if self.finished:
            return self.told < self.received
        share = self.budget.share  # as `share`, which would cost a call for each batch
        if share > self.window:
            share = self.window
        return self.taken + share - self.granted >= share >> 2 or self.received - self.told >= self.pace

    @property
    def pair(self) -> tuple[int, int]:
        """What `tell` would tell."""
        return self.received, max(self.granted, self.taken + self.share)

    def lull(self, now: float) -> None:
        """The timer is about to acknowledge what has come."""
        self.lulled, self._lulled_at = self.received - self.told, now

    def more(self, now: float) -> None:
        """Bytes came: was that what the sender had waited for?"""
        if self.lulled:
            self.pace = (self.lulled + 1) >> 1 if now - self._lulled_at < SOON else _NEVER
            self.lulled = 0

    def data(self, offset: int, length: int) -> int:
        """Bytes of a DATA frame at `offset`; how many of them at its start are known already.

        Raises StreamViolation for a gap, bytes beyond the limit, or bytes after the end.
        """
        end = offset + length
        if offset > self.received or end > self.granted:
            raise StreamViolation(
                f"bytes {offset} to {end}, but {self.received} are here and the limit is {self.granted}"
            )
        if self.finished:
            if end >= self.received:
                raise StreamViolation("bytes after the end")
            return length
        known = self.received - offset
        if known >= length:
            return length
        self.received = end
        return known

    def fin(self, offset: int) -> bool:
        """The end at `offset`; whether it is news. Raises StreamViolation if it is in the wrong place."""
        if offset != self.received - self.finished:
            raise StreamViolation(f"end at {offset}, but {self.received} bytes are here")
        news = not self.finished
        self.received += news
        self.finished = True
        return news

    def take(self, count: int) -> None:
        """The application took `count` bytes."""
        self.taken += count

    def tell(self) -> tuple[int, int]:
        """The pair for a CREDIT frame (or OPEN, ACCEPT ...), which counts as told. The limit never goes back."""
        if self.received - self.told >= self.pace << 2:
            self.pace = _NEVER
        _, self.granted = pair = self.pair
        self.told = self.received
        return pair
