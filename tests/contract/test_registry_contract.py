"""What every registry and store promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio

from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from connect_trio.routing.redis import TlsFiles, open_redis
from connect_trio.routing.registry import MAX_ISSUED, MAX_SLOTS, MAX_VALUE, Registry, Route, Store, epoch_of
from tests.support.redis import ACL_PASSWORD, RedisServer

LONG, SHORT = 60.0, 0.05


@attrs.frozen
class Subject:
    """A registry and a store, seen by two processes that share what lies behind them."""

    registry: Registry
    other: Registry
    store: Store
    other_store: Store


@pytest.fixture(
    params=[
        "memory",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis as in production", marks=pytest.mark.redis),
    ]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """In production: TLS with certificates on both sides, the user of docs/operations.md, another database."""
    if request.param == "memory":
        registry, store = MemoryRegistry(), MemoryStore()
        yield Subject(registry, registry, store, store)
        return
    name = "redis_server" if request.param == "redis" else "tight_redis"
    options: dict[str, Any] = {}
    server: RedisServer = request.getfixturevalue(name)
    if name == "tight_redis":
        files: TlsFiles = request.getfixturevalue("client_files")
        options = {"tls": files, "user": "connect", "password": ACL_PASSWORD, "db": 5}
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_redis(address=server.address, **options))
        two = await stack.enter_async_context(open_redis(address=server.address, **options))
        yield Subject(one.registry, two.registry, one.store, two.store)


def route(*, slot: int = 0, connector: str = "aa", epoch: int = 1, session: str = "23ce7967") -> Route:
    return Route(
        session=session, slot=slot, address=f"{connector}:7777", connector=connector, epoch=epoch, since=1700000000.25
    )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so: expiry is Redis' own clock, which no mock moves."""
    with trio.fail_after(60):
        while not await condition():
            await trio.sleep(SHORT / 5)


async def test_a_published_route_is_found_by_everyone(subject: Subject) -> None:
    assert await subject.registry.publish(route(), ttl=LONG)
    assert list(await subject.registry.find("23ce7967")) == [route()]
    assert list(await subject.other.find("23ce7967")) == [route()]


async def test_an_unknown_session_has_no_route(subject: Subject) -> None:
    await subject.registry.publish(route(), ttl=LONG)
    assert list(await subject.registry.find("00000000")) == []


async def test_routes_are_found_in_the_order_of_their_slots(subject: Subject) -> None:
    for slot in reversed(range(MAX_SLOTS)):
        assert await subject.registry.publish(route(slot=slot), ttl=LONG)
    assert [found.slot for found in await subject.registry.find("23ce7967")] == list(range(MAX_SLOTS))


async def test_a_slot_out_of_range_is_refused(subject: Subject) -> None:
    for slot in (-1, MAX_SLOTS):
        with pytest.raises(ValueError, match="slot"):
            await subject.registry.publish(route(slot=slot), ttl=LONG)
        with pytest.raises(ValueError, match="slot"):
            await subject.registry.renew([route(slot=slot)], ttl=LONG)
        with pytest.raises(ValueError, match="slot"):
            await subject.registry.withdraw(route(slot=slot))


async def test_only_a_newer_epoch_takes_a_place_over(subject: Subject) -> None:
    assert await subject.registry.publish(route(connector="aa", epoch=1), ttl=LONG)
    assert await subject.other.publish(route(connector="bb", epoch=2), ttl=LONG)
    assert not await subject.registry.publish(route(connector="cc", epoch=2), ttl=LONG)
    assert list(await subject.registry.find("23ce7967")) == [route(connector="bb", epoch=2)]


async def test_an_older_epoch_of_another_connector_is_turned_away(subject: Subject) -> None:
    assert await subject.registry.publish(route(connector="aa", epoch=10), ttl=LONG)
    assert not await subject.other.publish(route(connector="bb", epoch=9), ttl=LONG)
    assert list(await subject.registry.find("23ce7967")) == [route(connector="aa", epoch=10)]


async def test_epochs_are_told_apart_whatever_their_size(subject: Subject) -> None:
    for lower in (9, 2**53, 2**64 - 1, epoch_of(1_800_000_000, 9), epoch_of(MAX_ISSUED, 2**64 - 2)):
        newer, older = route(connector="aa", epoch=lower + 1), route(connector="bb", epoch=lower)
        assert await subject.registry.publish(newer, ttl=LONG)
        assert not await subject.other.publish(older, ttl=LONG)
        assert list(await subject.other.renew([older], ttl=LONG)) == [older]
        assert not await subject.other.withdraw(attrs.evolve(newer, epoch=lower))
        assert list(await subject.registry.find("23ce7967")) == [newer]


