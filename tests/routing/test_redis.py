"""Redis goes away, hangs, refuses and comes back; the context and its callers survive it."""

from __future__ import annotations

import json

import attrs
import pytest
import redis as redis_py
import trio

from connect_trio.routing.redis import Redis, TlsFiles, open_redis
from connect_trio.routing.registry import RegistryUnavailable, Route, epoch_of
from tests.support.redis import RedisServer
from tests.support.routes import ROUTE, calls, until_it_works

pytestmark = pytest.mark.redis


def is_healthy(redis: Redis) -> bool:
    return redis.healthy


async def assert_unavailable(redis: Redis, match: str) -> None:
    for call in calls(redis):
        with pytest.raises(RegistryUnavailable, match=match):
            await call()


async def test_every_call_fails_clearly_while_redis_is_away_and_works_when_it_is_back(
    redis_server: RedisServer,
) -> None:
    async with open_redis(address=redis_server.address) as redis:
        await redis.wait_ready(5)
        assert await redis.registry.publish(ROUTE, ttl=60)
        for _ in range(3):
            redis_server.stop()
            await assert_unavailable(redis, redis_server.address)
            assert not is_healthy(redis)
            redis_server.start()
            await until_it_works(redis)
            assert is_healthy(redis)
            assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
            assert list(await redis.registry.find("23ce7967")) == [ROUTE]


async def test_opening_without_redis_works_once_redis_is_there(redis_server: RedisServer) -> None:
    redis_server.stop()
    async with open_redis(address=redis_server.address) as redis:
        with pytest.raises(
            RegistryUnavailable, match=rf"^cannot connect to Redis at {redis_server.address}: \w.*refused"
        ):
            await redis.wait_ready(0.2)
        await assert_unavailable(redis, "refused")
        redis_server.start()
        await redis.wait_ready(20)
        await redis.ping()


