"""The registry in memory and the one in Redis give the same answers, whatever they are asked."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import Route, epoch_of
from tests.support.examples import examples
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

SESSION = "23ce7967"
PLACES = [(SESSION, slot) for slot in range(2)]

ROUTES = st.builds(
    lambda slot, connector, issued, generation, since, instance: Route(
        session=SESSION,
        slot=slot,
        address=f"{connector}:7777",
        connector=connector,
        epoch=epoch_of(issued, generation),
        since=1_700_000_000.0 + since,
        instance=instance,
    ),
    st.integers(0, 1),
    st.sampled_from(["aa", "bb", "cc", "dd"]),
    st.sampled_from([0, 1_800_000_000]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.25, 1.5]),
    st.sampled_from(["ab", "cd"]),
)
SINGLE = ("publish", "withdraw")
STEPS = st.one_of(
    st.tuples(st.sampled_from(SINGLE), ROUTES.map(lambda route: [route])),
    st.tuples(st.just("renew"), st.lists(ROUTES, min_size=1, max_size=4)),
    st.tuples(st.just("end"), st.lists(ROUTES, min_size=1, max_size=1)),
)


def test_what_one_says_the_other_says(redis_server: RedisServer) -> None:
    @given(st.lists(STEPS, min_size=4, max_size=40))
    @examples(60)
    def compare(steps: list[tuple[str, list[Route]]]) -> None:
        trio.run(main, steps)

    async def main(steps: list[tuple[str, list[Route]]]) -> None:
        memory = MemoryRegistry()
        with redis_server.admin() as admin:
            admin.flushall()
            async with open_redis(address=redis_server.address) as redis:
                for name, routes in steps:
                    if name == "end":  # of a lease, by its time
                        admin.delete(f"connect:session:{SESSION}:{routes[0].slot}")
                        if (place := memory._places.get((SESSION, routes[0].slot))) is not None:
                            place.lease = None
                        continue
                    answers: list[list[object]] = []
                    for registry in (memory, redis.registry):
                        if name == "renew":
                            answers.append(list(await registry.renew(routes, ttl=60)))
                        elif name == "publish":
                            answers.append([await registry.publish(routes[0], ttl=60)])
                        else:
                            answers.append([await registry.withdraw(routes[0])])
                    assert answers[0] == answers[1], (name, routes)
                    assert list(await memory.find(SESSION)) == list(await redis.registry.find(SESSION))

    compare()
