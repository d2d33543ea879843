"""The registry and the store in Redis (7 or later), by coredis.

Layout, under CONNECT_REDIS_PREFIX:

    <prefix>:<session>:<slot>   a lease: the JSON of its `Route`, with a TTL
    ...:<slot>:mark             the last holder of the place that has not withdrawn, as a lease, with a longer TTL
    ...:<slot>:former           the holders before it that have not withdrawn: epoch:connector:since, with commas
    <prefix>:store:<key>        a value of the `Store`, with a TTL unless it was agreed on
    <prefix>:changes            a channel: the sessions whose routes were changed, separated by commas
    <prefix>:probe              written for a second to see whether Redis takes writes again

Whatever reads before it writes is one Lua script (`redis_scripts`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import NoReturn

import attrs
import trio
from coredis.exceptions import NoScriptError

from connect_trio.routing.redis_batches import Batches
from connect_trio.routing.redis_changes import follow
from connect_trio.routing.redis_client import COMMAND_TIMEOUT, RedisClient
from connect_trio.routing.redis_places import Credentials, Places
from connect_trio.routing.redis_scripts import PUBLISH, RENEW, WITHDRAW
from connect_trio.routing.redis_store import RedisStore, milliseconds
from connect_trio.routing.redis_tls import TlsFiles
from connect_trio.routing.registry import (
    MAX_SLOTS,
    REMEMBER,
    RegistryUnavailable,
    Route,
    Tell,
    check_slot,
)

__all__ = ["Redis", "RedisRegistry", "RedisStore", "TlsFiles", "open_redis"]

logger = logging.getLogger(__name__)

RENEW_BATCH = 256
"""Leases that one script call renews: about 2 ms of Redis' time."""

BATCH = 64
"""Routes that are published, or sessions that are looked up, by one command."""


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class _Commands:
    """Commands by prefix: nothing of coredis passes this seam."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def _command(self, to: str, *words: str | bytes | int) -> object:
        return await self._client.command(*words, to=to)

    async def _script(self, to: str, script: str, keys: Sequence[str], *arguments: str | int) -> object:
        """Run a script by its digest, and in full where Redis does not have it: the first time, or after a restart."""
        try:
            return await self._client.command("EVALSHA", _digest(script), len(keys), *keys, *arguments, to=to)
        except NoScriptError:
            return await self._client.command("EVAL", script, len(keys), *keys, *arguments, to=to)


class RedisRegistry(_Commands):
    """A `Registry` in Redis. Callers at the same time share commands: each has a price, here and there."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        super().__init__(client, prefix)
        self._publishing = Batches(self._publish, limit=BATCH)
        self._finding = Batches(self._find, limit=BATCH)

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """See `Registry.publish`."""
        return await self._publishing.ask((self._place(route), route, ttl))

    async def _publish(self, wanted: Sequence[tuple[str, Route, float]]) -> Sequence[bool]:
        places, routes, ttls = zip(*wanted, strict=True)
        return await self._leases("publish a route", PUBLISH, places, routes, ttl=min(ttls))

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """See `Registry.renew`. Routes are renewed in batches; each batch is atomic."""
        taken: list[Route] = []
        for start in range(0, len(routes), RENEW_BATCH):
            batch = routes[start : start + RENEW_BATCH]
            renewed = await self._leases("renew routes", RENEW, [self._place(route) for route in batch], batch, ttl=ttl)
            taken += [route for route, ok in zip(batch, renewed, strict=True) if not ok]
        return taken

    async def _leases(
        self, to: str, script: str, places: Sequence[str], routes: Sequence[Route], *, ttl: float
    ) -> Sequence[bool]:
        """Run a script over leases; its answer for each."""
        leases = [word for route in routes for word in _lease(route)]
        done = await self._script(to, script, places, self._channel, milliseconds(ttl), milliseconds(REMEMBER), *leases)
        if not isinstance(done, list) or len(done) != len(routes):
            raise RegistryUnavailable(f"Redis at {self._client.address} answered {done!r:.100} to: {to}")
        return [each == 1 for each in done]

    async def withdraw(self, route: Route) -> bool:
        """See `Registry.withdraw`."""
        words = (self._channel, route.session, route.connector, route.epoch)
        return await self._script("withdraw a route", WITHDRAW, [self._place(route)], *words) == 1

    async def find(self, session: str) -> Sequence[Route]:
        """See `Registry.find`. A value that is not a lease is logged and passed over."""
        return await self._finding.ask(session)

    async def _find(self, sessions: Sequence[str]) -> Sequence[Sequence[Route]]:
        keys = [f"{self._prefix}:{session}:{slot}" for session in sessions for slot in range(MAX_SLOTS)]
        values = await self._command("find routes", "MGET", *keys)
        if not isinstance(values, list) or len(values) != len(keys):
            raise RegistryUnavailable(f"Redis at {self._client.address} answered {values!r:.100} to MGET")
        found: list[list[Route]] = [[] for _ in sessions]
        for place, value in enumerate(values):
            if isinstance(value, bytes):
                number, slot = divmod(place, MAX_SLOTS)
                try:
                    found[number].append(_parse_lease_untrusted(value, session=sessions[number], slot=slot))
                except ValueError as exc:
                    logger.warning("a key in Redis is no lease: %s", exc, extra={"redis_key": keys[place]})
        return found

    async def changes(self, tell: Tell) -> NoReturn:
        """See `Registry.changes`. Takes a connection of its own, for as long as it runs."""
        await follow(self._client, self._channel, tell)

    @property
    def _channel(self) -> str:
        return f"{self._prefix}:changes"

    def _place(self, route: Route) -> str:
        check_slot(route.slot)
        return f"{self._prefix}:{route.session}:{route.slot}"


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


def _lease(route: Route) -> tuple[str, str, int, str]:
    """The words of a lease in a script's arguments: session, connector, epoch, JSON."""
    return route.session, route.connector, route.epoch, _text(route)


def _text(route: Route) -> str:
    """The JSON of a route, without `json`: with ten thousand tunnels it is made 2,000 times a second."""
    return (
        f'{{"session":{_quoted(route.session)},"slot":{route.slot},"address":{_quoted(route.address)},'
        f'"connector":{_quoted(route.connector)},"epoch":{route.epoch},"since":{route.since!r},'
        f'"instance":{_quoted(route.instance)}}}'
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
    if not isinstance(fields.get("instance", ""), str):
        raise ValueError("field 'instance' is of another type")
    if (fields.get("session"), fields.get("slot")) != (session, slot):
        raise ValueError("it belongs to another place")
    known = {name: fields[name] for name in (*expected, "instance") if name in fields}
    return Route(session=session, slot=slot, **known)
