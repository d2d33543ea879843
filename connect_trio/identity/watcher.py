"""Noticing that a session has ended at Platform while its streams live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

import trio

from connect_trio.identity.answers import STATES_AT_MOST
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import STOPPED, UNKNOWN, ControlPlane, NotOffered
from connect_trio.identity.rounds import Rounds

logger = logging.getLogger(__name__)

_PARALLEL = 8
_SINGLE = 600.0  # seconds that a Platform which cannot be asked about many sessions at once is asked about each one
_MOST = 10_000  # in one round; thousands of agents may have their tunnels here
_MOST_SINGLE = 256


class SessionWatcher:
    """Asks Platform every few seconds about the sessions that are live here, many with one question.

    interval: seconds between two rounds. A Platform that is away ends nothing. Where there are too many sessions for
    one round, they take turns.
    """

    def __init__(self, control_plane: ControlPlane, *, interval: float = 2.0) -> None:
        self._control_plane = control_plane
        self._interval = interval
        self._single_until = float("-inf")
        self._rounds: Rounds[str] = Rounds()

    async def run(self, live: Callable[[], Iterable[str]], on_end: Callable[[str, str], object]) -> None:
        """Run until cancelled. live: ids of sessions. on_end(session, reason): ends what is open of one that has ended.

        It is called in each round in which such a session is live: whoever came back at once may have been let in by
        a cached answer.
        """
        while True:
            states = await self._round(self._rounds.turn(live(), _MOST_SINGLE if self._one_by_one_now else _MOST))
            for session, state in states.items():
                if state in (STOPPED, UNKNOWN):
                    on_end(session, "the session was stopped" if state == STOPPED else "the session no longer exists")
            await trio.sleep(self._interval)

    @property
    def _one_by_one_now(self) -> bool:
        return trio.current_time() < self._single_until

    async def _round(self, sessions: Iterable[str]) -> dict[str, str]:
        """States of those sessions about which Platform answered."""
        if self._one_by_one_now:
            return await self._one_by_one(sessions)
        states: dict[str, str] = {}
        wanted = sorted(sessions)
        try:
            for start in range(0, len(wanted), STATES_AT_MOST):
                answers = await self._control_plane.states(wanted[start : start + STATES_AT_MOST])
                states.update({session: answer.state for session, answer in answers.items()})
        except NotOffered:
            self._single_until = trio.current_time() + _SINGLE
            return await self._one_by_one(wanted[:_MOST_SINGLE])
        except PlatformUnavailable as exc:
            logger.debug("no news of %d sessions: %s", len(wanted) - len(states), exc)
        return states

    async def _one_by_one(self, sessions: Iterable[str]) -> dict[str, str]:
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
