"""Noticing that a login has ended, at any proxy or host, while something is open of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Final, NoReturn

import trio

from connect_trio.edge.login_records import Login, LoginRecords
from connect_trio.routing.registry import RegistryUnavailable

logger = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two looks."""
AT_ONCE: Final = 16
_ENDED: Final = "your login has ended"


class LoginWatcher:
    """However much is open of a login, it costs one look into the Store. A Store that is away ends nothing."""

    def __init__(self, records: LoginRecords) -> None:
        self._records = records

    async def run(self, live: Callable[[], Iterable[Hashable]], on_end: Callable[[Hashable, str], object]) -> NoReturn:
        """Run until cancelled. live: the logins (`Admission.login`) of what is open here. on_end(login, reason): ends
        what is open of one that has ended."""
        while True:
            logins = iter(list(live()))
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(self._look, logins, on_end)
            await trio.sleep(INTERVAL)

    async def _look(self, logins: Iterable[Hashable], on_end: Callable[[Hashable, str], object]) -> None:
        """Workers share the iterator."""
        for login in logins:
            try:
                if isinstance(login, str) and await self._records.get(Login, login) is None:
                    on_end(login, _ENDED)
            except RegistryUnavailable as exc:
                logger.debug("a login cannot be looked up now: %s", exc)
                return
