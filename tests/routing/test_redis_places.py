"""Several addresses and sentinels: the primary is found, and found again when it is another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.routing import redis_client
from connect_trio.routing.names import split_address
from connect_trio.routing.redis import Redis, open_redis
from connect_trio.routing.redis_places import NotUsable, Places, _primary_in
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.redis import RedisServer, execute
from tests.support.routes import ROUTE, until_it_works, use_everything
from tests.support.sentinels import NAME, watched
from tests.support.tools import dead_port

Start = Callable[..., RedisServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a redis-server with these options."""
    with ExitStack() as stack:

        def start(*options: str, sentinel: str | None = None) -> RedisServer:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            server = RedisServer(folder, options=options, sentinel=sentinel is not None)
            if sentinel is not None:
                server.write_configuration(*sentinel.splitlines())
            server.start()
            stack.callback(server.stop)
            return server

        yield start


async def used(redis: Redis, *servers: RedisServer) -> list[int]:
    """Ports of those that hold what is written now."""
    await redis.store.put("here", b"v", ttl=60)
    found = []
    for server in servers:
        with server.admin() as admin:
            found += [server.port] if admin.role()[0] == b"master" and admin.dbsize() else []
    return found


def replica_of(server: RedisServer) -> tuple[str, str]:
    return "--replicaof", f"127.0.0.1 {server.port}"


async def assert_trouble(address: str, match: str, **options: str) -> None:
    async with open_redis(address=address, sentinel=options.get("sentinel")) as redis:
        with pytest.raises(RegistryUnavailable, match=match) as caught:
            await redis.ping()
        assert "\n" not in str(caught.value)


@pytest.mark.redis
async def test_the_first_address_that_is_a_primary_is_used(start: Start) -> None:
    primary = start()
    replica, later = start(*replica_of(primary)), start()
    addresses = [f"127.0.0.1:{dead_port()}", replica.address, primary.address, later.address]
    async with open_redis(address=", ".join(addresses)) as redis:
        await use_everything(redis)
        assert await used(redis, primary, later) == [primary.port]


@pytest.mark.redis
async def test_without_a_primary_each_address_is_named_with_its_trouble(start: Start) -> None:
    primary = start()
    replica = start(*replica_of(primary))
    dead = f"127.0.0.1:{dead_port()}"
    line = f"^cannot connect to Redis at {dead}: Connection refused; at {replica.address}: it is a replica$"
    await assert_trouble(f"{dead},{replica.address}", line)


