"""Whatever goes wrong between servers and registry: a route leads to the newest live tunnel, or to none."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from unittest import mock

import pytest
import redis as redis_py
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio import sessions
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.redis import open_redis
from tests.support.brains import AGENTS, SERVERS, SLOTS, Pace, open_world
from tests.support.examples import examples
from tests.support.redis import RedisServer

Step = tuple[str, tuple[float, ...]]

REAL = Pace(lease=sessions.LEASE, renew=sessions.RENEW, retry=sessions.RETRY, silent=60.0, turn=0.01)
FAST = Pace(lease=0.6, renew=0.1, retry=0.05, silent=0.9, turn=0.02)


LENGTH = 12, 30  # steps; what takes no part in a failure shrinks to nothing
WEIGHTS = (
    {"nothing": 1, "dial": 12, "rest": 6, "cut": 3, "silence": 2, "part": 3, "join": 3, "lose_answers": 2}
    | {"renew_token": 2, "delay": 2, "freeze": 2, "thaw": 2, "crash": 1, "forget": 1, "restart": 1, "stand_by": 2}
)  # fmt: skip


def at_fast_pace() -> AbstractContextManager[object]:
    """For the servers; Redis has no clock that could be moved."""
    patch: AbstractContextManager[object] = mock.patch.multiple(
        sessions, LEASE=FAST.lease, RENEW=FAST.renew, RETRY=FAST.retry, CATCH_UP=0.0
    )
    return patch


def steps(pace: Pace) -> st.SearchStrategy[list[Step]]:
    server, which = st.integers(0, SERVERS - 1), st.integers(0, 9)
    arguments: dict[str, tuple[st.SearchStrategy[int] | st.SearchStrategy[float], ...]] = {
        "dial": (server, st.integers(0, len(AGENTS) - 1), st.integers(0, SLOTS - 1)),
        "rest": (st.sampled_from([pace.retry, pace.renew, 3 * pace.renew, pace.lease + pace.renew, 2 * pace.lease]),),
        "stand_by": (server, st.integers(0, len(AGENTS) - 1), st.integers(0, SLOTS - 1)),
        "restart": (st.integers(0, len(AGENTS) - 1), st.integers(1, 4)),
        "renew_token": (st.integers(0, len(AGENTS) - 1), st.integers(1, 2)),
        "cut": (which,),
        "silence": (which,),
        "part": (server,),
        "join": (server,),
        "lose_answers": (server, st.integers(1, 3)),
        "delay": (server, st.integers(1, 40)),
        "freeze": (server,),
        "thaw": (server,),
        "crash": (server,),
    }
    names = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])

    @st.composite
    def step(draw: st.DrawFn) -> Step:
        name = draw(names)
        return name, tuple(draw(each) for each in arguments.get(name, ()))

    return st.lists(step(), min_size=LENGTH[0], max_size=LENGTH[1])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def test_routes_lead_to_the_newest_live_tunnel() -> None:
    @given(steps(REAL))
    @example([("delay", (1, 15)), ("dial", (0, 0, 0)), ("silence", (0,)), ("dial", (1, 0, 0)), ("cut", (0,))])
    @example([("dial", (0, 0, 0)), ("dial", (1, 0, 0)), ("dial", (2, 1, 0)), ("cut", (1,))])
    @examples(150)
    def explore(plan: list[Step]) -> None:
        async def main() -> None:
            registry = MemoryRegistry(remember=3600)

            async def forget() -> None:
                registry._places.clear()

            async with open_world(registry, forget, REAL) as world:
                await world.run(plan)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    explore()


@pytest.mark.redis
@pytest.mark.slow
def test_routes_in_redis_lead_to_the_newest_live_tunnel(redis_server: RedisServer) -> None:
    @given(steps(FAST))
    @examples(5)
    def explore(plan: list[Step]) -> None:
        async def main() -> None:
            with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
                admin.flushall()

                async def forget() -> None:
                    admin.flushall()

                async with (
                    open_redis(address=redis_server.address) as redis,
                    open_world(redis.registry, forget, FAST) as world,
                ):
                    await redis.wait_ready(5)
                    await world.run(plan)

        trio.run(main)

    with at_fast_pace():
        explore()
