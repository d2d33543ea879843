"""Who is connected to which session, and was active when: kept here until Platform has been told.

Pure: the clock is given. What is kept is the present state of each visitor at each session, not a list of events, so
that it is bounded by how many there are, however long Platform is away; what happened to a visitor meanwhile is merged.
Nothing here takes longer where there are more visitors: each is looked at when its time has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import attrs

LINGER: Final = (
    30.0  # seconds without anything open after which a visitor has left: pages are read between two requests
)
ACTIVE_EVERY: Final = 30.0  # seconds between two reports of when a visitor was active
STILL_THERE: Final = 120.0  # seconds after which Platform hears of a visitor again, active or not
MOST: Final = 16_384  # visitors that are kept


@attrs.define
class Counts:
    """Since the beginning. untold: visits of which Platform has not heard the end, since there were too many, or it
    refused to hear of them. merged: visits that began before the end of the one before could be told."""

    untold: int = 0
    merged: int = 0


class Presence:
    """One visitor at one session; a context manager around each thing that they have open there, which may nest.

    open: how many these are. since, active, left: when they came, when their bytes passed last, and since when nothing
    is open, in seconds of the clock.
    """

    __slots__ = (
        "_activity",
        "active",
        "left",
        "looked_at",
        "open",
        "session",
        "since",
        "subject",
        "told_active",
        "told_at",
    )

    def __init__(self, activity: Activity, session: str, subject: str, now: float) -> None:
        self._activity = activity
        self.session = session
        self.subject = subject
        self.open = 0
        self.since = self.active = now
        self.left: float | None = None
        self.told_at = self.told_active = self.looked_at = float("-inf")

    def __enter__(self) -> Self:
        self.open += 1
        if self.open == 1:
            self._activity.came(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.open -= 1
        if self.open == 0:
            self._activity.went(self)

    def touch(self, now: float) -> None:
        """Bytes of theirs have passed."""
        if self.open:
            self.active = now


class Activity:
    """clock: seconds that only go forward. most: how many visitors are kept; of more, the one that has left longest ago
    is forgotten, or the new one is not counted if all are there."""

    def __init__(self, clock: Callable[[], float], *, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self.counts = Counts()
        self._present: dict[tuple[str, str], Presence] = {}
        # Each in the order in which their time comes.
        self._new: dict[Presence, None] = {}
        self._told: dict[Presence, None] = {}
        self._gone: dict[Presence, None] = {}

    def __len__(self) -> int:
        """How many visitors are kept."""
        return len(self._present)

    @property
    def waiting(self) -> int:
        """How many of them Platform has not heard of yet."""
        return len(self._new)

    def visit(self, session: str, subject: str) -> Presence:
        """For `with`, around what this visitor has open."""
        presence = self._present.get((session, subject))
        return presence if presence is not None else Presence(self, session, subject, self._clock())

    def came(self, presence: Presence) -> None:
        now = self._clock()
        if presence.left is not None:
            self.counts.merged += now - presence.left >= LINGER and presence in self._gone
            presence.left = None
        presence.active = now
        self._gone.pop(presence, None)
        key = presence.session, presence.subject
        if key in self._present or not self._make_room():
            return
        self._present[key] = presence
        self._new[presence] = None

    def went(self, presence: Presence) -> None:
        presence.active = presence.left = self._clock()
        if self._present.get((presence.session, presence.subject)) is presence:
            self._gone[presence] = None

    def leave(self) -> None:
        """Everybody has left: the process ends."""
        now = self._clock()
        for presence in self._present.values():
            if presence.left is None:
                presence.left = now
                self._gone[presence] = None

    def due(self, limit: int, *, wall: float, ended: bool = False) -> list[dict[str, Any]]:
        """Visits that Platform is to be told of now, at most `limit`, as the contract has them. They count as told.

        wall: Unix time. ended: whoever has left does not come back.
        """
        now = self._clock()
        behind = wall - now
        found: list[dict[str, Any]] = []
        for presence in self._due(now, ended=ended):
            over = presence.left is not None and (ended or now - presence.left >= LINGER)
            found.append(
                {
                    "session": presence.session,
                    "subject": presence.subject,
                    "connected_at": round(presence.since + behind, 3),
                    "last_active": round(presence.active + behind, 3),
                    "disconnected_at": round(presence.left + behind, 3) if over and presence.left is not None else None,
                }
            )
            presence.told_at, presence.told_active = now, presence.active
            self._queue(presence, now, over=over)
            if len(found) >= limit:
                break
        return found

    def _due(self, now: float, *, ended: bool) -> Iterator[Presence]:
        """Each must be queued anew before the next one is taken."""
        while (first := next(iter(self._gone), None)) is not None:
            assert first.left is not None, "whoever is gone has left"
            if not ended and now - first.left < LINGER:
                break
            yield first
        while (first := next(iter(self._new), None)) is not None:
            yield first
        while (first := next(iter(self._told), None)) is not None and now - first.looked_at >= ACTIVE_EVERY:
            if (first.open and first.active > first.told_active) or now - first.told_at >= STILL_THERE:
                yield first
            else:
                self._queue(first, now, over=False)

    def _queue(self, presence: Presence, now: float, *, over: bool) -> None:
        self._new.pop(presence, None)
        self._told.pop(presence, None)
        if over:
            self._forget(presence)
        else:
            presence.looked_at = now
            self._told[presence] = None

    def _make_room(self) -> bool:
        if len(self._present) < self._most:
            return True
        self.counts.untold += 1
        oldest = next(iter(self._gone), None)
        if oldest is None:
            return False
        self._forget(oldest)
        return True

    def _forget(self, presence: Presence) -> None:
        for queue in (self._new, self._told, self._gone):
            queue.pop(presence, None)
        del self._present[presence.session, presence.subject]
