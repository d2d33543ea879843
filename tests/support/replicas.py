"""Proxies that share a Store, as replicas do: in memory, or in a real Redis with a connection each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import attrs
import pytest

from connect_trio.edge.login_ends import Lives
from connect_trio.edge.login_records import LoginRecords
from connect_trio.edge.login_visits import StudioVisit
from connect_trio.identity.refresh import Tokens
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import Store
from tests.support.login import Clock, Proxy, open_proxy
from tests.support.platform import RunningPlatform, running_platform
from tests.support.redis import RedisServer, redis_server

__all__ = ["redis_server"]

OVER_MEMORY_AND_REDIS = ["memory", pytest.param("redis", marks=pytest.mark.redis)]


@attrs.frozen
class Replicas:
    platform: RunningPlatform
    one: Proxy
    other: Proxy

    async def tokens(self, visit: StudioVisit) -> Tokens | None:
        """What the Store knows of a login's tokens."""
        return await LoginRecords(self.one.store).get(Tokens, visit.visit.key)

    def pass_time(self, seconds: float) -> None:
        """For the proxies; a Redis keeps its own time."""
        for proxy in (self.one, self.other):
            proxy.clock.offset += seconds


@pytest.fixture(params=OVER_MEMORY_AND_REDIS)
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(running_platform())
        shared = MemoryStore()
        proxies = []
        for _ in range(2):
            store: Store = shared
            if request.param == "redis":
                server: RedisServer = request.getfixturevalue("redis_server")
                store = (await stack.enter_async_context(open_redis(address=server.address))).store
            opened = open_proxy(platform.url, store=store, clock=Clock(), lives=Lives(), all_clocks=True)
            proxies.append(await stack.enter_async_context(opened))
        yield Replicas(platform, *proxies)
