"""Two agents of one session at two server processes that share a Redis: the newer token has the route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from connect_trio.mux import frames
from connect_trio.mux.codes import GoawayCode
from connect_trio.routing.redis import Redis, open_redis
from connect_trio.routing.registry import epoch_of
from tests.roles.test_server_paused import ServerProcess, listening, server
from tests.support.dialled import CLUSTER_KEY, SESSION, dialled_tunnel
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.slow]

A, B = "aa" * 16, "bb" * 16
ISSUED, STARTED = 1_800_000_000, 2**40


@pytest.fixture
def pair(redis_server: RedisServer) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers whose leases last, so that nobody loses a place for want of time."""
    with server(redis_server, lease=30) as one, server(redis_server, lease=30) as other:
        yield one, other


async def until(redis: Redis, instance: str) -> int:
    """The epoch of the session's route once it is this agent's."""
    with trio.fail_after(60):
        while True:
            routes = await redis.registry.find(SESSION)
            if [route.instance for route in routes] == [instance]:
                return routes[0].epoch
            await trio.sleep(0.01)


async def test_the_newer_token_has_the_route_and_of_one_token_the_later_start(
    pair: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    await listening(*pair)
    async with open_redis(address=redis_server.address) as redis:
        for token, start in ((-1, -1), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 1)):
            first, second = (each.tunnel_port for each in pair)
            rank = ISSUED + token, STARTED + start
            async with dialled_tunnel(first, instance=A, issued=ISSUED, epoch=STARTED, key=CLUSTER_KEY) as one:
                assert await until(redis, A) == epoch_of(ISSUED, STARTED)
                async with dialled_tunnel(second, instance=B, issued=rank[0], epoch=rank[1], key=CLUSTER_KEY) as other:
                    loser, winner = (one, B) if (token, start) > (0, 0) else (other, A)
                    with trio.fail_after(60):
                        goaway = frames.decode_goaway_untrusted(memoryview(await loser.serve()))
                    assert goaway.code == GoawayCode.DISPLACED
                    assert goaway.text == f"a newer agent (instance {winner[:8]}) of the same session took its place"
                    assert await until(redis, winner) == max(epoch_of(ISSUED, STARTED), epoch_of(*rank))
            with trio.fail_after(60):
                while await redis.registry.find(SESSION):
                    await trio.sleep(0.01)
