"""The registry and the store in Redis (7 or later), by coredis.

Layout, under CONNECT_REDIS_PREFIX:

    <prefix>:<session>:<slot>   a lease: the JSON of its `Route`, with a TTL
    <prefix>:store:<key>        a value of the `Store`, with a TTL unless it was agreed on
    <prefix>:changes            a channel: the session whose routes were changed
    <prefix>:probe              written for a second to see whether Redis takes writes again

Whatever reads before it writes is one Lua script, so that no two servers can act on the same reading.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from json.encoder import encode_basestring_ascii as _quoted
from typing import NoReturn

import attrs
import trio
from coredis.exceptions import NoScriptError

from connect_trio.routing.redis_changes import follow
from connect_trio.routing.redis_client import COMMAND_TIMEOUT, RedisClient
from connect_trio.routing.redis_places import Credentials, Places
from connect_trio.routing.redis_tls import TlsFiles
from connect_trio.routing.registry import (
    MAX_SLOTS,
    RegistryUnavailable,
    Route,
    Tell,
    check_key,
    check_slot,
    check_value,
)

__all__ = ["Redis", "RedisRegistry", "RedisStore", "TlsFiles", "open_redis"]

logger = logging.getLogger(__name__)

RENEW_BATCH = 256
"""Leases that one script call renews: about 2 ms of Redis' time."""

# A value that is not a lease of ours counts as no lease: it is replaced rather than left in the way. Epochs are
# compared as the decimal digits that they are written in, since Lua's numbers are exact up to 53 bits only.
_READ_LEASE = """
local function read(key)
  local text = redis.pcall('GET', key)
  if type(text) ~= 'string' then return nil end
  local ok, lease = pcall(cjson.decode, text)
  local epoch = string.match(text, '"epoch":(%d+)')
  if ok and type(lease) == 'table' and epoch then return {connector = lease.connector, epoch = epoch, text = text} end
  return nil
end
local function older(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end
"""

# A Redis user who may not publish must still be able to keep routes: then proxies find out by asking.
_TELL = """
local function tell(channel, session) redis.pcall('PUBLISH', channel, session) end
"""

# KEYS: place. ARGV: channel, ttl in ms, then session, connector, epoch, route. 1: published.
_PUBLISH = (
    _READ_LEASE
    + _TELL
    + """
local lease = read(KEYS[1])
if lease and not older(lease.epoch, ARGV[5]) and lease.connector ~= ARGV[4] then return 0 end
redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[2])
tell(ARGV[1], ARGV[3])
return 1
"""
)

# KEYS: places. ARGV: channel, ttl in ms, then session, connector, epoch, route for each. For each 1: renewed. Most are
# as they were, and to extend these takes no memory: a Redis whose memory is full keeps the routes that it has.
_RENEW = (
    _READ_LEASE
    + _TELL
    + """
local renewed = {}
for i, key in ipairs(KEYS) do
  local session, connector, epoch, route = ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1], ARGV[4 * i + 2]
  local lease = read(key)
  local ours = lease and lease.epoch == epoch and lease.connector == connector
  renewed[i] = 1
  if lease and lease.text == route then
    redis.call('PEXPIRE', key, ARGV[2])
  elseif not lease or older(lease.epoch, epoch) or ours then
    redis.call('SET', key, route, 'PX', ARGV[2])
    if not ours then tell(ARGV[1], session) end
  else
    renewed[i] = 0
  end
end
return renewed
"""
)

# KEYS: place. ARGV: channel, session, connector, epoch. 1: removed.
_WITHDRAW = (
    _READ_LEASE
    + _TELL
    + """
local lease = read(KEYS[1])
if lease and lease.epoch == ARGV[4] and lease.connector == ARGV[3] then
  redis.call('DEL', KEYS[1])
  tell(ARGV[1], ARGV[2])
  return 1
end
return 0
"""
)


