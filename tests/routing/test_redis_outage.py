"""Redis fails in every way that docs/operations.md names: what callers get, and one line at either end of it."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from connect_trio import logs
from connect_trio.routing import redis_client
from connect_trio.routing.redis import Redis, TlsFiles, open_redis
from connect_trio.routing.redis_outage import OutageLog
from connect_trio.routing.registry import RegistryUnavailable
from connect_trio.sessions import RENEW
from tests.support.redis import ACL_PASSWORD, RedisServer, execute, tls_options
from tests.support.redis_certificates import Authority
from tests.support.routes import ROUTE, calls, until_it_works, use_everything

pytestmark = pytest.mark.redis

FILLER = 200_000


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO, "connect_trio.routing")
    return Told(caplog)


class Told:
    """What operators are told about Redis, by default."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno >= logging.INFO]

    async def until(self, count: int) -> list[str]:
        """The lines, once there are as many."""
        with trio.fail_after(20):
            while len(self.lines) < count:
                await trio.sleep(0.02)
        return self.lines


@asynccontextmanager
async def connected(server: RedisServer, **options: object) -> AsyncIterator[Redis]:
    async with open_redis(address=server.address, **options) as redis:  # type: ignore[arg-type]
        await redis.wait_ready(5)
        yield redis


async def fail_for(redis: Redis, seconds: float) -> str:
    """Call and call again while Redis is away, as many callers do; what the last one was told."""
    said = ""
    with trio.move_on_after(seconds):
        while True:
            for call in calls(redis):
                with pytest.raises(RegistryUnavailable) as caught:
                    await call()
                said = str(caught.value)
            await trio.sleep(0.02)
    return said


async def test_killed_under_load_is_one_line_and_one_when_it_is_back(redis_server: RedisServer, told: Told) -> None:
    async with connected(redis_server) as redis:
        redis_server.stop()
        assert "refused" in await fail_for(redis, 1.5)
        redis_server.start()
        await until_it_works(redis, within=5)
        lines = await told.until(3)
    address = redis_server.address
    assert lines[0] == f"connected to Redis at {address}"
    assert lines[1].startswith("Redis is away: ")
    assert lines[2:] == [f"Redis at {address} is back"]


async def pause_process(server: RedisServer) -> AsyncIterator[None]:
    server.freeze()
    yield
    server.thaw()


async def pause_clients(server: RedisServer) -> AsyncIterator[None]:
    with server.admin() as admin:
        execute(admin, "CLIENT", "PAUSE", 1500, "ALL")
    yield
    await trio.sleep(1.5)


async def sleep_in_redis(server: RedisServer) -> AsyncIterator[None]:
    def sleep() -> None:
        with server.admin() as admin:
            execute(admin, "DEBUG", "SLEEP", "1.5")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, sleep)
        await trio.sleep(0.2)
        yield


@pytest.mark.parametrize("pause", [pause_process, pause_clients, sleep_in_redis])
async def test_a_pause_is_one_line_and_one_when_it_is_over(pause: object, tmp_path: Path, told: Told) -> None:
    server = RedisServer(tmp_path, options=("--enable-debug-command", "yes"))
    server.start()
    try:
        async with connected(server, command_timeout=0.2) as redis:
            assert callable(pause)
            async with asynccontextmanager(pause)(server):
                await fail_for(redis, 1.0)
            await until_it_works(redis, within=5)
            lines = await told.until(3)
            await use_everything(redis)
        assert lines[1].startswith("Redis is away: ")
        assert "did not answer" in lines[1]
        assert lines[2:] == [f"Redis at {server.address} is back"]
    finally:
        server.stop()


async def test_a_pause_shorter_than_the_time_out_is_no_outage(redis_server: RedisServer, told: Told) -> None:
    async with connected(redis_server) as redis:
        with redis_server.admin() as admin:
            execute(admin, "CLIENT", "PAUSE", 300, "ALL")
        await use_everything(redis)
    assert told.lines == [f"connected to Redis at {redis_server.address}"]


async def test_what_comes_back_empty_gets_its_routes_from_the_next_renewal(redis_server: RedisServer) -> None:
    async with connected(redis_server) as redis:
        await redis.registry.publish(ROUTE, ttl=60)
        redis_server.stop()
        redis_server.start()
        await until_it_works(redis, within=5)
        assert list(await redis.registry.find(ROUTE.session)) == []
        assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
        assert list(await redis.registry.find(ROUTE.session)) == [ROUTE]
    assert RENEW + 1 + 3 < 10, "renewal, retry and reconnection fit into the 10 s that are promised"


