"""The cluster's key in the `Store`: made by whoever comes first, kept there by everybody."""

from __future__ import annotations

import logging
import secrets

import trio

from connect_trio.routing.registry import RegistryUnavailable, Store
from connect_trio.transport.keyring import Key, Keyring

ENTRY = "cluster-key"
"""Its key in the `Store`."""

INTERVAL = 3.0
"""Seconds between two looks: for as long may processes disagree after Redis has lost its data."""

logger = logging.getLogger(__name__)


class KeyUnusable(Exception):
    """What is in the Store as the cluster's key is none; the text says how to mend it."""


class SharedKey:
    """Keeps a keyring and the Store in agreement. Made by `open_shared_key`."""

    def __init__(self, store: Store, text: str) -> None:
        self._store = store
        self._text = text
        self._refused: bytes | None = None
        self.keyring = Keyring([Key.of_text(text)])

    async def keep(self) -> None:
        """Until cancelled: put the key back if the Store has lost it; prefer another one if that is there now.

        The one before is still accepted for a while, so that processes that have not looked yet are not cut off.
        """
        while True:
            await trio.sleep(INTERVAL)
            try:
                value = await self._store.agree(ENTRY, self._text.encode("ascii"))
            except RegistryUnavailable as exc:
                logger.debug("the cluster's key cannot be looked at now: %s", exc)
                continue
            self._take(value)

    def _take(self, value: bytes) -> None:
        if value == self._text.encode("ascii") or value == self._refused:
            return
        try:
            text = _text_of(value)
            key = Key.of_text(text)
        except ValueError as exc:
            self._refused = value
            logger.error(
                "the cluster's key in Redis was replaced by what is none; ours stays", extra={"reason": str(exc)}
            )
            return
        self._text, self._refused = text, None
        self.keyring.adopt(key, trio.current_time())
        logger.warning("the cluster's key in Redis is another one now, which we take over")


async def open_shared_key(store: Store) -> SharedKey:
    """The key that is in the Store; if there is none, a new one. Raises RegistryUnavailable and KeyUnusable."""
    value = await store.agree(ENTRY, secrets.token_hex(32).encode("ascii"))
    try:
        return SharedKey(store, _text_of(value))
    except ValueError as exc:
        raise KeyUnusable(
            f"the cluster's key in Redis ({ENTRY!r} in the store) cannot be used: {exc};"
            " delete it, and a new one is made, or set CONNECT_CLUSTER_KEY"
        ) from exc


def _text_of(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as exc:
        raise ValueError("it is not ASCII") from exc