@pytest.mark.redis
async def test_a_primary_that_is_demoted_is_left_for_the_one_that_is_promoted(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = start()
    other = start(*replica_of(one))
    async with open_redis(address=f"{one.address},{other.address}") as redis:
        await use_everything(redis)
        with one.admin() as admin, other.admin() as other_admin:
            other_admin.replicaof("NO", "ONE")
            admin.replicaof("127.0.0.1", other.port)
        with pytest.raises(RegistryUnavailable, match="refused a command"):
            await redis.registry.publish(ROUTE, ttl=60)
        await until_it_works(redis)
        await use_everything(redis)
        assert await used(redis, one, other) == [other.port]
        with trio.fail_after(5):
            while f"Redis at {other.address} is back" not in caplog.messages:
                await trio.sleep(0.02)
    assert f"Redis is away: Redis at {one.address} is a replica now" in caplog.messages


@pytest.mark.redis
async def test_what_is_no_single_redis_is_named(start: Start) -> None:
    sentinel = start(sentinel="")
    await assert_trouble(sentinel.address, f"at {sentinel.address}: it is a sentinel, and no name of a primary")
    # Its own port for the bus: otherwise that is 10,000 higher, which may be too much.
    cluster = start("--cluster-enabled", "yes", "--cluster-port", str(dead_port()))
    await assert_trouble(
        cluster.address, f"at {cluster.address}: it is part of a Redis Cluster, which is not supported"
    )


@pytest.mark.redis
async def test_sentinels_that_are_away_or_do_not_know_the_name_are_named(start: Start) -> None:
    primary = start()
    sentinel = start(sentinel=f"sentinel monitor other 127.0.0.1 {primary.port} 1")
    dead = f"127.0.0.1:{dead_port()}"
    reasons = [f"{dead}: Connection refused", f"{sentinel.address}: it knows no primary of this name"]
    line = rf"^no sentinel knows where {NAME} is \({'; '.join(reasons)}\)$"
    await assert_trouble(f"{dead},{sentinel.address}", line, sentinel=NAME)
    line = rf"^no sentinel knows where {NAME} is \({primary.address}: .*unknown command"
    await assert_trouble(primary.address, "(?i)" + line, sentinel=NAME)


@pytest.mark.redis
async def test_a_sentinel_that_hangs_is_passed_over(start: Start) -> None:
    primary = start()
    monitor = f"sentinel monitor {NAME} 127.0.0.1 {primary.port} 1"
    hanging, fine = start(sentinel=monitor), start(sentinel=monitor)
    hanging.freeze()
    try:
        async with open_redis(address=f"{hanging.address},{fine.address}", sentinel=NAME) as redis:
            await redis.wait_ready(5)
            await use_everything(redis)
    finally:
        hanging.thaw()


@pytest.mark.redis
async def test_sentinels_have_a_password_of_their_own(start: Start) -> None:
    primary = start("--requirepass", "of redis")
    sentinel = start(sentinel=f"requirepass ofsentinels\nsentinel monitor {NAME} 127.0.0.1 {primary.port} 1")
    async with open_redis(
        address=sentinel.address, sentinel=NAME, password="of redis", sentinel_password="ofsentinels"
    ) as redis:
        await use_everything(redis)
    async with open_redis(address=sentinel.address, sentinel=NAME, sentinel_password="wrong") as redis:
        with pytest.raises(RegistryUnavailable, match=r"no sentinel knows .*invalid username-password") as caught:
            await redis.ping()
        assert "wrong" not in str(caught.value)


@pytest.mark.redis
async def test_a_primary_that_sentinels_have_given_up_is_left(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it is cut off from them but not from us: our connection would last for ever."""
    monkeypatch.setattr(redis_client, "PING_INTERVAL", 0.05)
    one, other = start(), start()
    sentinel = start(sentinel=f"sentinel monitor {NAME} 127.0.0.1 {one.port} 1")
    async with open_redis(address=sentinel.address, sentinel=NAME) as redis:
        await use_everything(redis)
        with sentinel.admin() as admin:
            execute(admin, "SENTINEL REMOVE", NAME)
            await trio.sleep(0.3)
            await use_everything(redis)  # sentinels that know nothing take no Redis from us
            execute(admin, "SENTINEL MONITOR", NAME, "127.0.0.1", other.port, 1)
        with trio.fail_after(10):
            while True:
                await until_it_works(redis)
                try:
                    if await used(redis, other):
                        break
                except RegistryUnavailable:
                    continue
        await use_everything(redis)


@pytest.mark.redis
@pytest.mark.parametrize("fault", ["killed", "hangs"])
async def test_a_failover_is_followed(tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "connect_trio.routing")
    with watched(tmp_path) as world:
        primary, replica = world.servers
        await world.until_replicated()
        async with open_redis(address=world.addresses, sentinel=NAME, command_timeout=0.5) as redis:
            await use_everything(redis)
            if fault == "killed":
                primary.stop()
            else:
                primary.freeze()
            world.sentinels.pop().stop()
            await world.until(replica.port)
            await until_it_works(redis, within=5)
            await use_everything(redis)
            if fault == "killed":
                primary.start(*replica_of(replica))
            else:
                primary.thaw()
            assert await used(redis, replica) == [replica.port]
            with trio.fail_after(5):
                while f"Redis at {replica.address} is back" not in caplog.messages:
                    await trio.sleep(0.02)
    assert len(caplog.messages) == 3, "connected; away; back"


@given(st.recursive(st.none() | st.binary() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_an_answer_of_a_sentinel_is_an_address_or_refused(answer: object) -> None:
    try:
        address = _primary_in(answer)
    except NotUsable:
        return
    split_address(address)


@given(st.binary(max_size=20), st.integers(-1, 70_000))
def test_a_host_and_port_of_a_sentinel_are_judged(host: bytes, port: int) -> None:
    try:
        address = _primary_in([host, str(port).encode()])
    except NotUsable:
        return
    assert split_address(address) == (host.decode().strip("[]"), port)


def test_an_answer_of_a_sentinel_becomes_an_address() -> None:
    assert _primary_in([b"10.0.0.7", b"6379"]) == "10.0.0.7:6379"
    assert _primary_in([b"::1", b"6379"]) == "[::1]:6379"
    assert _primary_in([b"redis.example", b"1"]) == "redis.example:1"


@pytest.mark.parametrize("addresses", [[], [""], ["redis"], ["redis:6379", ""], ["redis:0"], ["a:1", "b:x"]])
def test_an_address_that_is_none_is_refused_at_once(addresses: list[str]) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        Places(addresses)
