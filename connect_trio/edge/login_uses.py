"""Which logins are in use here: noted with each request, which must cost nothing, and carried to the Store later."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection

import attrs

from connect_trio.edge.login_ends import Visit

_SIZE = 16384
_STUDIOS = 64  # of one login, between two renewals


@attrs.define
class Use:
    """A login in use. seen, renewed: when it was last used, and when the Store last heard of that (monotonic).

    studios: digests of the Studio sessions that were used since. ask_at: when its tokens are to be looked at.
    """

    visit: Visit
    seen: float
    renewed: float
    studios: set[str]
    ask_at: float


class Uses:
    """Bounded: where there are too many, the one that was not used for longest is forgotten. clock: monotonic."""

    def __init__(self, *, clock: Callable[[], float], size: int = _SIZE) -> None:
        self._clock = clock
        self._size = size
        self._uses: OrderedDict[str, Use] = OrderedDict()

    def touch(self, visit: Visit, studio: str | None = None) -> None:
        """It is used now. studio: by which Studio session (its digest)."""
        now = self._clock()
        use = self._uses.get(visit.key)
        if use is None:
            # Known since just now: its records were made, or prolonged elsewhere, some time ago.
            use = self._uses[visit.key] = Use(visit, now, -math.inf, set(), now)
            if len(self._uses) > self._size:
                self._uses.popitem(last=False)
        else:
            self._uses.move_to_end(visit.key)
        use.seen = now
        if studio is not None and len(use.studios) < _STUDIOS:
            use.studios.add(studio)

    def forget(self, key: str) -> None:
        self._uses.pop(key, None)

    def to_renew(self, interval: float) -> list[Use]:
        """Those that were used since the Store last heard of it, if that is so long ago."""
        now = self._clock()
        return [use for use in self._uses.values() if use.seen > use.renewed and now - use.renewed >= interval]

    def renewed(self, use: Use, studios: Collection[str]) -> None:
        """The Store has heard of these uses."""
        use.renewed = self._clock()
        use.studios.difference_update(studios)

    def to_ask(self) -> list[Use]:
        """Those whose tokens are to be looked at now."""
        now = self._clock()
        return [use for use in self._uses.values() if use.ask_at <= now]

    def age(self, seconds: float) -> None:
        """Forget those that were not used for so long; the Store knows of them."""
        since = self._clock() - seconds
        while self._uses and (use := next(iter(self._uses.values()))).seen < min(since, use.renewed):
            self._uses.popitem(last=False)
