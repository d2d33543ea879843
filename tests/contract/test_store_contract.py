"""What a store promises to those who share values that change: claims, replacing, prolonging."""

from __future__ import annotations

import math

import pytest
import trio

from connect_trio.routing.registry import MAX_VALUE, Store
from tests.contract.test_registry_contract import LONG, SHORT, Subject, subject, until

__all__ = ["subject"]


async def test_many_values_are_read_in_one_step(subject: Subject) -> None:
    await subject.store.put("a", b"1", ttl=LONG)
    await subject.store.put("c", b"", ttl=LONG)
    assert list(await subject.other_store.get_many(["a", "b", "c", "a"])) == [b"1", None, b"", b"1"]
    assert list(await subject.other_store.get_many([])) == []


async def test_of_many_that_claim_one_succeeds(subject: Subject) -> None:
    succeeded: list[bytes] = []

    async def claim(store: Store, value: bytes) -> None:
        if await store.claim("k", value, ttl=LONG):
            succeeded.append(value)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(claim, subject.store, b"one %d" % number)
            nursery.start_soon(claim, subject.other_store, b"two %d" % number)
    assert [await subject.store.get("k")] == succeeded


async def test_what_was_claimed_can_be_claimed_again_when_its_time_is_over(subject: Subject) -> None:
    assert await subject.store.claim("k", b"", ttl=SHORT)

    async def free() -> bool:
        return await subject.other_store.claim("k", b"other", ttl=LONG)

    await until(free)
    assert not await subject.store.claim("k", b"", ttl=LONG)
    assert await subject.store.claim("k", b"other", ttl=LONG), "who lost the answer may ask again"
    await subject.store.delete("k")
    assert await subject.store.claim("k", b"", ttl=LONG)


async def test_only_what_is_there_is_replaced(subject: Subject) -> None:
    assert not await subject.store.replace("k", b"new")
    assert await subject.store.get("k") is None
    await subject.store.put("k", b"", ttl=LONG)
    assert await subject.other_store.replace("k", b"new")
    assert await subject.store.get("k") == b"new"
    await subject.store.delete("k")
    assert not await subject.other_store.replace("k", b"newer")


async def test_replacing_leaves_a_value_its_time(subject: Subject) -> None:
    with trio.fail_after(60):
        replaced = False
        while not replaced:  # unless the machine stood still for so long
            await subject.store.put("k", b"old", ttl=10 * SHORT)
            replaced = await subject.store.replace("k", b"new")

    async def gone() -> bool:
        return await subject.store.get("k") is None

    await until(gone)


async def test_a_prolonged_value_lives_longer(subject: Subject) -> None:
    took = math.inf
    while took >= 10 * SHORT:  # unless the machine stood still for so long
        began = trio.current_time()
        await subject.store.put("k", b"v", ttl=10 * SHORT)
        await subject.other_store.prolong("k", ttl=LONG)
        await subject.other_store.prolong("k", ttl=SHORT)  # never shorter
        took = trio.current_time() - began
    await trio.sleep(11 * SHORT)
    assert await subject.store.get("k") == b"v"


async def test_what_is_gone_cannot_be_prolonged(subject: Subject) -> None:
    await subject.store.put("k", b"v", ttl=SHORT)
    await trio.sleep(SHORT * 2)
    await subject.store.prolong("k", ttl=LONG)
    assert await subject.store.get("k") is None


async def test_all_calls_hold_keys_and_values_to_their_limits(subject: Subject) -> None:
    store = subject.store
    for key in ["", "a b", "k" * 201]:
        with pytest.raises(ValueError, match="key"):
            await store.get_many(["k", key])
        with pytest.raises(ValueError, match="key"):
            await store.claim(key, b"", ttl=LONG)
        with pytest.raises(ValueError, match="key"):
            await store.replace(key, b"")
        with pytest.raises(ValueError, match="key"):
            await store.prolong(key, ttl=LONG)
    with pytest.raises(ValueError, match="value"):
        await store.claim("k", bytes(MAX_VALUE + 1), ttl=LONG)
    with pytest.raises(ValueError, match="value"):
        await store.replace("k", bytes(MAX_VALUE + 1))
