"""Whose turn it is where not all can be asked about at once. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Rounds(Generic[K]):
    """Rounds of questions about what is live: whatever was asked about longest ago comes first."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._last: dict[K, int] = {}  # the round in which each that is live was asked about

    def turn(self, live: Iterable[K], most: int) -> list[K]:
        """Those of the next round, `most` of them at most."""
        number = next(self._numbers)
        self._last = {one: self._last.get(one, 0) for one in live}
        turn = sorted(self._last, key=self._last.__getitem__)[:most]
        self._last.update(dict.fromkeys(turn, number))
        return turn
