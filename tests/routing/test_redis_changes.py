"""Changes of routes are told over Redis; what is lost in between is owned up to."""

from __future__ import annotations

import logging

import pytest
import redis as redis_py
import trio

from connect_trio.routing import redis_changes
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.redis import Redis, open_redis
from connect_trio.routing.registry import RegistryUnavailable, Route
from tests.contract.test_changes_contract import Told, following
from tests.support.redis import RedisServer

pytestmark = pytest.mark.redis

ROUTE = Route(session="23ce7967", slot=0, address="server:7777", connector="aa", epoch=3, since=1.5)


async def publish(redis: Redis, route: Route = ROUTE) -> None:
    with trio.fail_after(20):
        while True:
            try:
                assert await redis.registry.publish(route, ttl=60)
            except RegistryUnavailable:
                await trio.sleep(0.02)
            else:
                return


async def test_after_each_lost_connection_everything_is_to_be_looked_at_anew(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis, following(redis.registry) as told:
        for _ in range(3):
            redis_server.stop()
            await trio.sleep(0.05)
            redis_server.start()
            await told.until(None)
            await publish(redis)
            await told.until("23ce7967")
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
            admin.client_kill_filter(_type="pubsub")
        await told.until(None)
        await publish(redis)
        await told.until("23ce7967")


async def test_a_redis_that_hangs_is_left_and_asked_anew(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_trio.routing.redis_client.PING_INTERVAL", 0.1)
    async with (
        open_redis(address=redis_server.address, command_timeout=0.2) as redis,
        following(redis.registry) as told,
    ):
        redis_server.freeze()
        try:
            await trio.sleep(1)
        finally:
            redis_server.thaw()
        await told.until(None)
        await publish(redis)
        await told.until("23ce7967")


async def test_following_begins_when_redis_is_there(redis_server: RedisServer) -> None:
    redis_server.stop()
    async with open_redis(address=redis_server.address) as redis, trio.open_nursery() as nursery:
        told = Told()
        nursery.start_soon(redis.registry.changes, told.append)
        await trio.sleep(0.3)
        assert not told
        redis_server.start()
        await told.until(None)
        nursery.cancel_scope.cancel()


async def test_a_change_that_happened_during_a_lost_connection_is_found(redis_server: RedisServer) -> None:
    moved = Route(session="23ce7967", slot=0, address="elsewhere:1", connector="bb", epoch=4, since=1.5)
    async with open_redis(address=redis_server.address) as ours, open_redis(address=redis_server.address) as theirs:
        cache = CachedRegistry(ours.registry, fresh=1000)
        async with following(cache) as told:
            await publish(theirs)
            await told.until("23ce7967")
            assert list(await cache.find("23ce7967")) == [ROUTE]
            with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
                admin.client_kill_filter(_type="pubsub")
                admin.set("connect:session:23ce7967:0", b"{}")  # unseen, as in the gap
            await publish(theirs, moved)
            with trio.fail_after(10):
                while None not in told:
                    await trio.sleep(0.01)
            assert list(await cache.find("23ce7967")) == [moved]


async def test_what_others_say_on_the_channel_is_passed_over(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address, prefix="p:q") as redis, following(redis.registry) as told:
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as client:
            for foreign in (b"", b"\xff\xfe", b"a b", b"x" * 100_000):
                client.publish("p:q:changes", foreign)
            client.publish("connect:session:changes", b"00000000")
        await publish(redis)
        await told.until("23ce7967")


async def test_a_user_without_channels_keeps_routes_and_is_told_once_that_nobody_hears_of_changes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_changes, "SUBSCRIBE_TIMEOUT", 0.2)
    monkeypatch.setattr(redis_changes, "REFUSED_REST", 0.1)
    caplog.set_level(logging.WARNING)
    with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
        admin.acl_setuser("limited", enabled=True, passwords=["+pw"], keys="*", commands=["+@all"], reset_channels=True)
        async with (
            open_redis(address=redis_server.address, user="limited", password="pw") as redis,
            trio.open_nursery() as nursery,
        ):
            told = Told()
            nursery.start_soon(redis.registry.changes, told.append)
            await publish(redis)
            assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
            assert list(await redis.registry.find("23ce7967")) == [ROUTE]
            assert await redis.registry.withdraw(ROUTE)
            await trio.sleep(1)
            assert not told
            assert [record.message for record in caplog.records].count(
                "Redis does not let us subscribe to changes"
            ) == 1
            admin.execute_command("ACL", "SETUSER", "limited", "&connect:session:*")
            await told.until(None)
            nursery.cancel_scope.cancel()


async def test_the_connection_for_changes_is_there_only_while_somebody_follows(redis_server: RedisServer) -> None:
    def subscribers() -> list[object]:
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as client:
            found = client.client_list(_type="pubsub")
            assert isinstance(found, list)
            return found

    async with open_redis(address=redis_server.address) as redis:
        await redis.ping()
        assert subscribers() == []
        async with following(redis.registry):
            assert len(subscribers()) == 1
        with trio.fail_after(5):
            while subscribers():
                await trio.sleep(0.01)
        await redis.ping()
