"""What the registry and the store in memory promise beyond the contract: bounds, and an injected clock."""

from __future__ import annotations

import pytest

from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from connect_trio.routing.registry import RegistryUnavailable, Route


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def route(number: int) -> Route:
    return Route(session=f"{number:08x}", slot=0, address="a:1", connector="aa", epoch=1, since=0)


async def test_the_registry_is_bounded_and_expired_leases_make_room() -> None:
    clock = Clock()
    registry = MemoryRegistry(clock=clock, limit=3)
    for number in range(3):
        assert await registry.publish(route(number), ttl=10 + number)
    with pytest.raises(RegistryUnavailable, match="full"):
        await registry.publish(route(3), ttl=10)
    assert await registry.publish(route(2), ttl=20)
    clock.now += 10
    assert await registry.publish(route(3), ttl=10)
    assert [bool(await registry.find(f"{number:08x}")) for number in range(4)] == [False, True, True, True]


async def test_a_lease_lives_exactly_its_time() -> None:
    clock = Clock()
    registry = MemoryRegistry(clock=clock)
    await registry.publish(route(1), ttl=10)
    clock.now += 9.99
    assert list(await registry.find("00000001")) == [route(1)]
    clock.now += 0.01
    assert list(await registry.find("00000001")) == []


async def test_the_store_is_bounded_in_values_and_bytes() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock, limit=3, max_bytes=100)
    await store.put("a", bytes(60), ttl=10)
    with pytest.raises(RegistryUnavailable, match="full"):
        await store.put("b", bytes(41), ttl=20)
    await store.put("a", bytes(80), ttl=10)
    await store.put("b", bytes(20), ttl=20)
    await store.put("c", b"", ttl=20)
    with pytest.raises(RegistryUnavailable, match="full"):
        await store.put("d", b"", ttl=20)
    clock.now += 10
    await store.put("d", bytes(80), ttl=20)
    assert await store.get("a") is None
    assert await store.get("b") == bytes(20)
    await store.delete("d")
    await store.put("e", bytes(80), ttl=20)


async def test_an_expired_value_can_be_neither_read_nor_taken() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    await store.put("a", b"x", ttl=10)
    await store.put("b", b"x", ttl=10)
    clock.now += 10
    assert await store.get("a") is None
    assert await store.take("b") is None
