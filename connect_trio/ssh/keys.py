"""Whose keys are whose: what the edge asks about a user, a key and a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from connect_trio.ssh.client import Key


@attrs.frozen
class Allowed:
    """It is this user's key. subject: the user's `sub` at Platform."""

    subject: str


@attrs.frozen
class Refused:
    """It is not. reason: for the user, one line; it says how to mend it, if that can be.

    hopeless: whether another key would not help either.
    """

    reason: str
    hopeless: bool = False


class KeysUnknown(Exception):
    """Whoever knows the keys cannot be asked now; the text says why."""


class KeyChecker(Protocol):
    async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
        """Whose key it is. Raises KeysUnknown."""
        ...


class FixedKeys:
    """Keys of users whom we know by name: for development and tests."""

    def __init__(self, keys: Mapping[str, Sequence[Key]], subjects: Mapping[str, str]) -> None:
        """keys, subjects: by user name."""
        self._keys = {user: {key.blob for key in found} for user, found in keys.items()}
        self._subjects = dict(subjects)

    async def check(self, user: str, key: Key, session: str) -> Allowed | Refused:
        subject = self._subjects.get(user)
        if subject is None or key.blob not in self._keys.get(user, ()):
            return Refused(f"{key.fingerprint} is no key of a user {user}.")
        return Allowed(subject)
