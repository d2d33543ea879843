"""The rules by which streams share a budget, each of which can be switched off in the real core."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from connect_trio.mux.budget import FREE, Budget
from connect_trio.mux.windows import ReceiveWindow
from tests.support.mutations import Off
from tests.support.shares import WatchedBudget


def granted_is_kept() -> AbstractContextManager[Any]:
    """A receiver grants what its share is now, whatever it has granted before."""
    return mock.patch.object(ReceiveWindow, "pair", property(lambda self: (self.received, self.taken + self.share)))


def shares_shrink() -> AbstractContextManager[Any]:
    """Each stream has its whole window, however full the budget is."""
    return mock.patch.object(WatchedBudget, "share", property(lambda self: FREE, lambda self, share: None))


def windows_grow_back() -> AbstractContextManager[Any]:
    """What was halved stays halved."""
    return mock.patch.object(Budget, "free", lambda self, count: setattr(self, "used", self.used - count))


def floors_remain() -> AbstractContextManager[Any]:
    """A stream has nothing where the budget is used up."""

    def share(self: WatchedBudget) -> int:
        return 0 if self.over else self._share

    def set_share(self: WatchedBudget, share: int) -> None:
        self._share = share

    return mock.patch.object(WatchedBudget, "share", property(share, set_share))


def waiting_senders_are_answered() -> AbstractContextManager[Any]:
    """A sender that keeps little waits for the timer each time."""
    return mock.patch.object(ReceiveWindow, "more")


SHARE_RULES: dict[str, Off] = {
    rule.__name__: rule
    for rule in (granted_is_kept, shares_shrink, windows_grow_back, floors_remain, waiting_senders_are_answered)
}
