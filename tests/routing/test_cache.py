"""The cache asks seldom, lets visitors in while the registry is away, and believes what is reported wrong."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from connect_trio.routing.cache import REGAIN, CachedRegistry
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.registry import RegistryUnavailable, Route

S = "23ce7967"


def route(address: str = "a:1", session: str = S) -> Route:
    return Route(session=session, slot=0, address=address, connector="aa", epoch=1, since=0)


class Backend(MemoryRegistry):
    """A registry that counts, fails and stalls on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.away = False
        self.stalled: trio.Event | None = None

    async def find(self, session: str) -> Sequence[Route]:
        self.asked += 1
        found = await super().find(session)
        if self.stalled is not None:
            await self.stalled.wait()
        if self.away:
            raise RegistryUnavailable("away")
        return found


@pytest.fixture
async def backend() -> Backend:
    backend = Backend()
    await backend.publish(route(), ttl=3600)
    return backend


async def test_a_fresh_answer_is_given_without_asking_again(backend: Backend, autojump_clock: MockClock) -> None:
    cache = CachedRegistry(backend, fresh=2)
    for _ in range(3):
        assert list(await cache.find(S)) == [route()]
    assert backend.asked == 1
    await trio.sleep(2)
    await cache.find(S)
    assert backend.asked == 2


async def test_known_sessions_are_served_while_the_registry_is_away(
    backend: Backend, autojump_clock: MockClock
) -> None:
    cache = CachedRegistry(backend, ttl=120)
    await cache.find(S)
    backend.away = True
    for _ in range(119):
        await trio.sleep(1)
        assert list(await cache.find(S)) == [route()]
    await trio.sleep(1)
    with pytest.raises(RegistryUnavailable, match="away"):
        await cache.find(S)
    backend.away = False
    assert list(await cache.find(S)) == [route()]


async def test_unknown_sessions_are_refused_while_the_registry_is_away(
    backend: Backend, autojump_clock: MockClock
) -> None:
    cache = CachedRegistry(backend)
    backend.away = True
    with pytest.raises(RegistryUnavailable, match="away"):
        await cache.find(S)


async def test_a_hanging_registry_delays_known_sessions_by_the_patience_and_once_per_outage(
    backend: Backend, autojump_clock: MockClock
) -> None:
    cache = CachedRegistry(backend, fresh=2, patience=0.25, outage=1)
    await cache.find(S)
    await trio.sleep(2)
    backend.stalled = trio.Event()
    began = trio.current_time()
    assert list(await cache.find(S)) == [route()]
    assert trio.current_time() - began == pytest.approx(0.25)
    for _ in range(10):
        assert list(await cache.find(S)) == [route()]
    assert trio.current_time() - began == pytest.approx(0.25)
    assert backend.asked == 2


async def test_no_route_is_remembered_for_less_than_a_second(backend: Backend, autojump_clock: MockClock) -> None:
    cache = CachedRegistry(backend)
    assert list(await cache.find("00000000")) == []
    assert list(await cache.find("00000000")) == []
    assert backend.asked == 1
    await backend.publish(route(session="00000000"), ttl=60)
    await trio.sleep(0.99)
    assert list(await cache.find("00000000")) == [route(session="00000000")]