async def test_a_renewal_that_is_told_of_a_taken_place_takes_nothing(subject: Subject) -> None:
    """The newer owner's lease keeps its own life-time, whatever the older one asks for."""
    newer, older = route(connector="bb", epoch=2), route(connector="aa", epoch=1)
    assert await subject.other.publish(newer, ttl=0.3)
    assert list(await subject.registry.renew([older], ttl=LONG)) == [older]

    async def gone() -> bool:
        return not await subject.registry.find("23ce7967")

    await until(gone)


async def test_a_lease_that_changed_is_renewed_as_it_is_now(subject: Subject) -> None:
    assert await subject.registry.publish(route(), ttl=LONG)
    moved = attrs.evolve(route(), address="elsewhere:7777")
    assert list(await subject.registry.renew([moved], ttl=LONG)) == []
    assert list(await subject.other.find("23ce7967")) == [moved]


async def test_an_older_token_takes_no_place_however_late_its_agent_started(subject: Subject) -> None:
    held = attrs.evolve(route(connector="aa", epoch=epoch_of(1_800_000_001, 1)), instance="ab" * 16)
    late = route(connector="bb", epoch=epoch_of(1_800_000_000, 2**64 - 1))
    again = route(connector="bb", epoch=epoch_of(1_800_000_001, 2))
    assert await subject.registry.publish(held, ttl=LONG)
    assert not await subject.other.publish(late, ttl=LONG)
    assert list(await subject.other.renew([late], ttl=LONG)) == [late]
    assert list(await subject.other.find("23ce7967")) == [held], "and it is said whose it is"
    assert await subject.other.publish(again, ttl=LONG)
    assert list(await subject.registry.find("23ce7967")) == [again]


async def test_a_connector_replaces_its_own_route_whatever_the_epoch(subject: Subject) -> None:
    assert await subject.registry.publish(route(epoch=10), ttl=LONG)
    assert await subject.registry.publish(route(epoch=3), ttl=LONG)
    assert list(await subject.registry.find("23ce7967")) == [route(epoch=3)]


async def test_of_concurrent_publishers_the_newest_epoch_stays(subject: Subject) -> None:
    async def publish(epoch: int) -> None:
        registry = subject.registry if epoch % 2 else subject.other
        await registry.publish(route(connector=f"{epoch:02x}", epoch=epoch), ttl=LONG)

    async with trio.open_nursery() as nursery:
        for epoch in range(1, 41):
            nursery.start_soon(publish, epoch)
    (found,) = await subject.registry.find("23ce7967")
    assert found == route(connector="28", epoch=40)


async def test_a_lease_ends_with_its_time(subject: Subject) -> None:
    await subject.registry.publish(route(), ttl=SHORT)

    async def gone() -> bool:
        return not await subject.registry.find("23ce7967")

    await until(gone)
    assert not await subject.registry.withdraw(route())


async def test_an_expired_lease_gives_way_to_an_older_epoch(subject: Subject) -> None:
    await subject.registry.publish(route(connector="aa", epoch=9), ttl=SHORT)

    async def taken() -> bool:
        return await subject.other.publish(route(connector="bb", epoch=1), ttl=LONG)

    await until(taken)


async def test_renewing_extends_a_lease(subject: Subject) -> None:
    await subject.registry.publish(route(slot=0), ttl=0.3)
    await subject.registry.publish(route(slot=1), ttl=0.3)
    assert list(await subject.registry.renew([route(slot=0)], ttl=LONG)) == []

    async def only_the_renewed_one() -> bool:
        return list(await subject.registry.find("23ce7967")) == [route(slot=0)]

    await until(only_the_renewed_one)


async def test_renewing_sets_a_lease_again_that_is_gone(subject: Subject) -> None:
    assert list(await subject.registry.renew([route()], ttl=LONG)) == []
    assert list(await subject.other.find("23ce7967")) == [route()]


async def test_renewing_tells_which_routes_another_owner_has_taken(subject: Subject) -> None:
    mine = [route(session=f"{n:08x}") for n in range(4)]
    for lease in mine:
        await subject.registry.publish(lease, ttl=LONG)
    newer = route(session="00000001", connector="bb", epoch=2)
    equal = route(session="00000002", connector="bb", epoch=1)
    own_newer = route(session="00000003", epoch=2)
    assert await subject.other.withdraw(mine[2])  # so that another one can come to hold the same epoch
    for lease in (newer, equal, own_newer):
        assert await subject.other.publish(lease, ttl=LONG)
    assert list(await subject.registry.renew(mine, ttl=LONG)) == mine[1:]
    assert list(await subject.registry.find("00000001")) == [newer]
    assert list(await subject.registry.find("00000002")) == [equal]
    assert list(await subject.registry.find("00000003")) == [own_newer]


async def test_renewing_takes_the_place_of_an_older_epoch(subject: Subject) -> None:
    await subject.other.publish(route(connector="bb", epoch=1), ttl=LONG)
    assert list(await subject.registry.renew([route(epoch=2)], ttl=LONG)) == []
    assert list(await subject.other.find("23ce7967")) == [route(epoch=2)]


