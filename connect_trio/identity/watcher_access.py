"""Asking the authorisation function again about everybody who has something open, for as long as it is open."""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NoReturn

import trio

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import FRESH, Authorizer, Decision
from connect_trio.identity.grants import Grant

logger = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between two looks at what is open; a decision is asked for again when it is FRESH seconds old."""
AT_ONCE: Final = 16
"""Questions that are on their way together: half of the connections to Platform, the others are for requests."""

Judge = Callable[[Grant, Decision], object]


class AccessWatcher:
    """However much a visitor has open of a session, it costs one question in FRESH seconds, and none if a request has
    just asked: decisions are shared with the requests' (`Authorizer`). Oldest first; where Platform is too slow for
    all of them, all take longer, and nothing piles up. An answer that Platform does not give ends nothing.
    """

    def __init__(self, authorizer: Authorizer, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._authorizer = authorizer
        self._clock = clock
        self._began: dict[Grant, float] = {}  # when each was asked about last, and is live
        self._asking: set[Grant] = set()
        self._due: deque[Grant] = deque()
        self.oldest = 0.0
        """Seconds since Platform last said yes to the one of whom that is longest ago."""

    async def run(self, live: Callable[[], Collection[Grant]], judge: Judge) -> NoReturn:
        """Run until cancelled. live: of visitors who have something open here. judge: hears each decision about them,
        again and again, and ends what is not to be."""
        async with trio.open_nursery() as nursery:
            while True:
                self._look(live(), judge)
                for _ in range(min(len(self._due), AT_ONCE - len(self._asking))):
                    nursery.start_soon(self._ask, self._due.popleft(), judge)
                # Proxies that were started together are not to ask together.
                await trio.sleep(LOOK * (0.75 + random.random() / 2))  # noqa: S311
        raise AssertionError("a watcher runs until it is cancelled")

    def _look(self, live: Collection[Grant], judge: Judge) -> None:
        """Judge by what is known, and note who is to be asked about."""
        now, since = self._clock(), -math.inf
        ages = [0.0]
        due: list[tuple[float, int, Grant]] = []
        self._began = {grant: self._began.get(grant, since) for grant in live}
        for grant, began in self._began.items():
            who = grant.subject, grant.session, grant.method
            ages.append(self._authorizer.age(*who) or 0.0)
            decision = self._authorizer.known(*who)
            if decision is not None:
                judge(grant, decision)
            elif grant not in self._asking and now >= began + FRESH:
                due.append((began, len(due), grant))
        self.oldest = max(ages)
        self._due = deque(grant for _, _, grant in sorted(due))

    async def _ask(self, grant: Grant | None, judge: Judge) -> None:
        """About this one, and about others that are due after it."""
        while grant is not None:
            self._asking.add(grant)
            self._began[grant] = self._clock()
            try:
                decision = await self._authorizer.check(grant.subject, grant.session, grant.method)
            except PlatformUnavailable as exc:
                logger.debug("no news of %s in session %s: %s", grant.subject, grant.session, exc)
            else:
                judge(grant, decision)
            finally:
                self._asking.discard(grant)
            grant = self._due.popleft() if self._due else None
