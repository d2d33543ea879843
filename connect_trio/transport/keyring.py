"""The keys by which servers and proxies know each other: how they are made, named, accepted and retired.

A key's text (CONNECT_CLUSTER_KEY, or what is in Redis) is stretched by scrypt before it is used, since people choose
some of them; an id that says nothing about it lets two sides find a key that both have.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import attrs

MIN_LENGTH = 32
"""Characters of a key's text, at least."""

MIN_VARIETY = 8
"""Different characters in it, at least: 32 times the same one is no secret."""

MAX_LENGTH = 1024
MAX_KEYS = 4
"""Keys that one process accepts at the same time."""

RETIRED = 600.0
"""Seconds for which a key is still accepted after another one has replaced it."""

ID_SIZE = 8
SECRET_SIZE = 32

_SALT = b"connect-trio cluster key 1"
_ID_LABEL = b"connect-trio key id 1"
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1  # 16 MiB, about 40 ms


@attrs.frozen
class Key:
    """A key that is ready for use. id: 8 bytes by which the other side finds it; they may be seen by anybody."""

    id: bytes
    secret: bytes = attrs.field(repr=False)

    @classmethod
    def of_secret(cls, secret: bytes) -> Key:
        """secret: 32 bytes that nobody can guess."""
        return cls(hmac.digest(secret, _ID_LABEL, "sha256")[:ID_SIZE], secret)

    @classmethod
    def of_text(cls, text: str) -> Key:
        """Slow (about 40 ms) on purpose. Raises ValueError for a text that is too easy to guess."""
        check_text(text)
        return cls.of_secret(
            hashlib.scrypt(text.encode("ascii"), salt=_SALT, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=SECRET_SIZE)
        )


def check_text(text: str) -> None:
    """Raises ValueError, with a line that does not repeat it, unless `text` may be a key."""
    advice = "write one that nobody can guess, for example what `openssl rand -hex 32` prints"
    if len(text) < MIN_LENGTH:
        raise ValueError(f"a key of {len(text)} characters is too short (at least {MIN_LENGTH}); {advice}")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a key of {len(text)} characters is too long (at most {MAX_LENGTH}); {advice}")
    if not text.isascii() or not text.isprintable() or "," in text:
        raise ValueError(f"a key is printable ASCII without commas; {advice}")
    if len(set(text)) < MIN_VARIETY:
        raise ValueError(f"a key of only {len(set(text))} different characters is easy to guess; {advice}")


class Keyring:
    """The keys of one process: it would rather prove with the first of them, and accepts all."""

    def __init__(self, keys: Sequence[Key]) -> None:
        """keys: 1 to MAX_KEYS. Raises ValueError for another count."""
        if not 1 <= len(keys) <= MAX_KEYS:
            raise ValueError(f"there are 1 to {MAX_KEYS} keys, not {len(keys)}")
        self._keys = tuple(keys)
        self._until: dict[bytes, float] = {}

    def keys(self, now: float) -> tuple[Key, ...]:
        """Those that count at this time; never none."""
        return tuple(key for key in self._keys if self._until.get(key.id, now + 1) > now)

    def adopt(self, key: Key, now: float) -> bool:
        """Prefer this key from now on; those before it are accepted for RETIRED seconds. False: it was the first one.

        The oldest goes where there are more than MAX_KEYS.
        """
        if key.id == self._keys[0].id:
            return False
        others = [each for each in self.keys(now) if each.id != key.id][: MAX_KEYS - 1]
        self._until = {each.id: self._until.get(each.id, now + RETIRED) for each in others}
        self._keys = (key, *others)
        return True
