"""The `Store` in Redis: one command for each call."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from connect_trio.routing.redis_client import RedisClient
from connect_trio.routing.registry import RegistryUnavailable, check_key, check_value


class RedisStore:
    """A `Store` in Redis, of values under a prefix."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Store.put`."""
        check_value(value)
        await self._command("keep a value", "SET", self._entry(key), value, "PX", milliseconds(ttl))

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        return _bytes_or_none(await self._command("read a value", "GET", self._entry(key)))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See `Store.get_many`."""
        if not keys:
            await trio.lowlevel.checkpoint()
            return []
        values = await self._command("read values", "MGET", *map(self._entry, keys))
        if not isinstance(values, list | tuple) or len(values) != len(keys):
            raise RegistryUnavailable("Redis did not answer for each value")
        return [_bytes_or_none(value) for value in values]

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bool:
        """See `Store.claim`."""
        check_value(value)
        entry = self._entry(key)
        held = await self._command("claim a key", "SET", entry, value, "NX", "GET", "PX", milliseconds(ttl))
        return _bytes_or_none(held) in (None, value)

    async def replace(self, key: str, value: bytes) -> bool:
        """See `Store.replace`."""
        check_value(value)
        held = await self._command("replace a value", "SET", self._entry(key), value, "XX", "GET", "KEEPTTL")
        return _bytes_or_none(held) is not None

    async def prolong(self, key: str, *, ttl: float) -> None:
        """See `Store.prolong`."""
        await self._command("prolong a value", "PEXPIRE", self._entry(key), milliseconds(ttl), "GT")

    async def take(self, key: str) -> bytes | None:
        """See `Store.take`. If the connection breaks during the call, the value may be gone for everyone."""
        return _bytes_or_none(await self._command("take a value", "GETDEL", self._entry(key)))

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        await self._command("delete a value", "DEL", self._entry(key))

    async def agree(self, key: str, value: bytes) -> bytes:
        """See `Store.agree`."""
        check_value(value)
        held = _bytes_or_none(await self._command("agree on a value", "SET", self._entry(key), value, "NX", "GET"))
        return value if held is None else held

    def _entry(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}:store:{key}"

    async def _command(self, to: str, *words: str | bytes | int) -> object:
        return await self._client.command(*words, to=to)


def milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))


def _bytes_or_none(answer: object) -> bytes | None:
    return answer if isinstance(answer, bytes) else None
