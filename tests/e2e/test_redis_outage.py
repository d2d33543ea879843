"""Redis fails while people work: known sessions go on, new ones get a clear page, and all is well soon after.

What each process logs is looked at, too: a line when an outage begins, and one when it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest

from tests.support.e2e import FULL, PATIENCE, DevStack, dev_stack, wait_until
from tests.support.redis import RedisServer
from tests.support.survival import TOOL, load
from tests.support.visits import Answer, Visitor

pytestmark = pytest.mark.redis

OUTAGE = 60.0 if FULL else 4.0
SHORTAGE = 60.0 if FULL else 6.0
"""Seconds without memory: in full longer than a lease."""

RECOVERED = 5.0 if FULL else PATIENCE
"""Seconds after its return within which everything works again: 5 are promised, to a machine that is not busy."""

ROUTES_BACK = 10.0 if FULL else PATIENCE
"""The same for all routes in a Redis that has lost everything."""

REPLICAS = 4  # two servers and two proxies, each with its own log
LOAD = {"conversations": 50 if FULL else 10, "downloads": 2, "uploads": 2, "interval": 0.1}
AWAY, BACK = "Redis is away: ", " is back away_seconds="
REFUSES, ACCEPTS = "Redis refuses to ", "Redis accepts commands again"


@attrs.frozen
class World:
    """A stack over a Redis that keeps what it has on disk. url: what a visitor asks for."""

    redis: RedisServer
    stack: DevStack

    @property
    def url(self) -> str:
        return self.stack.private["url"] + "hello"

    def routes(self) -> set[object]:
        """The keys of all leases."""
        with self.redis.admin() as admin:
            keys = admin.keys("connect:dev:*:[0-3]")
        assert isinstance(keys, list)
        return set(keys)

    def all_routes(self) -> set[object] | None:
        """The same, once there are as many as there are going to be."""
        routes = self.routes()
        return routes if len(routes) == 4 else None

    def count(self, text: str) -> int:
        return sum(1 for line in self.stack.said().splitlines() if text in line)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"), options=("--appendonly", "yes"))
    redis.start()
    arguments = ("--processes", "--servers", "2", "--proxies", "2", "--redis", redis.address, "--", *TOOL)
    root = tmp_path_factory.mktemp("redis-outage")
    try:
        with dev_stack(*arguments, root=root, name="redis-outage", env={"CONNECT_LOG_LEVEL": "INFO"}) as stack:
            yield World(redis, stack)
    finally:
        redis.stop()


def test_killed_under_load(world: World) -> None:
    with outage(world, OUTAGE, AWAY, BACK) as is_over:
        world.redis.stop()
        is_over(world.redis.start)


def test_stopped_under_load(world: World) -> None:
    with outage(world, OUTAGE, AWAY, BACK) as is_over:
        world.redis.freeze()
        is_over(world.redis.thaw)


def test_a_password_that_was_changed_and_changed_back(world: World) -> None:
    def change_back() -> None:
        with world.redis.admin(password="other") as admin:
            admin.config_set("requirepass", "")

    with outage(world, OUTAGE / 2, AWAY, BACK) as is_over:
        with world.redis.admin() as admin:
            admin.config_set("requirepass", "other")
            # Whoever is connected stays so, until the connection ends for another reason.
            admin.client_kill_filter(_type="normal", skipme=True)
        is_over(change_back)


def test_no_memory_left(world: World) -> None:
    def free() -> None:
        with world.redis.admin() as admin:
            admin.config_set("maxmemory", 0)

    before = wait_until(world.all_routes, "two sessions with two tunnels each")
    with outage(world, SHORTAGE, REFUSES, ACCEPTS, told=None) as is_over:
        with world.redis.admin() as admin:
            admin.config_set("maxmemory", 1)
        is_over(free)
        assert world.routes() == before, "leases are renewed without memory"


def test_restarted_empty(world: World) -> None:
    before = wait_until(world.all_routes, "two sessions with two tunnels each")
    # The end of a download is asked for by a request of its own, and needs a login.
    with load(world.stack, "redis-empty", **{**LOAD, "downloads": 0}) as running:
        away = world.count(AWAY)
        world.redis.stop()
        wait_until(lambda: world.count(AWAY) == away + REPLICAS, "everybody knows")
        world.redis.start("--appendonly", "no")
        wait_until(lambda: world.routes() == before, "all routes", patience=ROUTES_BACK)
        wait_until(lambda: logged_in(world), "a new login", patience=RECOVERED)
        assert running.settle(time.monotonic()) == []
        running.finish()


@contextmanager
def outage(
    world: World, seconds: float, begin: str, end: str, *, told: int | None = REPLICAS
) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Load, a visitor who is known, and others who are not, before, while and after Redis fails.

    The block lets Redis fail and calls what it is given with the mending. told: how many processes are to log a line
    that has `begin` in it, and afterwards one with `end`; None: at least one, and each as many of both.
    """
    alice = Visitor()
    assert reached_the_tool(alice.log_in(world.url, "alice"))
    assert known_everywhere(world, alice)
    before = world.count(begin), world.count(end)

    def is_over(mend: Callable[[], None]) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert known_everywhere(world, alice)
            refused = Visitor().open(world.url)
            assert is_clear(refused), refused
            time.sleep(0.2)
        wanted = 1 if told is None else told
        wait_until(lambda: world.count(begin) - before[0] >= wanted, f"{wanted} processes that know: {begin}")
        assert world.count(end) == before[1]
        mend()
        since = time.monotonic()
        wait_until(lambda: logged_in(world), "a new login", patience=RECOVERED)
        print(f"a new login {time.monotonic() - since:.2f} s after Redis' return")
        assert known_everywhere(world, alice)

    with load(world.stack, f"redis-{begin}", **LOAD) as running:
        yield is_over
        assert running.settle(time.monotonic()) == []
        running.finish()
    wait_until(lambda: world.count(end) - before[1] == world.count(begin) - before[0], "as many ends as beginnings")
    lines = world.count(begin) - before[0]
    assert lines == told if told is not None else lines >= 1


def is_clear(answer: Answer) -> bool:
    """A page for people, with its status, the part that failed, and when to try again."""
    return (
        answer.status == 503
        and "registry does not answer" in answer.text
        and "retry-after" in answer.headers
        and answer.headers["content-type"].startswith("text/html")
    )


def known_everywhere(world: World, visitor: Visitor) -> bool:
    """Whether each proxy lets this visitor through to the tool, who is then known to it."""
    ports = [int(url.rpartition(":")[2]) for url in world.stack.document["proxies"]]

    def through(port: int) -> bool:
        visitor.via = port
        return reached_the_tool(visitor.request("GET", world.url))

    return all(map(through, ports))


def reached_the_tool(answer: Answer) -> bool:
    """The tool of this load says so itself."""
    return answer.status == 404 and "no such path" in answer.text


def logged_in(world: World) -> bool:
    try:
        return reached_the_tool(Visitor().log_in(world.url, "alice"))
    except (OSError, AssertionError):
        return False
