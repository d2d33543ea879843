"""What outlives a restart of the development Platform: its keys and its clients."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.state import Client
from connect_trio.identity.files import read_private, write_private

logger = logging.getLogger(__name__)

_KEYS = "signing-keys.json"
_CLIENTS = "clients.json"
_MAX_FILE = 4 * 1024 * 1024


class Storage:
    """Files in one folder; nothing is kept where the folder is None. Unreadable content is replaced, and said."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._saving = trio.Lock()

    async def load_keys(self) -> KeyRing:
        """The keys of the last run, or new ones that are kept from now on. Raises OSError."""
        content = await self._read(_KEYS)
        if content is not None:
            try:
                return KeyRing.deserialise(content)
            except ValueError:
                logger.warning("%s has no usable keys and is replaced", _KEYS)
        keys = await trio.to_thread.run_sync(KeyRing)
        await self._write(_KEYS, keys.serialise())
        return keys

    async def load_clients(self) -> list[Client]:
        """Clients in the order of their registration. Raises OSError."""
        content = await self._read(_CLIENTS)
        if content is None:
            return []
        try:
            return [_client(entry) for entry in json.loads(content)]
        except (ValueError, TypeError, KeyError):
            logger.warning("%s has no usable clients and is replaced", _CLIENTS)
            return []

    async def save_clients(self, clients: Iterable[Client]) -> None:
        """Raises OSError."""
        await self._write(_CLIENTS, json.dumps([attrs.asdict(client) for client in clients]).encode())

    async def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return None
        return await trio.to_thread.run_sync(partial(read_private, self._folder / name, limit=_MAX_FILE))

    async def _write(self, name: str, content: bytes) -> None:
        if self._folder is None:
            return
        async with self._saving:  # the last one to save must also be the last one to write
            await trio.to_thread.run_sync(write_private, self._folder / name, content)


def _client(entry: dict[str, Any]) -> Client:
    return Client(
        client_id=str(entry["client_id"]),
        secret_sha256=str(entry["secret_sha256"]),
        name=str(entry["name"]),
        redirect_uris=tuple(map(str, entry["redirect_uris"])),
        post_logout_redirect_uris=tuple(map(str, entry["post_logout_redirect_uris"])),
        auth_method=str(entry["auth_method"]),
        backchannel_logout_uri=str(entry["backchannel_logout_uri"]) if entry.get("backchannel_logout_uri") else None,
        refreshes=bool(entry.get("refreshes", True)),
    )