async def test_a_call_waits_for_the_first_connection(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:
        await redis.ping()


async def test_a_hanging_redis_fails_calls_in_time_and_is_left(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address, command_timeout=0.2) as redis:
        await redis.wait_ready(5)
        redis_server.freeze()
        try:
            await assert_unavailable(redis, "did not answer|lost|failed")
        finally:
            redis_server.thaw()
        await until_it_works(redis)


async def test_a_connection_that_redis_ends_is_made_again(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:
        await redis.ping()
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        await until_it_works(redis)


async def test_hundreds_of_cancelled_calls_leave_the_connection_usable(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:
        await redis.wait_ready(5)
        for delay in range(5):
            async with trio.open_nursery() as nursery:
                for call in calls(redis) * 20:
                    nursery.start_soon(call)
                for _ in range(delay):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await redis.store.put("k", b"right answer", ttl=60)
        assert await redis.store.get("k") == b"right answer"


async def test_many_concurrent_calls_get_their_own_answers(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:

        async def there_and_back(number: int) -> None:
            value = str(number).encode() * 100
            await redis.store.put(f"k{number}", value, ttl=60)
            assert await redis.store.take(f"k{number}") == value

        async with trio.open_nursery() as nursery:
            for number in range(1500):
                nursery.start_soon(there_and_back, number)


async def test_leaving_the_block_is_quick_while_redis_is_away_or_hangs(redis_server: RedisServer) -> None:
    with trio.fail_after(5):
        redis_server.freeze()
        async with open_redis(address=redis_server.address):
            await trio.sleep(0.05)
        redis_server.thaw()
        redis_server.stop()
        async with open_redis(address=redis_server.address):
            await trio.sleep(0.05)


async def test_an_error_in_the_block_leaves_it_unwrapped(redis_server: RedisServer) -> None:
    async def fail() -> None:
        async with open_redis(address=redis_server.address) as redis:
            await redis.ping()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    with trio.CancelScope() as scope:
        async with open_redis(address=redis_server.address) as redis:
            await redis.ping()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_wrong_password_is_named(redis_server: RedisServer) -> None:
    with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
        admin.config_set("requirepass", "right")
    async with open_redis(address=redis_server.address, password="wrong") as redis:
        with pytest.raises(RegistryUnavailable, match=r"(?i)username-password pair"):
            await redis.wait_ready(0.3)
    async with open_redis(address=redis_server.address, password="right") as redis:
        await redis.ping()


async def test_a_refused_command_is_told_and_the_connection_stays(redis_server: RedisServer) -> None:
    with redis_py.Redis(port=redis_server.port, single_connection_client=True) as admin:
        admin.acl_setuser("limited", enabled=True, passwords=["+pw"], keys="*", commands=["+ping", "+hello", "+client"])
    async with open_redis(address=redis_server.address, user="limited", password="pw") as redis:
        await redis.ping()
        with pytest.raises(RegistryUnavailable, match=r"refused a command: .*permissions"):
            await redis.registry.find("23ce7967")
        with pytest.raises(RegistryUnavailable, match=r"refused a command: .*permissions"):
            await redis.registry.publish(ROUTE, ttl=60)
        assert redis.healthy


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff" * 500, b"$99999999999\r\n", b""])
async def test_something_else_at_the_address_is_one_clear_line(garbage: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(garbage)
        if garbage:
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(answer, 0, host="127.0.0.1", task_status=task_status)
        )
        port = listeners[0].socket.getsockname()[1]
        async with open_redis(address=f"127.0.0.1:{port}", command_timeout=0.3) as redis:
            with pytest.raises(RegistryUnavailable, match=f"127.0.0.1:{port}") as caught:
                await redis.wait_ready(0.3)
            assert "\n" not in str(caught.value)
            with pytest.raises(RegistryUnavailable):
                await redis.registry.find("23ce7967")
        nursery.cancel_scope.cancel()


async def test_tls_to_a_redis_without_tls_is_one_clear_line(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address, tls=TlsFiles(verify=False)) as redis:
        with pytest.raises(RegistryUnavailable, match=f"^Redis at {redis_server.address} did not answer within 0.3 s$"):
            await redis.wait_ready(0.3)


async def test_keys_and_values_are_where_the_documentation_says(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address, prefix="p:q", db=3) as redis:
        for connector, epoch in (("cc", 1), ("bb", 2)):
            await redis.registry.publish(attrs.evolve(ROUTE, connector=connector, epoch=epoch), ttl=60)
        await redis.registry.publish(ROUTE, ttl=60)
        await redis.store.put("k", b"v", ttl=60)
    with redis_py.Redis(port=redis_server.port, db=3, single_connection_client=True) as client:
        keys = client.keys()
        assert isinstance(keys, list)
        assert sorted(keys) == [b"p:q:23ce7967:0", b"p:q:23ce7967:0:former", b"p:q:23ce7967:0:mark", b"p:q:store:k"]
        assert (
            client.get("p:q:23ce7967:0")
            == client.get("p:q:23ce7967:0:mark")
            == (
                b'{"session":"23ce7967","slot":0,"address":"server:7777","connector":"aa","epoch":3,"since":1.5,'
                b'"instance":""}'
            )
        )
        assert client.get("p:q:23ce7967:0:former") == b"2:bb:1.5,1:cc:1.5"
        for key in keys:
            left, least, most = client.pttl(key), 0, 60_000
            if key.endswith((b":mark", b":former")):
                least, most = 590_000, 600_000
            assert isinstance(left, int)
            assert least < left <= most


async def test_what_a_place_remembers_lives_on_with_the_lease_and_goes_when_it_is_withdrawn(
    redis_server: RedisServer,
) -> None:
    async with open_redis(address=redis_server.address) as redis:
        with redis_server.admin() as admin:
            await redis.registry.publish(attrs.evolve(ROUTE, connector="bb", epoch=2), ttl=60)
            await redis.registry.publish(ROUTE, ttl=60)
            mark, former = "connect:session:23ce7967:0:mark", "connect:session:23ce7967:0:former"
            admin.pexpire(mark, 5000)
            admin.pexpire(former, 5000)
            assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
            assert admin.pttl(mark) > 590_000
            assert admin.pttl(former) <= 5000, "who was displaced long ago has heard of it"
            await redis.registry.withdraw(ROUTE)
            assert admin.keys() == [former.encode()]
            await redis.registry.withdraw(attrs.evolve(ROUTE, connector="bb", epoch=2))
            assert admin.keys() == []


async def test_leases_of_servers_that_remember_nothing_are_dealt_with(redis_server: RedisServer) -> None:
    """As while servers of an older release run beside newer ones."""
    older = attrs.evolve(ROUTE, connector="bb", epoch=epoch_of(1, 1))
    newer = attrs.evolve(ROUTE, connector="cc", epoch=epoch_of(1, 2))
    async with open_redis(address=redis_server.address) as redis:
        with redis_server.admin() as admin:

            def written_by_an_older_release(route: Route) -> None:
                text = json.dumps(attrs.asdict(route), separators=(",", ":"))
                admin.set("connect:session:23ce7967:0", text, px=60_000)

            written_by_an_older_release(older)
            assert list(await redis.registry.find(ROUTE.session)) == [older]
            assert await redis.registry.publish(newer, ttl=60)
            assert await redis.registry.withdraw(newer)
            assert not await redis.registry.publish(attrs.evolve(older, epoch=epoch_of(1, 0), connector="dd"), ttl=60)
            written_by_an_older_release(older)
            assert list(await redis.registry.renew([newer], ttl=60)) == []
            written_by_an_older_release(attrs.evolve(newer, connector="ee", epoch=epoch_of(1, 3)))
            assert list(await redis.registry.renew([newer], ttl=60)) == [newer]


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"epoch":"x"}',
        b'{"epoch":1e3}',
        b'{"session":"00000000","slot":0,"address":"a:1","connector":"a","epoch":1,"since":1}',
        b'{"session":"23ce7967","slot":0,"address":7,"connector":"a","epoch":1,"since":1}',
        b'{"session":"23ce7967","slot":0,"address":"a:1","connector":"a","epoch":1,"since":1,"instance":1}',
    ],
)
async def test_a_foreign_value_is_no_route_and_gives_way(redis_server: RedisServer, foreign: bytes) -> None:
    async with open_redis(address=redis_server.address) as redis:
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as client:
            client.set("connect:session:23ce7967:0", foreign)
        assert list(await redis.registry.find("23ce7967")) == []
        assert await redis.registry.publish(ROUTE, ttl=60)
        assert list(await redis.registry.find("23ce7967")) == [ROUTE]


async def test_scripts_are_sent_again_when_redis_forgot_them(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:
        assert await redis.registry.publish(ROUTE, ttl=60)
        with redis_py.Redis(port=redis_server.port, single_connection_client=True) as client:
            client.script_flush()
        assert await redis.registry.publish(ROUTE, ttl=60)


async def test_a_key_of_another_type_is_no_route_and_gives_way(redis_server: RedisServer) -> None:
    async with open_redis(address=redis_server.address) as redis:
        with redis_server.admin() as admin:
            admin.rpush("connect:session:23ce7967:0", "a list")
        assert list(await redis.registry.find("23ce7967")) == []
        assert not await redis.registry.withdraw(ROUTE)
        assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
        assert list(await redis.registry.find("23ce7967")) == [ROUTE]
