"""A budget that remembers which shares it gave, and what streams must then not have done."""

from __future__ import annotations

from connect_trio.mux.budget import FREE, Budget
from tests.support.apps import App
from tests.support.tiny import FLOOR, UNIT

SHARES = (FREE, 4 * UNIT, 2 * UNIT, UNIT, UNIT // 2, UNIT // 4, FLOOR)
MODEST = 50 * UNIT  # a budget for the floors of all streams, and not for their windows


class WatchedBudget(Budget):
    """most_share: the largest since `forget` was called."""

    most_share = 0
    _share = 0

    @property
    def share(self) -> int:
        return self._share

    @share.setter
    def share(self, share: int) -> None:
        self._share = share
        self.most_share = max(self.most_share, share)

    def forget(self) -> None:
        self.most_share = self._share


def check_shares(app: App) -> None:
    """Since it was last looked at, the stream was granted, and has kept, no more than the largest share there was."""
    budget, sent, incoming = app.core.endpoint.budget, app.core.send.window, app.core.receive.window
    assert isinstance(budget, WatchedBudget)
    end, granted = app.seen or (0, incoming.granted)
    assert budget.share >= FLOOR
    assert granted <= incoming.granted, "what was granted was taken back"
    if incoming.granted > granted:
        assert incoming.granted <= incoming.taken + budget.most_share, "more is granted than the share"
    if sent.end > end:
        assert sent.end <= sent.base + budget.most_share, "more is kept than the share"
    app.seen = sent.end, incoming.granted
