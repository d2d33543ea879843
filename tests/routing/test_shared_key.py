"""The cluster's key in Redis: one for all, put back when Redis has lost it, and no split outlasts the next look."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis as redis_py
import trio
import trio.testing

from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import RegistryUnavailable, Route
from connect_trio.routing.shared_key import ENTRY, INTERVAL, KeyUnusable, SharedKey, open_shared_key
from connect_trio.transport.keyring import RETIRED, Key
from tests.support.redis import RedisServer
from tests.support.trust import client, server

OTHER = "another-key-0123456789abcdef0123456789"
ROUTE = Route(session="23ce7967", slot=0, address="server:7777", connector="aa", epoch=3, since=1.5)
Clock = trio.testing.MockClock


class LossyStore(MemoryStore):
    """A store that may be away, or lose everything."""

    away = False

    async def agree(self, key: str, value: bytes) -> bytes:
        if self.away:
            await trio.lowlevel.checkpoint()
            raise RegistryUnavailable("away")
        return await super().agree(key, value)

    async def lose(self) -> None:
        await self.delete(ENTRY)

    async def text(self) -> str:
        return (await self.get(ENTRY) or b"").decode()


@asynccontextmanager
async def kept(*shared: SharedKey) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for each in shared:
            nursery.start_soon(each.keep)
        yield
        nursery.cancel_scope.cancel()


async def next_look() -> None:
    await trio.sleep(INTERVAL * 1.1)


def trust_each_other(one: SharedKey, two: SharedKey) -> bool:
    """Whether a link from `one` to `two`, and one back, would come about."""
    now = trio.current_time()
    for dialling, serving in ((one, two), (two, one)):
        left, right = client(dialling.keyring.keys(now)), server(serving.keyring.keys(now))
        try:
            right.receive(left.receive(right.receive(left.start())))
        except Exception:  # noqa: BLE001 - whatever the reason
            return False
    return True


async def test_who_comes_first_makes_the_key_and_all_have_it(autojump_clock: Clock) -> None:
    store = LossyStore()
    found = [await open_shared_key(store) for _ in range(3)]
    assert len({each.keyring.keys(0) for each in found}) == 1
    assert len(await store.text()) == 64
    assert (await open_shared_key(MemoryStore())).keyring.keys(0) != found[0].keyring.keys(0)


async def test_a_key_that_is_gone_is_put_back(autojump_clock: Clock) -> None:
    store = LossyStore()
    one, two = await open_shared_key(store), await open_shared_key(store)
    before, text = one.keyring.keys(0), await store.text()
    async with kept(one, two):
        await store.lose()
        await next_look()
        assert await store.text() == text
        late = await open_shared_key(store)
    assert one.keyring.keys(0) == two.keyring.keys(0) == late.keyring.keys(0) == before


async def test_a_process_that_comes_first_after_the_loss_splits_nobody_off(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = LossyStore()
    one, two = await open_shared_key(store), await open_shared_key(store)
    async with kept(one, two):
        await store.lose()
        late = await open_shared_key(store)
        assert not trust_each_other(one, late)
        assert trust_each_other(one, two)
        async with kept(late):
            await next_look()
            for left, right in ((one, late), (two, late), (one, two)):
                assert trust_each_other(left, right)
            await trio.sleep(RETIRED + INTERVAL)
            assert one.keyring.keys(trio.current_time()) == late.keyring.keys(trio.current_time())
    assert len([record for record in caplog.records if "is another one now" in record.message]) == 2


async def test_those_who_have_not_looked_yet_are_accepted_by_those_who_have(autojump_clock: Clock) -> None:
    store = LossyStore()
    one, two = await open_shared_key(store), await open_shared_key(store)
    await store.put(ENTRY, OTHER.encode(), ttl=3600)
    async with kept(one):
        await next_look()
    assert one.keyring.keys(trio.current_time())[0] == Key.of_text(OTHER)
    assert trust_each_other(one, two)


async def test_nothing_changes_while_the_store_is_away(autojump_clock: Clock) -> None:
    store = LossyStore()
    one = await open_shared_key(store)
    before, text = one.keyring.keys(0), await store.text()
    async with kept(one):
        store.away = True
        await next_look()
        await store.lose()
        store.away = False
        await next_look()
    assert one.keyring.keys(trio.current_time()) == before
    assert await store.text() == text


@pytest.mark.parametrize("value", [b"", b"too short", b"\xff" * 64, b"0" * 64])
async def test_what_is_no_key_is_named(autojump_clock: Clock, value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = LossyStore()
    running = await open_shared_key(store)
    before = running.keyring.keys(0)
    await store.put(ENTRY, value, ttl=3600)
    with pytest.raises(KeyUnusable, match=r"cluster-key.*cannot be used: .*; delete it") as caught:
        await open_shared_key(store)
    assert "\n" not in str(caught.value)
    async with kept(running):
        for _ in range(3):
            await next_look()
    assert running.keyring.keys(trio.current_time()) == before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_the_key_is_in_no_log(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = LossyStore()
    one = await open_shared_key(store)
    text = await store.text()
    async with kept(one):
        await store.put(ENTRY, OTHER.encode(), ttl=3600)
        await next_look()
        store.away = True
        await next_look()
    logged = str([vars(record) for record in caplog.records])
    assert text not in logged
    assert OTHER not in logged


@pytest.mark.redis
async def test_a_redis_that_was_restarted_empty_gets_the_key_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_trio.routing.shared_key.INTERVAL", 0.05)
    async with open_redis(address=redis_server.address) as redis:
        await redis.wait_ready(5)
        one, two = await open_shared_key(redis.store), await open_shared_key(redis.store)
        text = await redis.store.get(ENTRY)
        async with kept(one, two):
            redis_server.stop()
            redis_server.start()
            with trio.fail_after(10):
                while await _seen(redis_server) != text:
                    await trio.sleep(0.02)
        assert trust_each_other(one, await open_shared_key(redis.store))


async def _seen(redis_server: RedisServer) -> bytes | None:
    await trio.lowlevel.checkpoint()
    with redis_py.Redis(port=redis_server.port, single_connection_client=True) as client:
        value = client.get(f"connect:session:store:{ENTRY}")
        assert value is None or isinstance(value, bytes)
        assert client.pttl(f"connect:session:store:{ENTRY}") in (-1, -2), "it has no life-time"
        return value


@pytest.mark.redis
async def test_the_rights_that_are_documented_suffice(redis_server: RedisServer) -> None:
    with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
        rights = ("~connect:session:*", "+@connection", "+@read", "+@write", "+@scripting")
        admin.execute_command("ACL", "SETUSER", "connect", "on", ">geheim", *rights)
    async with open_redis(address=redis_server.address, user="connect", password="geheim") as redis:
        await redis.wait_ready(5)
        await redis.ping()
        await open_shared_key(redis.store)
        await redis.store.put("k", b"v", ttl=5)
        assert await redis.store.take("k") == b"v"
        assert await redis.registry.publish(ROUTE, ttl=5)
        assert list(await redis.registry.renew([ROUTE], ttl=5)) == []
        assert list(await redis.registry.find("23ce7967")) == [ROUTE]
        assert await redis.registry.withdraw(ROUTE)
