"""Whether Studios are below paths of Connect's own host: as it is set, or as Platform says, now and later."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from connect_trio.identity.client import PlatformUnavailable

logger = logging.getLogger(__name__)

AUTO: Final = "auto"
ON: Final = "on"
OFF: Final = "off"

INTERVAL: Final = 60.0  # seconds between two questions
_AGAIN: Final = 5.0  # after one that was not answered
_AT_START: Final = 3.0  # seconds that a proxy waits for the first answer before it listens

Ask = Callable[[], Awaitable[bool | None]]
"""Asks Platform; None where Platform does not say. Raises PlatformUnavailable."""


class PathRouting:
    """A switch: called, it says whether paths are on. setting: "auto", "on" or "off".

    With "auto" they are off until Platform has said something, and stay as they are while it is away.
    """

    def __init__(self, setting: str, ask: Ask) -> None:
        self._auto = setting == AUTO
        self._on = setting == ON
        self._ask = ask

    def __call__(self) -> bool:
        return self._on

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow Platform until cancelled; started with its first answer, or when that takes too long."""
        if not self._auto:
            task_status.started()
            return
        answered = False
        with trio.move_on_after(_AT_START):
            answered = await self._look()
        task_status.started()
        while True:
            await trio.sleep(INTERVAL if answered else _AGAIN)
            answered = await self._look()

    async def _look(self) -> bool:
        """Ask once; whether there was an answer."""
        try:
            on = bool(await self._ask())
        except PlatformUnavailable as exc:
            logger.debug("Platform does not say whether Studios are below paths: %s", exc)
            return False
        if on != self._on:
            self._on = on
            logger.info("Studios are below paths now, too" if on else "Studios are not below paths any more")
        return True
