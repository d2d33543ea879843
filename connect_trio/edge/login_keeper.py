"""What is done for logins besides requests: prolonging those in use, asking Platform about them, ending streams."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, NoReturn

import attrs
import trio

from connect_trio.edge.login_ends import Logins
from connect_trio.edge.login_records import LoginRecords
from connect_trio.edge.login_uses import Use, Uses
from connect_trio.edge.login_visits import StudioVisit, Visits
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.refresh import LoginEnded, Refresher, Tokens
from connect_trio.routing.registry import RegistryUnavailable, Store

logger = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two looks for logins that are over while something is open of them."""
RENEWAL: Final = 300.0
"""Seconds between two renewals of a login in use, at most a fourth of the time that it may be unused."""
_BATCH: Final = 256
_AT_ONCE: Final = 4
_REFRESH: Final = 40.0  # seconds that a refresh may take in all
_CLAIM: Final = 60.0  # longer, so that no two are under way
_AGAIN: Final = 30.0
_SAVING: Final = 20.0  # seconds that new tokens are tried to be kept: the ones before are spent
_SAVING_CANCELLED: Final = 2.0
_REASON: Final = "your login has ended"


class LoginKeeper:
    """Three tasks of a proxy. Nothing here is waited for by a request; a Store or a Platform that is away ends nothing.

    idle: seconds that a login may be unused. clock: monotonic; wall_clock: Unix time.
    """

    def __init__(
        self,
        *,
        store: Store,
        records: LoginRecords,
        logins: Logins,
        uses: Uses,
        visits: Visits,
        refresher: Refresher,
        idle: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._records = records
        self._logins = logins
        self._uses = uses
        self._visits = visits
        self._refresher = refresher
        self._renewal = min(RENEWAL, idle / 4)
        self._clock = clock
        self._now = wall_clock

    async def run(self, live: Callable[[], Iterable[object]], on_end: Callable[[object, str], object]) -> NoReturn:
        """Run until cancelled. live: the logins (`Admission.login`) of what is open here. on_end(login, reason): ends
        what is open of one that is over."""
        async with trio.open_nursery() as nursery:
            for task in (self.renew_due, self.refresh_due):
                nursery.start_soon(self._again_and_again, task)
            await self._again_and_again(partial(self.look, live, on_end))
        raise AssertionError("these tasks run until they are cancelled")

    async def _again_and_again(self, task: Callable[[], Awaitable[None]]) -> NoReturn:
        while True:
            try:
                await task()
            except RegistryUnavailable as exc:
                logger.debug("logins cannot be looked after now: %s", exc)
            await trio.sleep(min(INTERVAL, self._renewal))

    async def look(self, live: Callable[[], Iterable[object]], on_end: Callable[[object, str], object]) -> None:
        """One round: end what is open of logins that are over; the others are in use. Raises RegistryUnavailable."""
        visits = [studio for studio in live() if isinstance(studio, StudioVisit)]
        for at in range(0, len(visits), _BATCH):
            batch = visits[at : at + _BATCH]
            ended = set(await self._logins.ended([studio.visit for studio in batch]))
            for studio in batch:
                if studio.visit not in ended:
                    self._uses.touch(studio.visit, studio.key)
                    continue
                subject = studio.session.subject
                logger.info("a login has ended, and with it what was open", extra={"subject": subject})
                self._uses.forget(studio.visit.key)
                self._visits.forget(studio.key)  # who comes back at once is not let in by what was known before
                on_end(studio, _REASON)

    async def renew_due(self) -> None:
        """Tell the Store of uses that it has not heard of for a while. Raises RegistryUnavailable."""
        for use in self._uses.to_renew(self._renewal):
            studios = tuple(use.studios)
            await self._logins.prolong(use.visit, studios, unused=self._clock() - use.seen)
            self._uses.renewed(use, studios)
        self._uses.age(self._renewal)

    async def refresh_due(self) -> None:
        """Refresh what is due, a few at a time."""
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def refresh(use: Use) -> None:
            async with limit:
                use.ask_at = self._clock() + _AGAIN  # whatever goes wrong
                try:
                    with trio.move_on_after(_REFRESH):
                        await self._refresh(use)
                except RegistryUnavailable as exc:
                    logger.debug("a login cannot be refreshed now: %s", exc)

        due = self._uses.to_ask()
        for at in range(0, len(due), _BATCH):
            async with trio.open_nursery() as nursery:
                for use in due[at : at + _BATCH]:
                    nursery.start_soon(refresh, use)

    async def _refresh(self, use: Use) -> None:
        """Raises RegistryUnavailable."""
        key = use.visit.key
        if not self._is_due(use, await self._records.get(Tokens, key)):
            return
        claim = f"login:refreshing:{key}"
        if not await self._store.claim(claim, secrets.token_bytes(16), ttl=_CLAIM):
            return  # another proxy is at it
        # What was read before the claim may be what another proxy has refreshed meanwhile.
        tokens = await self._records.get(Tokens, key)
        if tokens is not None and self._is_due(use, tokens):
            if await self._logins.get(key) is None:
                self._uses.forget(key)
            else:
                await self._ask(use, tokens)
        await self._store.delete(claim)

    def _is_due(self, use: Use, tokens: Tokens | None) -> bool:
        if tokens is None or tokens.refresh_token is None:
            use.ask_at = math.inf
            return False
        use.ask_at = self._clock() + max(tokens.due - self._now(), 0)
        return tokens.due <= self._now()

    async def _ask(self, use: Use, tokens: Tokens) -> None:
        """With the claim held. Raises RegistryUnavailable."""
        key = use.visit.key
        use.ask_at = self._clock() + _AGAIN
        # Before anything is sent: if we die now, whoever comes next must know that the token may be spent.
        if not await self._records.replace(key, attrs.evolve(tokens, unsure=True)):
            return
        try:
            renewed = await self._refresher.refresh(tokens, subject=use.visit.login.subject)
        except PlatformUnavailable as exc:
            logger.info("a login is not refreshed now: %s", exc)
            if not exc.sent:
                await self._save(key, tokens)
        except LoginEnded as exc:
            logger.info("a login ends: %s", exc, extra={"subject": use.visit.login.subject})
            self._uses.forget(key)
            await self._logins.end(key)
        else:
            self._is_due(use, renewed)
            await self._save(key, renewed)

    async def _save(self, key: str, tokens: Tokens) -> None:
        """Keep what cannot be had again, also where this process is about to stop. Raises RegistryUnavailable."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _SAVING_CANCELLED):
            try:
                await self._records.replace(key, tokens)
            except RegistryUnavailable as exc:
                logger.debug("new tokens cannot be kept yet: %s", exc)
            else:
                return
        with trio.move_on_after(_SAVING):
            while True:
                await trio.sleep(1)
                try:
                    await self._records.replace(key, tokens)
                except RegistryUnavailable as exc:
                    logger.debug("new tokens cannot be kept yet: %s", exc)
                else:
                    return
        raise RegistryUnavailable("new tokens could not be kept")
