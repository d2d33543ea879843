"""Places for the channels of one connection: so many at once, whoever opened them, and a short fair wait for one."""

from __future__ import annotations

from typing import Final

import attrs
import trio

from connect_trio.ssh.client import ChannelRefused

WAIT: Final = 2.0
"""Seconds that a channel may wait for a place: tools open many at once, most of which are soon done."""


@attrs.define
class Counts:
    """What has happened so far at this edge, and how many channels there are now: for metrics."""

    logins: int = 0
    refused: int = 0  # logins that were tried in vain
    turned_away: int = 0  # before a login: too many, too often
    channels: int = 0
    channels_refused: int = 0
    open: int = 0  # channels


class Places:
    """counts: those of the whole edge, which are kept here as far as they are of channels."""

    def __init__(self, limit: int, counts: Counts) -> None:
        self._limit = limit
        self._counts = counts
        self._waiting = 0
        self._taken = 0
        self._free = trio.Semaphore(limit, max_value=limit)
        self._abandoned = False

    async def take(self) -> None:
        """Take a place, first come, first served; give it back by `release`. Raises ChannelRefused."""
        if not await self._found():
            self._counts.channels_refused += 1
            raise ChannelRefused(
                f"too many channels on this connection (the limit is {self._limit}); close some, or connect anew",
                shortage=True,
            )
        self._taken += 1
        self._counts.open += 1
        self._counts.channels += 1

    async def _found(self) -> bool:
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            if self._waiting >= self._limit:  # who opens more than twice too many does not wait
                return False
        else:
            return True
        self._waiting += 1
        try:
            with trio.move_on_after(WAIT):
                await self._free.acquire()
                return True
        finally:
            self._waiting -= 1
        return False

    def release(self) -> None:
        if not self._abandoned:
            self._taken -= 1
            self._counts.open -= 1
            self._free.release()

    def abandon(self) -> None:
        """The connection is over, and with it all that was taken."""
        self._abandoned = True
        self._counts.open -= self._taken