async def test_a_thousand_leases_are_renewed_at_once(subject: Subject) -> None:
    many = [route(session=f"{n:08x}") for n in range(1000)]
    assert list(await subject.registry.renew(many, ttl=LONG)) == []
    assert list(await subject.registry.find("000003e7")) == [many[999]]
    assert list(await subject.registry.renew([], ttl=LONG)) == []


async def test_only_the_owner_withdraws(subject: Subject) -> None:
    await subject.registry.publish(route(connector="aa", epoch=2), ttl=LONG)
    assert not await subject.other.withdraw(route(connector="bb", epoch=2))
    assert not await subject.other.withdraw(route(connector="aa", epoch=1))
    assert list(await subject.registry.find("23ce7967")) == [route(connector="aa", epoch=2)]
    assert await subject.registry.withdraw(route(connector="aa", epoch=2))
    assert list(await subject.registry.find("23ce7967")) == []
    assert not await subject.registry.withdraw(route(connector="aa", epoch=2))


async def test_a_value_is_read_until_it_is_deleted(subject: Subject) -> None:
    value = bytes(range(256))
    await subject.store.put("login:abc", value, ttl=LONG)
    assert await subject.other_store.get("login:abc") == value
    assert await subject.store.get("login:abc") == value
    await subject.other_store.delete("login:abc")
    assert await subject.store.get("login:abc") is None
    await subject.store.delete("login:abc")


async def test_putting_replaces(subject: Subject) -> None:
    await subject.store.put("k", b"one", ttl=SHORT)
    await subject.store.put("k", b"", ttl=LONG)
    assert await subject.store.get("k") == b""
    assert await subject.store.take("k") == b""


async def test_a_value_ends_with_its_time(subject: Subject) -> None:
    await subject.store.put("k", b"v", ttl=SHORT)

    async def gone() -> bool:
        return await subject.store.get("k") is None

    await until(gone)
    assert await subject.store.take("k") is None


async def test_an_expired_value_cannot_be_taken(subject: Subject) -> None:
    await subject.store.put("k", b"v", ttl=SHORT)
    await trio.sleep(SHORT * 2)
    assert await subject.store.take("k") is None


async def test_of_many_takers_one_has_the_value(subject: Subject) -> None:
    await subject.store.put("code", b"v", ttl=LONG)
    taken: list[bytes | None] = []

    async def take(store: Store) -> None:
        taken.append(await store.take("code"))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take, subject.store)
            nursery.start_soon(take, subject.other_store)
    assert sorted(taken, key=lambda value: value is None) == [b"v"] + [None] * 39


async def test_all_agree_on_one_value_which_stays(subject: Subject) -> None:
    answers = []

    async def agree(store: Store, value: bytes) -> None:
        answers.append(await store.agree("k", value))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(agree, subject.store, b"one %d" % number)
            nursery.start_soon(agree, subject.other_store, b"two %d" % number)
    assert len(answers) == 40
    (agreed,) = set(answers)
    assert await subject.other_store.get("k") == agreed
    await subject.store.delete("k")
    assert await subject.store.agree("k", b"another") == b"another"


async def test_a_value_whose_time_is_over_is_not_agreed_on(subject: Subject) -> None:
    await subject.store.put("k", b"old", ttl=SHORT)
    await trio.sleep(SHORT * 2)
    assert await subject.store.agree("k", b"new") == b"new"
    assert await subject.other_store.agree("k", b"late") == b"new"


async def test_keys_and_values_are_held_to_their_limits(subject: Subject) -> None:
    for key in ["", "a b", "a\n", "ä", "k" * 201]:
        with pytest.raises(ValueError, match="key"):
            await subject.store.put(key, b"", ttl=LONG)
        with pytest.raises(ValueError, match="key"):
            await subject.store.get(key)
        with pytest.raises(ValueError, match="key"):
            await subject.store.take(key)
        with pytest.raises(ValueError, match="key"):
            await subject.store.delete(key)
        with pytest.raises(ValueError, match="key"):
            await subject.store.agree(key, b"")
    with pytest.raises(ValueError, match="value"):
        await subject.store.put("k", bytes(MAX_VALUE + 1), ttl=LONG)
    with pytest.raises(ValueError, match="value"):
        await subject.store.agree("k", bytes(MAX_VALUE + 1))
    await subject.store.put("k" * 200, bytes(MAX_VALUE), ttl=LONG)
    assert await subject.store.get("k" * 200) == bytes(MAX_VALUE)


async def test_a_cancelled_call_leaves_the_rest_in_order(subject: Subject) -> None:
    await subject.registry.publish(route(), ttl=LONG)
    for _ in range(10):
        with trio.CancelScope() as scope:
            scope.cancel()
            await subject.registry.find("23ce7967")
        assert scope.cancelled_caught
    assert list(await subject.registry.find("23ce7967")) == [route()]
