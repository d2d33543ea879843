"""The read-through cache: what is fresh, what is stale, and who asks."""

from __future__ import annotations

import pytest
import trio

from connect_trio.identity.cache import ReadThrough


class Away(Exception):
    pass


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.value = "a"
        self.gate: trio.Event | None = None

    async def __call__(self) -> str:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Away
        return self.value


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> ReadThrough[str, str]:
    return ReadThrough(fresh=2, stale=60, size=3, away=Away, keep=lambda value: value != "denied", clock=clock)


async def test_a_fresh_value_is_not_asked_for_again(cache: ReadThrough[str, str], clock: Clock) -> None:
    source = Source()
    assert await cache.get("k", source) == "a"
    source.value = "b"
    clock.now = 1.9
    with trio.testing.assert_no_checkpoints():
        assert await cache.get("k", source) == "a"
    clock.now = 2
    assert await cache.get("k", source) == "b"
    assert source.asked == 2


async def test_a_value_is_used_while_its_source_is_away_but_not_for_ever(
    cache: ReadThrough[str, str], clock: Clock
) -> None:
    source = Source()
    await cache.get("k", source)
    source.away = True
    for clock.now in (10, 30, 59.9):
        assert await cache.get("k", source) == "a"
    clock.now = 60
    with pytest.raises(Away):
        await cache.get("k", source)


async def test_a_denial_is_never_stale(cache: ReadThrough[str, str], clock: Clock) -> None:
    source = Source()
    source.value = "denied"
    await cache.get("k", source)
    source.away = True
    clock.now = 3
    with pytest.raises(Away):
        await cache.get("k", source)


async def test_one_task_asks_for_all(cache: ReadThrough[str, str]) -> None:
    source = Source()
    source.gate = trio.Event()
    got: list[str] = []

    async def ask() -> None:
        got.append(await cache.get("k", source))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        source.gate.set()
    assert (got, source.asked) == (["a"] * 5, 1)


async def test_others_get_the_old_value_while_one_task_asks(cache: ReadThrough[str, str], clock: Clock) -> None:
    source = Source()
    await cache.get("k", source)
    clock.now = 3
    source.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.get, "k", source)
        await trio.testing.wait_all_tasks_blocked()
        assert await cache.get("k", source) == "a"
        source.gate.set()


async def test_when_the_asking_task_is_cancelled_the_next_one_asks(cache: ReadThrough[str, str]) -> None:
    source = Source()
    source.gate = trio.Event()
    got: list[str] = []

    async def ask() -> None:
        got.append(await cache.get("k", source))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        source.gate.set()
    assert got == ["a"]
    assert not cache._asking


async def test_the_least_recently_used_value_goes(cache: ReadThrough[str, str]) -> None:
    for key in "abc":
        cache.put(key, key)
    cache.peek("a")
    cache.put("d", "d")
    assert [cache.peek(key) for key in "abcd"] == ["a", None, "c", "d"]
    cache.forget("d")
    assert cache.peek("d") is None