class _Commands:
    """Commands by prefix: nothing of coredis passes this seam."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def _command(self, to: str, *words: str | bytes | int) -> object:
        return await self._client.command(*words, to=to)

    async def _script(self, to: str, script: str, keys: Sequence[str], *arguments: str | int) -> object:
        """Run a script by its digest, and in full where Redis does not have it: the first time, or after a restart."""
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._client.command("EVALSHA", digest, len(keys), *keys, *arguments, to=to)
        except NoScriptError:
            return await self._client.command("EVAL", script, len(keys), *keys, *arguments, to=to)


class RedisRegistry(_Commands):
    """A `Registry` in Redis."""

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """See `Registry.publish`."""
        words = (self._channel, _milliseconds(ttl), *_lease(route))
        return await self._script("publish a route", _PUBLISH, [self._place(route)], *words) == 1

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """See `Registry.renew`. Routes are renewed in batches; each batch is atomic."""
        taken: list[Route] = []
        for start in range(0, len(routes), RENEW_BATCH):
            batch = routes[start : start + RENEW_BATCH]
            keys = [self._place(route) for route in batch]
            leases = [word for route in batch for word in _lease(route)]
            words = (self._channel, _milliseconds(ttl), *leases)
            renewed = await self._script("renew routes", _RENEW, keys, *words)
            if not isinstance(renewed, list) or len(renewed) != len(batch):
                raise RegistryUnavailable(f"Redis at {self._client.address} answered {renewed!r:.100} to a renewal")
            taken += [route for route, ok in zip(batch, renewed, strict=True) if not ok]
        return taken

    async def withdraw(self, route: Route) -> bool:
        """See `Registry.withdraw`."""
        words = (self._channel, route.session, route.connector, route.epoch)
        return await self._script("withdraw a route", _WITHDRAW, [self._place(route)], *words) == 1

    async def find(self, session: str) -> Sequence[Route]:
        """See `Registry.find`. A value that is not a lease is logged and passed over."""
        keys = [f"{self._prefix}:{session}:{slot}" for slot in range(MAX_SLOTS)]
        values = await self._command("find routes", "MGET", *keys)
        routes = []
        for slot, value in enumerate(values if isinstance(values, list) else ()):
            if isinstance(value, bytes):
                try:
                    routes.append(_parse_lease_untrusted(value, session=session, slot=slot))
                except ValueError as exc:
                    logger.warning("a key in Redis is no lease: %s", exc, extra={"redis_key": keys[slot]})
        return routes

    async def changes(self, tell: Tell) -> NoReturn:
        """See `Registry.changes`. Takes a connection of its own, for as long as it runs."""
        await follow(self._client, self._channel, tell)

    @property
    def _channel(self) -> str:
        return f"{self._prefix}:changes"

    def _place(self, route: Route) -> str:
        check_slot(route.slot)
        return f"{self._prefix}:{route.session}:{route.slot}"


class RedisStore(_Commands):
    """A `Store` in Redis."""

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        """See `Store.put`."""
        check_value(value)
        await self._command("keep a value", "SET", self._entry(key), value, "PX", _milliseconds(ttl))

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
        held = await self._command("claim a key", "SET", entry, value, "NX", "GET", "PX", _milliseconds(ttl))
        return _bytes_or_none(held) in (None, value)

    async def replace(self, key: str, value: bytes) -> bool:
        """See `Store.replace`."""
        check_value(value)
        held = await self._command("replace a value", "SET", self._entry(key), value, "XX", "GET", "KEEPTTL")
        return _bytes_or_none(held) is not None

    async def prolong(self, key: str, *, ttl: float) -> None:
        """See `Store.prolong`."""
        await self._command("prolong a value", "PEXPIRE", self._entry(key), _milliseconds(ttl), "GT")

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


@attrs.frozen(kw_only=True)
class Redis:
    """What `open_redis` gives: a registry and a store over one connection."""

    address: str
    registry: RedisRegistry
    store: RedisStore
    _client: RedisClient

    @property
    def healthy(self) -> bool:
        """Whether Redis answered lately (within 7 s)."""
        return self._client.healthy

    async def ping(self) -> None:
        """Return when Redis answers. Raises RegistryUnavailable."""
        await self._client.command("PING", to="answer PING")

    async def wait_ready(self, timeout: float) -> None:
        """Wait until Redis is connected. Raises RegistryUnavailable: one line with the address and the reason."""
        await self._client.wait_ready(timeout)


@asynccontextmanager
async def open_redis(
    *,
    address: str = "redis:6379",
    user: str | None = None,
    password: str | None = None,
    db: int = 0,
    prefix: str = "connect:session",
    tls: TlsFiles | None = None,
    sentinel: str | None = None,
    sentinel_user: str | None = None,
    sentinel_password: str | None = None,
    command_timeout: float = COMMAND_TIMEOUT,
) -> AsyncGenerator[Redis]:
    """A registry and a store in the Redis at `address`, for as long as the block lasts.

    address: host:port, or several separated by commas, of which the first that answers as a primary is used.
    sentinel: the name of a primary; then the addresses are those of sentinels, which are asked where it is. tls: for
    sentinels, too; None for plain TCP.

    Opening does not wait for Redis: it connects in the background, and again whenever the connection is lost, so the
    block outlives any outage; calls raise RegistryUnavailable meanwhile. See `Redis.wait_ready`.
    Raises ValueError if an address is not host:port.
    """
    places = Places(
        [item.strip() for item in address.split(",")],
        sentinel=sentinel,
        sentinel_who=Credentials(user=sentinel_user, password=sentinel_password),
        tls=tls,
    )
    client = RedisClient(
        places,
        who=Credentials(user=user, password=password),
        db=db,
        probe=f"{prefix}:probe",
        command_timeout=command_timeout,
    )
    redis = Redis(
        address=client.address,
        registry=RedisRegistry(client, prefix),
        store=RedisStore(client, prefix),
        client=client,
    )
    # Shielded: a block that is being cancelled has leave to take in Redis, over a connection that still works.
    connection = trio.CancelScope(shield=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stay_connected, client, connection)
            try:
                yield redis
            finally:
                connection.cancel()
    except BaseExceptionGroup as group:
        # The nursery is our own affair: what the block raised leaves it as it was raised.
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]
        error.__context__ = None
        raise error from error.__cause__


async def _stay_connected(client: RedisClient, scope: trio.CancelScope) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            nursery.start_soon(client.watch)
            nursery.start_soon(client.tell)


def _milliseconds(ttl: float) -> int:
    return max(1, round(ttl * 1000))


def _bytes_or_none(answer: object) -> bytes | None:
    return answer if isinstance(answer, bytes) else None


def _lease(route: Route) -> tuple[str, str, int, str]:
    """The words of a lease in a script's arguments: session, connector, epoch, JSON."""
    return route.session, route.connector, route.epoch, _text(route)


def _text(route: Route) -> str:
    """The JSON of a route, without `json`: with ten thousand tunnels it is made 2,000 times a second."""
    return (
        f'{{"session":{_quoted(route.session)},"slot":{route.slot},"address":{_quoted(route.address)},'
        f'"connector":{_quoted(route.connector)},"epoch":{route.epoch},"since":{route.since!r}}}'
    )


def _parse_lease_untrusted(value: bytes, *, session: str, slot: int) -> Route:
    """Raises ValueError unless `value` is a lease for this place: Redis is shared, others may write there."""
    fields = json.loads(value)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    expected: dict[str, type | tuple[type, ...]] = {
        "address": str,
        "connector": str,
        "epoch": int,
        "since": (int, float),
    }
    for name, kind in expected.items():
        if not isinstance(fields.get(name), kind):
            raise ValueError(f"field {name!r} is missing or of another type")
    if (fields.get("session"), fields.get("slot")) != (session, slot):
        raise ValueError("it belongs to another place")
    return Route(session=session, slot=slot, **{name: fields[name] for name in expected})
