"""A route, and everything that can be done with a registry and a store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from connect_trio.routing.redis import Redis
from connect_trio.routing.registry import RegistryUnavailable, Route

ROUTE = Route(session="23ce7967", slot=0, address="server:7777", connector="aa", epoch=3, since=1.5)


def calls(redis: Redis) -> list[Callable[[], Awaitable[object]]]:
    """Every call that there is, in an order in which all of them do something."""
    registry, store = redis.registry, redis.store
    return [
        redis.ping,
        lambda: registry.publish(ROUTE, ttl=60),
        lambda: registry.renew([ROUTE], ttl=60),
        lambda: registry.find(ROUTE.session),
        lambda: registry.withdraw(ROUTE),
        lambda: store.put("k", b"v", ttl=60),
        lambda: store.get("k"),
        lambda: store.take("k"),
        lambda: store.delete("k"),
        lambda: store.agree("agreed", b"v"),
    ]


async def use_everything(redis: Redis) -> None:
    """Twice, so that scripts are sent in full and by their digests. Raises RegistryUnavailable."""
    for call in calls(redis) * 2:
        await call()


async def until_it_works(redis: Redis, *, within: float = 20) -> None:
    with trio.fail_after(within):
        while True:
            try:
                await redis.ping()
            except RegistryUnavailable:
                await trio.sleep(0.02)
            else:
                return
