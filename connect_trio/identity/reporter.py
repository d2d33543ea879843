"""Telling Platform who is connected: batched, sent again until it has them, and never in anybody's way."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from connect_trio.identity.activity import Activity
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, ReportRefused

logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0  # seconds between two looks
AT_MOST: Final = 500  # visits in a report
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 120.0
_LONGEST_WISH = 3600.0  # of what Platform may ask for by Retry-After
_REFUSED_PAUSE = 600.0


@attrs.define
class Counts:
    """Since the beginning: visits in reports that Platform has, reports that were not taken the first time or later,
    and visits in reports that were given up."""

    delivered: int = 0
    failures: int = 0
    lost: int = 0


class ActivityReporter:
    """Delivers what is due of `activity`. One report is under way, and kept until Platform has it or refuses it.

    control_plane: one whose failures visitors do not feel. reporter: 32 hex digits that name this process. wall_clock:
    Unix time.
    """

    def __init__(
        self,
        activity: Activity,
        control_plane: ControlPlane,
        *,
        reporter: str,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = Counts()
        self._activity = activity
        self._control_plane = control_plane
        self._reporter = reporter
        self._wall_clock = wall_clock
        self._report: dict[str, Any] | None = None
        self._failures = 0

    @property
    def waiting(self) -> int:
        """How many visits Platform has not been told of for certain."""
        return self._activity.waiting + (len(self._report["visits"]) if self._report is not None else 0)

    async def run(self) -> None:
        """Run until cancelled; then `finish` is for what is left."""
        while True:
            pause = await self._deliver()
            await trio.sleep(pause)

    async def finish(self) -> None:
        """Tell Platform that everybody has left, as far as it listens. The caller bounds the time; may be cancelled."""
        self._activity.leave()
        try:
            while self._next(ended=True):
                await self._send()
        except (PlatformUnavailable, ReportRefused) as exc:
            logger.warning("Platform was not told who has left: %s", exc)
        finally:
            if self._report is not None:
                self.counts.lost += len(self._report["visits"]) + len(self._activity)
                self._report = None

    async def _deliver(self) -> float:
        """Send what is due; seconds until the next time."""
        try:
            while self._next():
                await self._send()
        except PlatformUnavailable as exc:
            self.counts.failures += 1
            self._failures += 1
            pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
            logger.debug("a report of activity waits: %s", exc)
            # Not all proxies at once when Platform is back.
            return max(pause * (0.5 + random.random() / 2), min(exc.retry_after or 0.0, _LONGEST_WISH))  # noqa: S311
        except ReportRefused as exc:
            assert self._report is not None, "only a report can be refused"
            self.counts.lost += len(self._report["visits"])
            self._report = None
            logger.warning("%s; it is asked again in %g s", exc, _REFUSED_PAUSE)
            return _REFUSED_PAUSE
        return INTERVAL

    def _next(self, *, ended: bool = False) -> bool:
        """Whether there is a report to send: the one that is under way, or a new one."""
        if self._report is None:
            visits = self._activity.due(AT_MOST, wall=self._wall_clock(), ended=ended)
            if visits:
                # The same name whenever it is sent, so that Platform knows it again.
                self._report = {"id": secrets.token_hex(16), "reporter": self._reporter, "visits": visits}
        return self._report is not None

    async def _send(self) -> None:
        assert self._report is not None, "there is a report to send"
        await self._control_plane.report(self._report)
        self.counts.delivered += len(self._report["visits"])
        self._report = None
        self._failures = 0