async def test_a_password_that_changes_is_asked_for_at_the_next_connection(
    redis_server: RedisServer, told: Told
) -> None:
    with redis_server.admin() as admin:
        admin.config_set("requirepass", "first password")
    async with connected(redis_server, password="first password") as redis:
        with redis_server.admin(password="first password") as admin:
            admin.config_set("requirepass", "second password")
        await use_everything(redis)
        with redis_server.admin(password="second password") as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
            with trio.fail_after(5):
                while redis.healthy:
                    await trio.sleep(0.01)
            assert "invalid username-password pair" in await fail_for(redis, 0.5)
            admin.config_set("requirepass", "first password")
        await until_it_works(redis, within=5)
        lines = await told.until(3)
    assert lines[1].endswith(f"{redis_server.address}: invalid username-password pair or user is disabled.")
    assert lines[2:] == [f"Redis at {redis_server.address} is back"]


async def test_a_second_password_lets_everybody_change_in_turn(redis_server: RedisServer, told: Told) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER connect on >old ~* +@all")
        async with connected(redis_server, user="connect", password="old") as before:
            execute(admin, "ACL SETUSER connect >new")
            async with connected(redis_server, user="connect", password="new") as after:
                await use_everything(before)
                execute(admin, "ACL SETUSER connect <old")
                await use_everything(before)
                await use_everything(after)
    assert not [line for line in told.lines if "away" in line]


async def test_a_user_that_is_deleted_is_turned_away_and_let_in_again(redis_server: RedisServer, told: Told) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER connect on >old ~* +@all")
        async with connected(redis_server, user="connect", password="old") as redis:
            execute(admin, "ACL DELUSER connect")
            with trio.fail_after(5):
                while redis.healthy:
                    await trio.sleep(0.01)
            assert "invalid username-password pair" in await fail_for(redis, 0.3)
            execute(admin, "ACL SETUSER connect on >old ~* +@all")
            await until_it_works(redis, within=5)
            assert len(await told.until(3)) == 3


async def test_a_command_that_is_denied_is_told_once_until_it_is_allowed(redis_server: RedisServer, told: Told) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER connect on >old ~* +@all -mget")
        async with connected(redis_server, user="connect", password="old") as redis:
            for _ in range(5):
                with pytest.raises(RegistryUnavailable, match=r"refused a command: .*mget"):
                    await redis.registry.find("23ce7967")
                await redis.ping()
            assert redis.healthy
            execute(admin, "ACL SETUSER connect +mget")
            await use_everything(redis)
    assert len(told.lines) == 3
    assert told.lines[1].startswith("Redis refuses to find routes: ")
    assert told.lines[2] == "Redis accepts commands again"


async def test_with_no_memory_left_known_routes_stay_and_new_ones_are_refused(
    redis_server: RedisServer, told: Told
) -> None:
    other = attrs.evolve(ROUTE, session="00000001")
    async with connected(redis_server) as redis:
        await redis.registry.publish(ROUTE, ttl=0.5)
        await redis.store.put("login", b"v", ttl=60)
        with redis_server.admin() as admin:
            admin.set("somebody:else", bytes(FILLER))
            admin.config_set("maxmemory-policy", "noeviction")
            admin.config_set("maxmemory", 1)
            for _ in range(3):
                for call in (
                    lambda: redis.registry.publish(other, ttl=60),
                    lambda: redis.registry.renew([other], ttl=60),
                    lambda: redis.store.put("k", b"v", ttl=60),
                ):
                    with pytest.raises(RegistryUnavailable, match="refused a command: OOM"):
                        await call()
            assert list(await redis.registry.renew([ROUTE], ttl=60)) == []
            left = admin.pttl(f"connect:session:{ROUTE.session}:0")
            assert isinstance(left, int)
            assert left > 1000, "a lease is renewed without any memory"
            assert list(await redis.registry.find(ROUTE.session)) == [ROUTE]
            assert await redis.store.get("login") == b"v"
            assert await redis.store.take("login") == b"v"
            assert redis.healthy
            admin.config_set("maxmemory", 0)
            await redis.registry.publish(other, ttl=60)
            await redis.store.put("k", b"v", ttl=60)
            await redis.registry.renew([other], ttl=60)
    assert told.lines[1].startswith("Redis refuses to publish a route: OOM ")
    assert told.lines[2:] == ["Redis accepts commands again"]


async def test_the_end_of_a_refusal_is_told_though_nobody_asks_again(
    redis_server: RedisServer, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "PING_INTERVAL", 0.05)
    async with connected(redis_server, prefix="p") as redis:
        with redis_server.admin() as admin:
            admin.set("somebody:else", bytes(FILLER))
            admin.config_set("maxmemory", 1)
            for call in (lambda: redis.registry.publish(ROUTE, ttl=60), lambda: redis.store.put("k", b"v", ttl=60)):
                with pytest.raises(RegistryUnavailable, match="refused a command: OOM"):
                    await call()
            await trio.sleep(0.3)
            assert len(told.lines) == 2
            admin.config_set("maxmemory", 0)
            assert (await told.until(3))[2] == "Redis accepts commands again"
            assert admin.pttl("p:probe") != -1, "what it tries that with does not stay"


