"""Who is connected to which session, and the end of it: revoked, or stopped at Platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn, Protocol

import attrs
import trio

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import STOPPED, UNKNOWN
from connect_trio.ssh.login import METHOD, Authorize

INTERVAL: Final = 2.0  # seconds between two looks whether those who are here still may be
REVOKED: Final = "your access to this Studio has ended"
_ENDED: Final = {STOPPED: "the Studio was stopped", UNKNOWN: "the Studio no longer exists"}
_AT_ONCE = 16


class Hooks(Protocol):
    """Who is told of connections; one call each, neither may raise."""

    def connected(self, subject: str, session: str) -> None: ...

    def disconnected(self, subject: str, session: str) -> None: ...


@attrs.define(eq=False)
class Hold:
    """One connection that is logged in."""

    subject: str
    session: str
    close: Callable[[str], None]


class SshScopes:
    """Connections of this process that are logged in."""

    def __init__(self, hooks: Hooks | None = None) -> None:
        self._holds: dict[Hold, None] = {}
        self.hooks = hooks

    def __len__(self) -> int:
        return len(self._holds)

    @contextmanager
    def enter(self, subject: str, session: str, close: Callable[[str], None]) -> Iterator[None]:
        """The block is the life of a connection. close: called with a reason for the user when it is to end."""
        hold = Hold(subject, session, close)
        self._holds[hold] = None
        if self.hooks is not None:
            self.hooks.connected(subject, session)
        try:
            yield
        finally:
            del self._holds[hold]
            if self.hooks is not None:
                self.hooks.disconnected(subject, session)

    def end(self, session: str, reason: str) -> int:
        """End the connections to a session; how many that were."""
        return self._end(reason, lambda hold: hold.session == session)

    def end_subject(self, subject: str, session: str, reason: str) -> int:
        """End the connections of one subject to a session; how many that were."""
        return self._end(reason, lambda hold: (hold.subject, hold.session) == (subject, session))

    def end_all(self, reason: str) -> int:
        return self._end(reason, lambda _: True)

    def live(self) -> dict[str, int]:
        """How many connections each session has; sessions without any are left out."""
        counts: dict[str, int] = {}
        for hold in self._holds:
            counts[hold.session] = counts.get(hold.session, 0) + 1
        return counts

    def subjects(self) -> dict[tuple[str, str], int]:
        """How many connections there are, by subject and session."""
        counts: dict[tuple[str, str], int] = {}
        for hold in self._holds:
            counts[hold.subject, hold.session] = counts.get((hold.subject, hold.session), 0) + 1
        return counts

    def _end(self, reason: str, wanted: Callable[[Hold], bool]) -> int:
        ended = [hold for hold in self._holds if wanted(hold)]
        for hold in ended:
            hold.close(reason)
        return len(ended)


async def watch_access(scopes: SshScopes, authorize: Authorize) -> NoReturn:
    """Show out whose access, or whose session, ends while they are here. A Platform that is away shows out nobody."""
    limit = trio.CapacityLimiter(_AT_ONCE)

    async def look(subject: str, session: str) -> None:
        async with limit:
            try:
                decision = await authorize(subject, session, METHOD)
            except PlatformUnavailable:
                return
        if not decision.open:
            scopes.end_subject(subject, session, _ENDED.get(decision.session_state) or decision.reason or REVOKED)

    while True:
        await trio.sleep(INTERVAL)
        async with trio.open_nursery() as nursery:
            for subject, session in scopes.subjects():
                nursery.start_soon(look, subject, session)