async def test_an_invalidated_session_is_asked_for_again(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    await cache.find(S)
    await backend.publish(route("b:2"), ttl=60)
    assert list(await cache.find(S)) == [route("a:1")]
    cache.invalidate(S)
    assert list(await cache.find(S)) == [route("b:2")]
    cache.invalidate("00000000")


async def test_an_invalidated_session_still_stands_in_while_the_registry_is_away(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    await cache.find(S)
    backend.away = True
    cache.invalidate(S)
    assert list(await cache.find(S)) == [route()]


async def test_a_registry_that_came_back_empty_does_not_disprove_what_works(
    backend: Backend, autojump_clock: MockClock
) -> None:
    cache = CachedRegistry(backend, fresh=2)
    await cache.find(S)
    await backend.withdraw(route())
    await trio.sleep(3)
    assert list(await cache.find(S)) == [route()]
    cache.invalidate(S)
    assert list(await cache.find(S)) == []


async def test_concurrent_misses_ask_once(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    backend.stalled = trio.Event()
    found: list[Sequence[Route]] = []

    async def find() -> None:
        found.append(await cache.find(S))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(find)
        await wait_all_tasks_blocked()
        backend.stalled.set()
    assert backend.asked == 1
    assert [list(routes) for routes in found] == [[route()]] * 50


async def test_when_the_one_who_asks_is_cancelled_another_one_asks(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    backend.stalled = trio.Event()
    found: list[Sequence[Route]] = []
    leader = trio.CancelScope()

    async def lead() -> None:
        with leader:
            await cache.find(S)

    async def follow() -> None:
        found.append(await cache.find(S))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await wait_all_tasks_blocked()
        nursery.start_soon(follow)
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        leader.cancel()
        await wait_all_tasks_blocked()
        backend.stalled.set()
    assert leader.cancelled_caught
    assert backend.asked == 2
    assert [list(routes) for routes in found] == [[route()]] * 2


async def test_a_failure_reaches_everyone_who_waits(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    backend.stalled, backend.away = trio.Event(), True
    failures = []

    async def find() -> None:
        try:
            await cache.find(S)
        except RegistryUnavailable as exc:
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(find)
        await wait_all_tasks_blocked()
        backend.stalled.set()
    assert len(set(failures)) == 5
    assert backend.asked == 1


async def test_an_answer_older_than_an_invalidation_is_not_remembered(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    backend.stalled = stalled = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.find, S)
        await wait_all_tasks_blocked()
        cache.invalidate(S)
        await backend.publish(route("b:2"), ttl=60)
        backend.stalled = None
        assert list(await cache.find(S)) == [route("b:2")]
        stalled.set()
    assert list(await cache.find(S)) == [route("b:2")]
    assert backend.asked == 2


async def test_the_least_recently_used_session_is_forgotten_first(backend: Backend) -> None:
    cache = CachedRegistry(backend, limit=2)
    for session in ("00000001", "00000002", "00000001", "00000003"):
        await cache.find(session)
    assert backend.asked == 3
    await cache.find("00000001")
    assert backend.asked == 3
    await cache.find("00000002")
    assert backend.asked == 4


async def test_own_changes_are_seen_at_once(backend: Backend) -> None:
    cache = CachedRegistry(backend)
    await cache.find(S)
    assert await cache.publish(route("b:2"), ttl=60)
    assert list(await cache.find(S)) == [route("b:2")]
    assert list(await cache.renew([route("b:2")], ttl=60)) == []
    assert await cache.withdraw(route("b:2"))
    assert list(await cache.find(S)) == []


# told of changes


async def followed(cache: CachedRegistry, nursery: trio.Nursery) -> list[str | None]:
    """What whoever follows the cache is told, from now on."""
    told: list[str | None] = []
    nursery.start_soon(cache.changes, told.append)
    await wait_all_tasks_blocked()
    assert told == [None]
    told.clear()
    return told


async def test_a_change_is_seen_at_once(backend: Backend) -> None:
    cache = CachedRegistry(backend, fresh=100)
    async with trio.open_nursery() as nursery:
        told = await followed(cache, nursery)
        assert list(await cache.find(S)) == [route("a:1")]
        await backend.publish(route("b:2"), ttl=60)
        assert list(await cache.find(S)) == [route("b:2")]
        await backend.withdraw(route("b:2"))
        assert list(await cache.find(S)) == []
        await backend.publish(route("c:3"), ttl=60)
        assert list(await cache.find(S)) == [route("c:3")]
        assert told == [S, S, S]
        nursery.cancel_scope.cancel()


async def test_who_is_told_asks_in_vain_for_nothing_old(backend: Backend) -> None:
    """The cache forgets before it tells."""
    cache = CachedRegistry(backend, fresh=100)
    found: list[Sequence[Route]] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            found.append(await cache.find(S))

        nursery.start_soon(cache.changes, lambda session: nursery.start_soon(look))
        await wait_all_tasks_blocked()
        await backend.publish(route("b:2"), ttl=60)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [list(routes) for routes in found] == [[route("a:1")], [route("b:2")]]


async def test_a_change_of_another_session_costs_nothing(backend: Backend) -> None:
    cache = CachedRegistry(backend, fresh=100)
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        await cache.find(S)
        await backend.publish(route(session="00000001"), ttl=60)
        await cache.find(S)
        assert backend.asked == 1
        nursery.cancel_scope.cancel()


async def test_a_change_while_an_answer_is_on_its_way_is_not_missed(backend: Backend) -> None:
    cache = CachedRegistry(backend, fresh=100)
    backend.stalled = stalled = trio.Event()
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        nursery.start_soon(cache.find, S)
        await wait_all_tasks_blocked()
        await backend.publish(route("b:2"), ttl=60)
        backend.stalled = None
        stalled.set()
        await wait_all_tasks_blocked()
        assert list(await cache.find(S)) == [route("b:2")]
        nursery.cancel_scope.cancel()


async def test_after_a_gap_everything_is_asked_for_again_and_nothing_counts_as_wrong(backend: Backend) -> None:
    cache = CachedRegistry(backend, fresh=100)
    await backend.publish(route(session="00000001"), ttl=60)
    for session in (S, "00000001", "00000002"):
        await cache.find(session)
    await backend.withdraw(route())
    await backend.publish(route("b:2", session="00000001"), ttl=60)
    await backend.publish(route(session="00000002"), ttl=60)
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        assert list(await cache.find(S)) == [route()], "it may have come back empty"
        assert list(await cache.find("00000001")) == [route("b:2", session="00000001")]
        assert list(await cache.find("00000002")) == [route(session="00000002")]
        nursery.cancel_scope.cancel()


async def test_a_changed_session_is_served_as_it_was_while_the_registry_is_away(backend: Backend) -> None:
    cache = CachedRegistry(backend, fresh=100)
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        await cache.find(S)
        await backend.publish(route("b:2"), ttl=60)
        backend.away = True
        assert list(await cache.find(S)) == [route("a:1")]
        nursery.cancel_scope.cancel()


def tunnel(address: str, epoch: int) -> Route:
    return attrs.evolve(route(address), connector=address[0] * 2, epoch=epoch)


async def test_of_a_registry_that_came_back_empty_an_older_tunnel_is_not_believed_until_all_are_back(
    backend: Backend, autojump_clock: MockClock
) -> None:
    """Its server has not heard of the newer one, and renews its lease first."""
    older, newer = tunnel("b:2", 2), tunnel("c:3", 3)
    await backend.publish(newer, ttl=3600)
    cache = CachedRegistry(backend)
    assert list(await cache.find(S)) == [newer]
    backend._places.clear()
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        await backend.renew([older], ttl=3600)
        assert list(await cache.find(S)) == [newer]
        await trio.sleep(REGAIN / 2)
        assert list(await cache.find(S)) == [newer]
        await trio.sleep(REGAIN / 2)
        assert list(await cache.find(S)) == [older], "the newer one is not renewed"
        nursery.cancel_scope.cancel()


async def test_who_tried_it_knows_better(backend: Backend, autojump_clock: MockClock) -> None:
    older, newer = tunnel("b:2", 2), tunnel("c:3", 3)
    await backend.publish(newer, ttl=3600)
    cache = CachedRegistry(backend)
    await cache.find(S)
    backend.away = True
    await trio.sleep(2)
    assert list(await cache.find(S)) == [newer]
    backend.away = False
    backend._places.clear()
    await backend.renew([older], ttl=3600)
    await trio.sleep(2)
    assert list(await cache.find(S)) == [newer]
    cache.invalidate(S)
    assert list(await cache.find(S)) == [older]


async def test_without_an_outage_what_is_found_counts(backend: Backend, autojump_clock: MockClock) -> None:
    older, newer = tunnel("b:2", 2), tunnel("c:3", 3)
    await backend.publish(newer, ttl=3600)
    cache = CachedRegistry(backend)
    async with trio.open_nursery() as nursery:
        await followed(cache, nursery)
        await trio.sleep(REGAIN)
        assert list(await cache.find(S)) == [newer]
        await backend.withdraw(newer)
        await backend.publish(older, ttl=3600)
        assert list(await cache.find(S)) == [older]
        nursery.cancel_scope.cancel()
