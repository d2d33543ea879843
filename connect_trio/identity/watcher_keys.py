"""Noticing that an SSH key was removed at Platform while somebody is logged in by it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NoReturn, TypeVar

import attrs
import trio

from connect_trio.identity.answers import KEYS_AT_MOST
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, NotOffered
from connect_trio.identity.rounds import Rounds

logger = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two rounds of questions."""
_QUESTIONS = 4  # about many keys each, that are on their way together
_PARALLEL = 8  # about one key each
_SINGLE = 600.0  # seconds that a Platform which cannot be asked about many keys at once is asked about each one
_MOST = 20_000  # in one round
_MOST_SINGLE = 256


@attrs.frozen(kw_only=True)
class UsedKey:
    """A public key by which somebody is logged in; it is the same one in all their connections.

    subject: whose it is, as Platform names them. fingerprint: as OpenSSH prints it. username, key (as it is on the
    wire, in base64) and session: as they came in, to ask about this one key alone.
    """

    subject: str
    fingerprint: str
    username: str = attrs.field(eq=False)
    key: str = attrs.field(eq=False, repr=False)
    session: str = attrs.field(eq=False)


OnRemoved = Callable[[UsedKey, str], object]
T = TypeVar("T")


class KeyWatcher:
    """Asks Platform every few seconds about the keys by which somebody is logged in here, many with one question.

    A Platform that is away ends nothing. Where there are too many keys for one round, they take turns.
    """

    def __init__(self, control_plane: ControlPlane, *, interval: float = INTERVAL) -> None:
        self._control_plane = control_plane
        self._interval = interval
        self._single_until = float("-inf")
        self._rounds: Rounds[UsedKey] = Rounds()

    async def run(self, live: Callable[[], Iterable[UsedKey]], on_removed: OnRemoved) -> NoReturn:
        """Run until cancelled. live: keys in use. on_removed(key, reason): ends what is open by one that is gone; it is
        called in each round in which such a key is in use."""
        while True:
            await self._round(live, on_removed)
            await trio.sleep(self._interval)

    @property
    def _one_by_one_now(self) -> bool:
        return trio.current_time() < self._single_until

    async def _round(self, live: Callable[[], Iterable[UsedKey]], on_removed: OnRemoved) -> None:
        if not self._one_by_one_now:
            turn = self._rounds.turn(live(), _MOST)
            batches = [turn[start : start + KEYS_AT_MOST] for start in range(0, len(turn), KEYS_AT_MOST)]
            await _each(batches, self._ask_many, on_removed, _QUESTIONS)
        if self._one_by_one_now:  # perhaps since a moment ago
            await _each(self._rounds.turn(live(), _MOST_SINGLE), self._ask_one, on_removed, _PARALLEL)

    async def _ask_many(self, keys: Sequence[UsedKey], on_removed: OnRemoved) -> None:
        wanted = {(key.subject, key.fingerprint): key for key in keys}
        try:
            removed = await self._control_plane.removed_ssh_keys(wanted)
        except NotOffered:
            self._single_until = trio.current_time() + _SINGLE
        except PlatformUnavailable as exc:
            logger.debug("no news of %d SSH keys: %s", len(keys), exc)
        else:
            for one in removed:
                _tell(wanted[one], on_removed)

    async def _ask_one(self, key: UsedKey, on_removed: OnRemoved) -> None:
        try:
            found = await self._control_plane.check_ssh_key(
                session=key.session, username=key.username, key=key.key, fingerprint=key.fingerprint
            )
        except PlatformUnavailable as exc:
            logger.debug("no news of the SSH key %s: %s", key.fingerprint, exc)
        else:  # where there is no such session, that ends it
            if found is not None and found.subject != key.subject:
                _tell(key, on_removed)


async def _each(
    things: Iterable[T], ask: Callable[[T, OnRemoved], Awaitable[None]], on_removed: OnRemoved, at_once: int
) -> None:
    limit = trio.CapacityLimiter(at_once)

    async def in_turn(thing: T) -> None:
        async with limit:
            await ask(thing, on_removed)

    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(in_turn, thing)


def _tell(key: UsedKey, on_removed: OnRemoved) -> None:
    on_removed(key, f"your key {key.fingerprint} was removed at Platform; log in with another one, or add it again")
