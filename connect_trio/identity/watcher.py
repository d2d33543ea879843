"""Noticing that a session has ended at Platform while its streams live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count

import trio

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import STOPPED, UNKNOWN, ControlPlane

logger = logging.getLogger(__name__)

_PARALLEL = 8
_MOST = 256  # in one round; thousands of agents may have their tunnels here


class SessionWatcher:
    """Asks Platform every few seconds about the sessions that are live here.

    interval: seconds between two rounds. A Platform that is away ends nothing. Where there are too many sessions for
    one round, they take turns.
    """

    def __init__(self, control_plane: ControlPlane, *, interval: float = 2.0) -> None:
        self._control_plane = control_plane
        self._interval = interval
        self._rounds: dict[str, int] = {}  # the one in which each that is live was asked about

    async def run(self, live: Callable[[], Iterable[str]], on_end: Callable[[str, str], object]) -> None:
        """Run until cancelled. live: ids of sessions. on_end(session, reason): ends what is open of one that has ended.

        It is called in each round in which such a session is live: whoever came back at once may have been let in by
        a cached answer.
        """
        for number in count(1):
            self._rounds = {session: self._rounds.get(session, 0) for session in live()}
            turn = sorted(self._rounds, key=self._rounds.__getitem__)[:_MOST]
            self._rounds.update(dict.fromkeys(turn, number))
            states = await self._round(turn)
            for session, state in states.items():
                if state in (STOPPED, UNKNOWN):
                    on_end(session, "the session was stopped" if state == STOPPED else "the session no longer exists")
            await trio.sleep(self._interval)

    async def _round(self, sessions: Iterable[str]) -> dict[str, str]:
        """States of those sessions about which Platform answered."""
        states: dict[str, str] = {}
        limit = trio.CapacityLimiter(_PARALLEL)

        async def ask(session: str) -> None:
            async with limit:
                try:
                    info = await self._control_plane.session(session)
                except PlatformUnavailable as exc:
                    logger.debug("no news of session %s: %s", session, exc)
                else:
                    states[session] = info.state if info is not None else UNKNOWN

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(partial(ask, session))
        return states
