"""How much stdin the sessions of an agent may keep: little each, more for those that keep none of it."""

from __future__ import annotations

BASE = 256 * 1024  # bytes that each session grants
MOST = 2 * 1024 * 1024  # bytes that a session comes to grant whose process takes all that comes
SPARE = 64 * 1024 * 1024  # bytes beyond BASE of all sessions together


class Memory:
    """spare: bytes that windows may still grow by."""

    def __init__(self, spare: int = SPARE) -> None:
        self.spare = spare

    def grow(self, window: int) -> int:
        """The next size of a window: twice as much, if there is room for that."""
        more = min(window, MOST - window)
        if more <= 0 or more > self.spare:
            return window
        self.spare -= more
        return window + more

    def give_back(self, window: int) -> None:
        """A window of this size is needed no more."""
        self.spare += window - BASE
