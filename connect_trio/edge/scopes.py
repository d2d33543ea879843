"""What is open, whose it is, and its end: when a session ends, a visitor's access or a login, at once.

Everything that is open of a session has a `Hold` here, whatever protocol it speaks: what is not here cannot be ended.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from types import TracebackType
from typing import Final, Self

import attrs
import trio

from connect_trio.identity.control_plane import RUNNING, STOPPED, UNKNOWN, Decision
from connect_trio.identity.grants import TUNNEL, Grant
from connect_trio.identity.watcher_keys import UsedKey

log = logging.getLogger(__name__)

PARTING: Final = 1.0
"""Seconds that a WebSocket has to be closed properly, and a tunnel, for its session's visitors to be told first."""

Farewell = Callable[[str], bool]
"""Begins the end of a stream, by a text that says why; False if that is all there is to it and it can be cut at once.
Nothing more is taken from a visitor from then on."""


class Kind(enum.Enum):
    """What a stream is, for metrics and for how it ends."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    UPGRADED = "upgraded"
    TUNNEL = "tunnel"
    SSH = "ssh"


class Cause(enum.Enum):
    """Why what was open is ended."""

    ACCESS = "access"
    LOGIN = "login"
    KEY = "key"
    SESSION = "session"
    PLANNED = "planned"


@attrs.frozen
class Ending:
    """text: for whoever is thrown out. detail: Platform's reason, if it gave one."""

    cause: Cause
    text: str
    detail: str | None = None


_NO_ACCESS: Final = "your access to this Studio has ended"
_STATES: Final = {STOPPED: "the session was stopped", UNKNOWN: "the session no longer exists"}
_PLANNED: Final = "the session has ended as planned"


class Hold:
    """One exchange, upgraded connection or tunnel of a session; a context manager around its life.

    login: its visitor's. key: the SSH key that they came in by. kind: what it is now. farewell: how to end it with
    words, while it has any. ended: why it is being ended, else None.
    """

    __slots__ = ("_scope", "_scopes", "ended", "farewell", "grant", "key", "kind", "login")

    def __init__(
        self,
        scopes: SessionScopes,
        grant: Grant,
        kind: Kind,
        scope: trio.CancelScope,
        *,
        login: Hashable | None,
        key: UsedKey | None,
    ) -> None:
        self._scopes = scopes
        self._scope = scope
        self.grant = grant
        self.kind = kind
        self.login = login
        self.key = key
        self.farewell: Farewell | None = None
        self.ended: Ending | None = None

    def __enter__(self) -> Self:
        self._scopes.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scopes.discard(self)

    def end(self, ending: Ending) -> None:
        """For good: at once, or within PARTING seconds where there is a farewell."""
        self.ended = ending
        if self.farewell is not None and self.farewell(ending.text):
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + PARTING)
        else:
            self._scope.cancel()


class SessionScopes:
    """What is open in this process.

    counts: what was ended, by kind and cause. planned: when sessions, of which something is open, are planned to end
    (Unix time).
    """

    def __init__(self) -> None:
        self._holds: dict[str, set[Hold]] = {}
        self.planned: dict[str, float] = {}
        self.counts: Counter[tuple[Kind, Cause]] = Counter()

    def enter(
        self,
        grant: Grant,
        kind: Kind,
        scope: trio.CancelScope,
        *,
        login: Hashable | None = None,
        key: UsedKey | None = None,
    ) -> Hold:
        """Use as `with scopes.enter(...) as hold:`; ending it cancels `scope` while the block is running.

        The scope belongs to the visitor's connection: a new scope per request would cost more than its parsing.
        """
        return Hold(self, grant, kind, scope, login=login, key=key)

    def add(self, hold: Hold) -> None:
        self._holds.setdefault(hold.grant.session, set()).add(hold)

    def discard(self, hold: Hold) -> None:
        session = hold.grant.session
        mine = self._holds[session]
        mine.discard(hold)
        if not mine:
            del self._holds[session]
            self.planned.pop(session, None)

    # what is open

    def live(self) -> dict[str, int]:
        """How much is open of each session; sessions without anything are left out."""
        return {session: len(holds) for session, holds in self._holds.items()}

    def kinds(self) -> Counter[Kind]:
        """How much is open of each kind."""
        return Counter(hold.kind for hold in self._all())

    def grants(self) -> set[Grant]:
        """Of visitors who have something open. Agents' tunnels end with their sessions."""
        return {hold.grant for hold in self._all() if hold.grant.method != TUNNEL}

    def logins(self) -> set[Hashable]:
        """Of whom anything is open."""
        return {hold.login for hold in self._all() if hold.login is not None}

    def keys(self) -> set[UsedKey]:
        """By which anything is open."""
        return {hold.key for hold in self._all() if hold.key is not None}

    def _all(self) -> Iterable[Hold]:
        return (hold for holds in self._holds.values() for hold in holds)

    # what is to end

    def judge(self, grant: Grant, decision: Decision) -> None:
        """The authorisation function was asked again about somebody who has something open: end what is not to be."""
        session, state = grant.session, decision.session_state
        if state == UNKNOWN:  # for this visitor; whether it is so for all is asked elsewhere
            self._end(self._of(grant), Ending(Cause.SESSION, _STATES[UNKNOWN]))
        elif state == STOPPED and decision.session is not None and decision.session.state == RUNNING:
            self.end_planned(session)
        elif state == STOPPED:
            self.end(session, _STATES[STOPPED])
        elif not decision.allowed:
            self._end(self._of(grant), Ending(Cause.ACCESS, _NO_ACCESS, decision.reason))
        elif session in self._holds:
            if decision.ends_at is None:
                self.planned.pop(session, None)
            else:
                self.planned[session] = decision.ends_at

    def _of(self, grant: Grant) -> list[Hold]:
        return [hold for hold in self._holds.get(grant.session, ()) if hold.grant == grant]

    def end(self, session: str, reason: str) -> int:
        """End everything that is open of a session; how much that was. New requests are the gate's to refuse."""
        return self._end(self._holds.get(session, ()), Ending(Cause.SESSION, reason))

    def end_planned(self, session: str) -> int:
        """As `end`, at the time that was said before."""
        return self._end(self._holds.get(session, ()), Ending(Cause.PLANNED, _PLANNED))

    def end_login(self, login: object, reason: str) -> int:
        """End everything that is open of a login; how much that was."""
        return self._end([hold for hold in self._all() if hold.login == login], Ending(Cause.LOGIN, reason))

    def end_key(self, key: UsedKey, reason: str) -> int:
        """End everything that is open by an SSH key; how much that was."""
        return self._end([hold for hold in self._all() if hold.key == key], Ending(Cause.KEY, reason))

    def _end(self, holds: Iterable[Hold], ending: Ending) -> int:
        ended = [hold for hold in holds if hold.ended is None]
        if not ended:
            return 0
        for hold in ended:
            self.counts[hold.kind, ending.cause] += 1
        subjects = sorted({hold.grant.subject for hold in ended if hold.kind is not Kind.TUNNEL})
        reason = f"{ending.text}: {ending.detail}" if ending.detail else ending.text
        about = {"session": ended[0].grant.session, "reason": reason, "visitors": len(subjects)}
        if len(subjects) == 1:
            about["subject"] = subjects[0]
        kinds = Counter(hold.kind.value for hold in ended)
        log.info("what was open is ended", extra=about | kinds)
        for hold in ended:
            hold.end(ending)
        return len(ended)
