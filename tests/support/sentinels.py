"""A primary, a replica and sentinels, all on loopback and each its own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import redis as redis_py
import trio

from tests.support.redis import RedisServer, execute

NAME = "mymaster"
DOWN_AFTER, FAILOVER = 500, 2000
"""Milliseconds until a primary counts as dead, and until a failover is tried again."""


@attrs.define
class Watched:
    """servers: the first one is the primary at the start."""

    servers: list[RedisServer]
    sentinels: list[RedisServer]

    @property
    def addresses(self) -> str:
        return ",".join(sentinel.address for sentinel in self.sentinels)

    async def until(self, port: int, *, within: float = 60) -> None:
        """Wait until all sentinels that run say that the primary is at this port."""
        with trio.fail_after(within):
            while {_primary(sentinel) for sentinel in self.sentinels if sentinel.runs} != {port}:
                await trio.sleep(0.05)

    async def until_replicated(self) -> None:
        """Wait until the primary has its replica, and all sentinels know of it and of each other."""
        with trio.fail_after(30):
            while not all(map(_knows_all, self.sentinels)):
                await trio.sleep(0.05)


@contextmanager
def watched(folder: Path, *, sentinels: int = 3, password: str | None = None) -> Iterator[Watched]:
    """password: of the sentinels."""
    with ExitStack() as stack:

        def start(name: str, *options: str, sentinel: bool = False) -> RedisServer:
            home = folder / name
            home.mkdir()
            server = RedisServer(home, options=options, sentinel=sentinel)
            stack.callback(server.stop)
            return server

        primary = start("primary")
        primary.start()
        replica = start("replica", "--replicaof", f"127.0.0.1 {primary.port}")
        replica.start()
        found = Watched([primary, replica], [])
        for number in range(sentinels):
            one = start(f"sentinel{number}", sentinel=True)
            one.write_configuration(
                f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {sentinels // 2 + 1}",
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}",
                f"sentinel failover-timeout {NAME} {FAILOVER}",
                *([f"requirepass {password}", f"sentinel sentinel-pass {password}"] if password else []),
            )
            one.start()
            found.sentinels.append(one)
        yield found


def _primary(sentinel: RedisServer) -> int | None:
    with redis_py.Redis(port=sentinel.port, single_connection_client=True) as client:
        try:
            answer = execute(client, "SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        except redis_py.RedisError:
            return None
    return int(answer[1])


def _knows_all(sentinel: RedisServer) -> bool:
    with redis_py.Redis(port=sentinel.port, single_connection_client=True, decode_responses=True) as client:
        flat = execute(client, "SENTINEL MASTER", NAME)
    facts = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    return int(facts["num-slaves"]) == 1 and int(facts["num-other-sentinels"]) == 2