async def test_a_permission_that_is_missing_is_not_over_because_something_else_works(
    redis_server: RedisServer, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "PING_INTERVAL", 0.05)
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER", "connect", "on", ">old", "~*", "+@all", "-mget")
    async with connected(redis_server, user="connect", password="old") as redis:
        with pytest.raises(RegistryUnavailable, match=r"refused a command: .*mget"):
            await redis.registry.find("23ce7967")
        await trio.sleep(0.3)
        assert len(told.lines) == 2


async def test_a_disk_that_is_full_refuses_writes_and_is_told_once(redis_server: RedisServer, told: Told) -> None:
    async with connected(redis_server) as redis:
        await redis.registry.publish(ROUTE, ttl=60)
        with redis_server.admin() as admin:
            admin.config_set("min-replicas-to-write", 1)  # refuses writes as MISCONF does, without breaking a disk
            for _ in range(3):
                with pytest.raises(RegistryUnavailable, match="refused a command: NOREPLICAS"):
                    await redis.store.put("k", b"v", ttl=60)
            assert list(await redis.registry.find(ROUTE.session)) == [ROUTE]
            admin.config_set("min-replicas-to-write", 0)
            await redis.store.put("k", b"v", ttl=60)
    assert len(told.lines) == 3


async def test_a_wrong_certificate_turns_away_only_new_connections(
    authority: Authority, client_files: TlsFiles, tmp_path: Path, told: Told
) -> None:
    good, wrong = authority.issue("redis"), authority.issue("wrong", host="elsewhere")
    server = RedisServer(tmp_path, tls=True, options=tls_options(authority, good))
    server.start()
    try:
        async with connected(server, tls=client_files) as redis:
            server.stop()
            server.start(*tls_options(authority, wrong))
            assert "certificate verify failed" in await fail_for(redis, 1.0)
            server.stop()
            server.start()
            await until_it_works(redis, within=5)
            assert len(await told.until(3)) == 3
    finally:
        server.stop()


async def test_no_secret_is_in_any_log_or_error(redis_server: RedisServer) -> None:
    """At DEBUG, with all that an error drags along; also where what answers repeats what it was sent."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("DEBUG", role="test", stream=stream)  # no list of secrets that would mask them
    try:
        chains = [await trouble_with(redis_server.address), await trouble_of_a_parrot()]
    finally:
        root.handlers, root.level = before[0], before[1]
    assert ACL_PASSWORD not in stream.getvalue() + "".join(chains)
    assert "Redis is away" in stream.getvalue()
    assert "***" in chains[1]


async def trouble_with(address: str) -> str:
    async with open_redis(address=address, user="nobody", password=ACL_PASSWORD) as redis:
        return await chain_of(redis)


async def trouble_of_a_parrot() -> str:
    """Not a Redis: it repeats its input in an error, as an old Redis does with a command that it does not know."""

    async def answer(stream: trio.SocketStream) -> None:
        words = (await stream.receive_some(1000)).split(b"\r\n")[2::2]
        await stream.send_all(b"-ERR unknown command, with args beginning with: " + b" ".join(words) + b"\r\n")
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(answer, 0, host="127.0.0.1", task_status=task_status)
        )
        port = listeners[0].socket.getsockname()[1]
        try:
            return await trouble_with(f"127.0.0.1:{port}")
        finally:
            nursery.cancel_scope.cancel()


async def chain_of(redis: Redis) -> str:
    """An error of a call and all that it came from."""
    said = repr(redis)
    with pytest.raises(RegistryUnavailable) as caught:
        await redis.wait_ready(1)
    errors: list[BaseException | None] = [caught.value]
    with pytest.raises(RegistryUnavailable) as caught:
        await redis.ping()
    errors.append(caught.value)
    for error in errors:
        while error is not None:
            said += repr(error)
            error = error.__cause__ or error.__context__
    return said


async def test_a_connection_that_does_not_last_ends_no_outage(
    autojump_clock: trio.testing.MockClock, told: Told
) -> None:
    """What goes up and down every moment is one outage, not hundreds of lines."""
    outages = OutageLog()
    for _ in range(100):
        outages.away("cannot connect to Redis at a:1: no")
        outages.connected("a:1")
        await trio.sleep(0.1)
    outages.back()
    outages.back()
    assert told.lines == ["Redis is away: cannot connect to Redis at a:1: no", "Redis at a:1 is back"]
