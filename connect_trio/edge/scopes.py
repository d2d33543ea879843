"""The end of a session, or of a login, ends what visitors have open: live exchanges and upgraded connections."""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Self

import trio


class Hold:
    """One exchange or upgraded connection of a session; a context manager around its life.

    login: its visitor's. ended: why the session was ended meanwhile, else None. logged_out: why the login was.
    """

    __slots__ = ("_holds", "_scope", "ended", "logged_out", "login", "session")

    def __init__(
        self, holds: dict[str, set[Hold]], session: str, scope: trio.CancelScope, login: Hashable | None
    ) -> None:
        self._holds = holds
        self._scope = scope
        self.session = session
        self.login = login
        self.ended: str | None = None
        self.logged_out: str | None = None

    def __enter__(self) -> Self:
        self._holds.setdefault(self.session, set()).add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mine = self._holds[self.session]
        mine.discard(self)
        if not mine:
            del self._holds[self.session]

    def end(self, reason: str) -> None:
        self.ended = reason
        self._scope.cancel()

    def log_out(self, reason: str) -> None:
        self.logged_out = reason
        self._scope.cancel()


class SessionScopes:
    """What is open for which session, in this process."""

    def __init__(self) -> None:
        self._holds: dict[str, set[Hold]] = {}

    def enter(self, session: str, scope: trio.CancelScope, *, login: Hashable | None = None) -> Hold:
        """Use as `with scopes.enter(session, scope) as hold:`; `end` cancels `scope` while the block is running.

        The scope belongs to the visitor's connection: a new scope per request would cost more than its parsing.
        """
        return Hold(self._holds, session, scope, login)

    def end(self, session: str, reason: str) -> int:
        """Cancel everything that is open for a session; how much that was. New requests are the gate's to refuse."""
        ended = list(self._holds.get(session, ()))
        for hold in ended:
            hold.end(reason)
        return len(ended)

    def logins(self) -> set[Hashable]:
        """Of whom anything is open."""
        return {hold.login for holds in self._holds.values() for hold in holds if hold.login is not None}

    def end_login(self, login: object, reason: str) -> int:
        """Cancel everything that is open of a login; how much that was."""
        ended = [hold for holds in self._holds.values() for hold in holds if hold.login == login]
        for hold in ended:
            hold.log_out(reason)
        return len(ended)

    def live(self) -> dict[str, int]:
        """How many exchanges and upgraded connections each session has; sessions without any are left out."""
        return {session: len(holds) for session, holds in self._holds.items()}
