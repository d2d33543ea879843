"""The ACL line of docs/operations.md lets Connect do all that it does, and nothing in it is superfluous."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from connect_trio.routing.redis import open_redis
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.redis import RedisServer, acl_of_the_documentation, execute
from tests.support.routes import ROUTE, use_everything

pytestmark = pytest.mark.redis

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
PASSWORD = "long-enough"
WORDS = acl_of_the_documentation(PASSWORD)
CHANNEL = {"&connect:session:changes", "+publish", "+subscribe"}  # without these all works, only later
GRANTS = [word for word in WORDS if word.startswith("+") and word not in CHANNEL]


async def use_as(server: RedisServer, rules: list[str]) -> None:
    """Do all that Connect does, as a user with these rules and in another database than the first."""
    with server.admin() as admin:
        execute(admin, "ACL SETUSER", "connect", "reset", *rules)
        admin.flushall()
        admin.script_flush()
    async with open_redis(address=server.address, user="connect", password=PASSWORD, db=3) as redis:
        await redis.ping()
        await use_everything(redis)


async def test_the_documented_user_can_do_all_that_connect_does(redis_server: RedisServer) -> None:
    await use_as(redis_server, WORDS)
    with redis_server.admin() as admin:
        log = execute(admin, "ACL LOG")
        assert log == [], "nothing was even tried that is not allowed"


@pytest.mark.parametrize("grant", GRANTS)
async def test_nothing_in_it_is_superfluous(redis_server: RedisServer, grant: str) -> None:
    with pytest.raises(RegistryUnavailable, match=r"(?i)permission|can't run this command"):
        await use_as(redis_server, [word for word in WORDS if word != grant])


@pytest.mark.parametrize("missing", [None, *sorted(CHANNEL)])
async def test_changes_are_told_with_all_of_the_channels_rights(redis_server: RedisServer, missing: str | None) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER", "connect", "reset", *(word for word in WORDS if word != missing))
    told: list[str | None] = []
    async with (
        open_redis(address=redis_server.address, user="connect", password=PASSWORD) as redis,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(redis.registry.changes, told.append)
        with trio.move_on_after(0.5 if missing else 10):
            while ROUTE.session not in told:
                await redis.registry.publish(ROUTE, ttl=60)
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert (ROUTE.session in told) == (missing is None)


async def test_the_documented_user_can_do_nothing_else(redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER", "connect", "reset", *WORDS)
        for command in (["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["SUBSCRIBE", "x"], ["INFO"]):
            answer = execute(admin, "ACL DRYRUN", "connect", *command)
            assert b"no permissions" in answer, command
        other = execute(admin, "ACL DRYRUN", "connect", "GET", "somebody:else")
        assert b"no permissions to access" in other


async def test_a_prefix_outside_of_the_pattern_is_refused_clearly(redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        execute(admin, "ACL SETUSER", "connect", "reset", *WORDS)
    async with open_redis(address=redis_server.address, user="connect", password=PASSWORD, prefix="other") as redis:
        with pytest.raises(RegistryUnavailable, match=r"refused a command: .*permissions"):
            await use_everything(redis)


def test_the_pattern_of_keys_is_the_default_prefix() -> None:
    assert re.search(r"~connect:session:\* ", PAGE.read_text(encoding="utf-8"))
