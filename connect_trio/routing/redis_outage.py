"""What the log says of Redis' outages: one line when one begins, one when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

logger = logging.getLogger(__name__)


class OutageLog:
    """Two kinds of outages, told apart: Redis is not there, and Redis is there but refuses what we ask for.

    quiet: everything at DEBUG, for a connection beside one that tells. clock: seconds.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = trio.current_time) -> None:
        self._warning, self._info = (logging.DEBUG, logging.DEBUG) if quiet else (logging.WARNING, logging.INFO)
        self._clock = clock
        self._since: float | None = None
        self._refused: dict[str, bool] = {}  # what, and whether for want of a permission
        self._refused_since = 0.0
        self._address: str | None = None

    def away(self, reason: str) -> None:
        """Redis cannot be used because of `reason`, one line that names its address."""
        if self._since is not None:
            logger.debug("Redis is still away: %s", reason)
            return
        self._since = self._clock()
        logger.log(self._warning, "Redis is away: %s", reason)

    def connected(self, address: str) -> None:
        """There is a connection, which may not last. Where it leads to is told if that is new."""
        moved, self._address = address != self._address, address
        level = self._info if moved and self._since is None else logging.DEBUG
        logger.log(level, "connected to Redis at %s", address)

    def back(self) -> None:
        """The connection lasts."""
        if self._since is not None:
            gone, self._since = self._clock() - self._since, None
            logger.log(self._info, "Redis at %s is back", self._address, extra={"away_seconds": round(gone, 1)})

    @property
    def refusing(self) -> bool:
        """Whether Redis has refused something that it was not asked for again, or refused again."""
        return bool(self._refused)

    def refused(self, what: str, reason: str, *, forbidden: bool) -> None:
        """Redis refused a kind of commands, of which there are few. what: "publish a route".

        forbidden: the user lacks a permission; otherwise it is the state that Redis is in.
        """
        if not self._refused:
            self._refused_since = self._clock()
            logger.log(self._warning, "Redis refuses to %s: %s", what, reason)
        elif what not in self._refused:
            logger.debug("Redis refuses to %s, too: %s", what, reason)
        self._refused[what] = forbidden

    def accepted(self, what: str) -> None:
        """Redis did what it may have refused before."""
        if what in self._refused:
            self._end([what])

    def writable(self) -> None:
        """Redis took a write: whatever it refused because of its state, it would take by now."""
        self._end([what for what, forbidden in self._refused.items() if not forbidden])

    def _end(self, over: Iterable[str]) -> None:
        refusing = self.refusing
        for what in over:
            del self._refused[what]
        if refusing and not self._refused:
            gone = self._clock() - self._refused_since
            logger.log(self._info, "Redis accepts commands again", extra={"refused_seconds": round(gone, 1)})
