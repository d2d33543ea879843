"""Whatever goes wrong between servers and registry: a route leads to the newest live tunnel, or to none."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any
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


LENGTH = 8, 24  # steps; what takes no part in a failure shrinks to nothing
WEIGHTS = (
    {"nothing": 1, "dial": 8, "rest": 4, "cut": 4, "silence": 2, "part": 2, "join": 2, "lose_answers": 2}
    | {"renew_token": 1, "delay": 1, "freeze": 2, "thaw": 2, "crash": 1, "forget": 1, "restart": 1, "stand_by": 2}
    | {"last_word": 6, "lapse": 3, "return": 6, "late_word": 2, "chain": 3}
)  # fmt: skip


def at_fast_pace() -> AbstractContextManager[object]:
    """For the servers; Redis has no clock that could be moved."""
    patch: AbstractContextManager[object] = mock.patch.multiple(
        sessions, LEASE=FAST.lease, RENEW=FAST.renew, RETRY=FAST.retry, CATCH_UP=0.0
    )
    return patch


def steps(pace: Pace) -> st.SearchStrategy[list[Step]]:
    """Single steps, and short scenes that by chance alone would seldom come about."""
    server, which, agent = st.integers(0, SERVERS - 1), st.integers(0, 9), st.integers(0, len(AGENTS) - 1)
    slot = st.sampled_from([*[0] * 5, *range(1, SLOTS)])  # most of what can go wrong goes wrong in one slot
    tunnel = (server, agent, slot)
    arguments: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
        "dial": tunnel,
        "rest": (st.sampled_from([pace.retry, pace.renew, 3 * pace.renew, pace.lease + pace.renew, 2 * pace.lease]),),
        "stand_by": tunnel,
        "restart": (agent, st.integers(1, 4)),
        "renew_token": (agent, st.integers(1, 2)),
        "cut": (which,),
        "silence": (which,),
        "part": (server,),
        "join": (server,),
        "lose_answers": (server, st.integers(1, 3)),
        "delay": (server, st.integers(1, 40)),
        "freeze": (server,),
        "thaw": (server,),
        "crash": (server,),
        "last_word": tunnel,
        "lapse": (server,),
        "return": (server,),
        "late_word": (*tunnel, st.integers(1, 5)),
        "chain": (st.permutations(range(SERVERS)), agent, slot),
    }
    names = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])

    @st.composite
    def scene(draw: st.DrawFn) -> list[Step]:
        name = draw(names)
        drawn = tuple(draw(each) for each in arguments.get(name, ()))
        if name == "last_word":  # of a server, before it is cut off from the registry: it has a new tunnel
            return [("dial", drawn), ("part", drawn[:1])]
        if name == "lapse":
            return [("part", drawn), ("rest", (pace.lease + pace.renew,))]
        if name == "return":
            return [("thaw", drawn), ("join", drawn), ("rest", (pace.renew + 2 * pace.retry,))]
        if name == "late_word":  # it arrives when there is another tunnel
            return [("delay", (drawn[0], drawn[3])), ("dial", drawn[:3]), ("dial", drawn[:3])]
        if name == "chain":  # of takeovers, of which most servers have not heard when the newest tunnel ends
            *cut_off, last = [(each, *drawn[1:]) for each in drawn[0]]
            words = [[("dial", each), ("part", each[:1])] for each in cut_off]
            return [*chain(*words), ("dial", last), ("cut", (-1,))]
        return [(name, drawn)]

    return st.lists(scene(), min_size=LENGTH[0], max_size=LENGTH[1]).map(lambda scenes: list(chain(*scenes)))


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
