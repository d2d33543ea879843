"""Sessions that are planned to end: said before, and done in time, also if Platform cannot be asked then.

What can be told to visitors without breaking tools: a header in answers (Sunset, RFC 8594), a page of Connect's own
(`/_connect/session`), and the reason that WebSockets are closed with. Nothing of ours can be put into a tool's page or
conversation, so a visitor who looks at neither is not warned.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, NoReturn

import trio

from connect_trio.edge.scopes import SessionScopes

log = logging.getLogger(__name__)

NOTICE: Final = 15 * 60.0
"""Seconds before its end from which on a session's visitors are told of it."""
_LOOK: Final = 0.5


def sunset(ends_at: float | None, now: float) -> bytes:
    """The header line that tells when the session ends, if that is soon; else nothing."""
    if ends_at is None or ends_at - now > NOTICE:
        return b""
    return b"Sunset: %b\r\n" % formatdate(ends_at, usegmt=True).encode("ascii")


class PlannedEnds:
    """Looks after `scopes.planned`. wall_clock: Unix time. soon: how many sessions with visitors end soon."""

    def __init__(self, scopes: SessionScopes, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._scopes = scopes
        self._now = wall_clock
        self._told: dict[str, float] = {}
        self.soon = 0

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        while True:
            self._look()
            await trio.sleep(_LOOK)

    def _look(self) -> None:
        now, planned = self._now(), self._scopes.planned
        soon = {session: ends_at for session, ends_at in planned.items() if ends_at - now <= NOTICE}
        for session, ends_at in soon.items():
            if now >= ends_at:
                self._scopes.end_planned(session)
            elif self._told.get(session) != ends_at:
                seconds = round(ends_at - now)
                log.warning("a session with visitors will end soon", extra={"session": session, "seconds": seconds})
        self._told = soon
        self.soon = len(soon)
