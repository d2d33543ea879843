"""What the log says of Redis' outages: one line when one begins, one when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable

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
        self._refused: set[str] = set()
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

    def refused(self, what: str, reason: str) -> None:
        """Redis refused a kind of commands, of which there are few. what: "publish a route"."""
        if not self._refused:
            self._refused_since = self._clock()
            logger.log(self._warning, "Redis refuses to %s: %s", what, reason)
        elif what not in self._refused:
            logger.debug("Redis refuses to %s, too: %s", what, reason)
        self._refused.add(what)

    def accepted(self, what: str) -> None:
        """Redis did what it may have refused before."""
        if what in self._refused:
            self._refused.discard(what)
            if not self._refused:
                gone = self._clock() - self._refused_since
                logger.log(self._info, "Redis accepts commands again", extra={"refused_seconds": round(gone, 1)})
