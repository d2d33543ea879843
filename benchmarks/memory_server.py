"""The role `server` alone, to be weighed: `python -m benchmarks.memory_server` prints its two ports and serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

import trio

from connect_trio.config import load_server
from connect_trio.roles.server import ServerRunning, run_server
from connect_trio.routing.registry import Route, Tell

CLUSTER_KEY = "the key of a server that is only weighed"


class NoRegistry:
    """A `Registry` that takes every route and keeps none, as if they were all in Redis."""

    async def publish(self, route: Route, *, ttl: float) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        await trio.lowlevel.checkpoint()
        return ()

    async def withdraw(self, route: Route) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def find(self, session: str) -> Sequence[Route]:
        await trio.lowlevel.checkpoint()
        return ()

    async def changes(self, tell: Tell) -> NoReturn:
        while True:
            await trio.sleep_forever()


async def main() -> None:
    environ = {"CONNECT_BIND_HOST": "127.0.0.1", "CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0"}
    settings = load_server(environ | {"CONNECT_CLUSTER_KEY": CLUSTER_KEY})
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[ServerRunning]) -> None:
            await run_server(settings, registry=NoRegistry(), task_status=task_status)

        running: ServerRunning = await nursery.start(serve)
        print(json.dumps([running.listener_port, running.tunnel_port]), flush=True)


if __name__ == "__main__":
    trio.run(main)
