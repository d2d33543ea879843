"""Each rule by which a place remembers has a reason: without it, visitors are led to an older tunnel.

The plans are those of `test_registry_machine`, whose invariant has to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

import pytest
import trio
import trio.testing

from connect_trio.routing import memory, redis, redis_scripts
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import Route
from tests.routing.test_registry_machine import FAST, REAL, Step, at_fast_pace
from tests.support.brains import Pace, open_world
from tests.support.redis import RedisServer

Off = Callable[[], AbstractContextManager[object]]


@contextmanager
def _scripts_without(line: str) -> Iterator[None]:
    assert line in redis_scripts.PUBLISH
    scripts = {name: getattr(redis_scripts, name).replace(line, "") for name in ("PUBLISH", "RENEW", "WITHDRAW")}
    with mock.patch.multiple(redis, **scripts):
        yield


@contextmanager
def last_holder() -> Iterator[None]:
    """Who held the place when its lease ended is not remembered."""

    def newer(self: memory._Place, route: Route, *, but: str = "") -> bool:
        with mock.patch.object(self, "mark", None):
            return usual(self, route, but=but)

    usual = memory._Place.newer_may_be_back
    with (
        mock.patch.object(memory._Place, "newer_may_be_back", newer),
        _scripts_without("if newer(place.mark) then return true end"),
    ):
        yield


@contextmanager
def former_holders() -> Iterator[None]:
    """Nor who held it before."""

    def newer(self: memory._Place, route: Route, *, but: str = "") -> bool:
        with mock.patch.object(self, "former", []):
            return usual(self, route, but=but)

    usual = memory._Place.newer_may_be_back
    with (
        mock.patch.object(memory._Place, "newer_may_be_back", newer),
        _scripts_without("if newer(known) then return true end"),
    ):
        yield


@contextmanager
def calls_in_order() -> Iterator[None]:
    """What a connector publishes always replaces what it had."""
    with (
        mock.patch.object(memory._Place, "late", return_value=False),
        _scripts_without(" and not late(place, connector, epoch, route)"),
    ):
        yield


def cut_off(pace: Pace) -> list[Step]:
    """Both servers are cut off, the one with the newer tunnel for longer than its lease; the other one comes first."""
    return [
        ("dial", (0, 0, 0)),
        ("part", (0,)),
        ("dial", (1, 0, 0)),
        ("part", (1,)),
        ("rest", (pace.lease + pace.renew,)),
        ("join", (0,)),
        ("rest", (2 * pace.renew + 2 * pace.retry,)),
    ]


def chain(pace: Pace) -> list[Step]:
    """The third tunnel is withdrawn, and the server of the first one has not yet heard of it, nor of the second."""
    return [
        ("dial", (0, 0, 0)),
        ("part", (0,)),
        ("dial", (1, 0, 0)),
        ("part", (1,)),
        ("dial", (2, 0, 0)),
        ("cut", (2,)),
        ("join", (0,)),
        ("rest", (2 * pace.renew + 2 * pace.retry,)),
    ]


def late_call(pace: Pace) -> list[Step]:
    """A publication that its server gave up arrives after that of its next tunnel; then an agent between both comes."""
    return [
        ("delay", (0, 3)),
        ("dial", (0, 0, 0)),
        ("dial", (0, 0, 0)),
        ("rest", (3.5 * pace.retry,)),
        ("dial", (1, 1, 0)),
    ]


PLANS: dict[Off, Callable[[Pace], list[Step]]] = {
    last_holder: cut_off,
    former_holders: chain,
    calls_in_order: late_call,
}
IN_REDIS = (last_holder, former_holders)  # the other one's plan is faster than a clock that nobody holds


def run_in_memory(plan: Callable[[Pace], list[Step]]) -> None:
    async def main() -> None:
        async with open_world(MemoryRegistry(), trio.lowlevel.checkpoint, REAL) as world:
            await world.run(plan(REAL))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run_in_redis(plan: Callable[[Pace], list[Step]], server: RedisServer) -> None:
    async def main() -> None:
        async with (
            open_redis(address=server.address) as opened,
            open_world(opened.registry, trio.lowlevel.checkpoint, FAST) as world,
        ):
            await opened.wait_ready(5)
            await world.run(plan(FAST))

    with at_fast_pace():
        trio.run(main)


def led_wrong() -> AbstractContextManager[object]:
    return pytest.RaisesGroup(
        pytest.RaisesExc(AssertionError, match="led to"), allow_unwrapped=True, flatten_subgroups=True
    )


@pytest.mark.parametrize("rule", PLANS, ids=lambda rule: rule.__name__)
def test_with_the_rule_it_goes_well(rule: Off) -> None:
    run_in_memory(PLANS[rule])


@pytest.mark.parametrize("rule", PLANS, ids=lambda rule: rule.__name__)
def test_without_the_rule_it_goes_wrong(rule: Off) -> None:
    with rule(), led_wrong():
        run_in_memory(PLANS[rule])


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("rule", IN_REDIS, ids=lambda rule: rule.__name__)
def test_with_the_rule_it_goes_well_in_redis(rule: Off, redis_server: RedisServer) -> None:
    run_in_redis(PLANS[rule], redis_server)


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("rule", IN_REDIS, ids=lambda rule: rule.__name__)
def test_without_the_rule_it_goes_wrong_in_redis(rule: Off, redis_server: RedisServer) -> None:
    with rule(), led_wrong():
        run_in_redis(PLANS[rule], redis_server)
