"""What signals do to the roles of this process: a second one to stop hurries farewells, SIGHUP makes them reload.

Roles find it in their context, so that nothing between the signal and who heeds it has to pass it on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

logger = logging.getLogger(__name__)

Reload = Callable[[], str]
"""Reads something anew; what it is now, in a few words. Raises OSError and ValueError: then the old one stays."""


class Life:
    """hurried: whether nobody waits any longer for what could still be finished."""

    def __init__(self) -> None:
        self.hurried = False
        self._farewells: set[trio.CancelScope] = set()
        self._reloads: dict[str, Reload] = {}

    @contextmanager
    def farewell(self) -> Iterator[None]:
        """What runs in this block is not cancelled from outside, only when it is to hurry."""
        with trio.CancelScope(shield=True) as scope:
            self._farewells.add(scope)
            if self.hurried:
                scope.cancel()
            try:
                yield
            finally:
                self._farewells.discard(scope)

    def hurry(self) -> None:
        """Cut all farewells short."""
        self.hurried = True
        for scope in self._farewells:
            scope.cancel()

    def on_reload(self, what: str, reload: Reload) -> None:
        """Do this at SIGHUP. what: its name in the log; a later one of the same name takes its place."""
        self._reloads[what] = reload

    def reload(self) -> None:
        for what, reload in self._reloads.items():
            try:
                now = reload()
            except (OSError, ValueError) as exc:
                logger.error("not reloaded: the old one stays", extra={"what": what, "reason": str(exc)})
            else:
                logger.warning("reloaded", extra={"what": what, "now": now})


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


def this_life() -> Life:
    """The one of this process; one that no signal reaches where a role runs inside of something else."""
    return _LIFE.get() or Life()


@contextmanager
def living(life: Life) -> Iterator[None]:
    """Within the block, and in tasks started in it, `this_life` finds it."""
    token = _LIFE.set(life)
    try:
        yield
    finally:
        _LIFE.reset(token)
