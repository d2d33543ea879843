"""Many agents in one process, all with the same tool: `python -m tests.support.fleet OPTIONS`, as JSON.

Each is the real one but for the process of its own: its own tunnels, its own streams, its own instance. Tokens are
lines of stdin, one for each agent. It tells as a role does (`connect_trio.roles.running`) when every agent has a
tunnel.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from functools import partial

import attrs
import trio

from connect_trio.agent.client import TunnelClient
from connect_trio.agent.dialling import TunnelDialler
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.places import Places
from connect_trio.agent.tool import Tool
from connect_trio.logs import configure
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.roles.open_files import raise_limit
from connect_trio.roles.running import announcer, run_until_stopped

TUNNELS = 2
MEMORY = 256 << 20
START = 30.0


@attrs.frozen(kw_only=True)
class Options:
    """proxy_url: where all dial. tool_port: of loopback."""

    proxy_url: str
    tool_port: int


async def run_fleet(
    options: Options, tokens: Sequence[str], *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; starts with the number of agents once each has had a tunnel."""
    async with trio.open_nursery() as nursery, open_hub() as hub:
        tool = Tool(options.tool_port, start_timeout=START)
        nursery.start_soon(tool.watch)
        places = [start_agent(nursery, hub, tool, options.proxy_url, token) for token in tokens]
        for place in places:
            await place.up.wait()
        task_status.started(len(places))
        await trio.sleep_forever()


def start_agent(nursery: trio.Nursery, hub: Hub, tool: Tool, proxy_url: str, token: str) -> Places:
    """One more agent in `nursery`, as `connect_trio.roles.agent` has it; where its tunnels are."""
    acceptor = Acceptor(Forwarder(tool, nursery).on_open, budget=Budget(MEMORY))
    acceptor.alarm = hub.alarm
    hub.add(acceptor)
    dialler = TunnelDialler(proxy_url=proxy_url, token=lambda: token, instance=secrets.token_bytes(16))
    places = Places()
    for slot in range(TUNNELS):
        nursery.start_soon(TunnelClient(hub, acceptor, dialler, places, slot=slot).run)
    return places


def main() -> None:
    configure("WARN", role="fleet")
    raise_limit()
    announce = announcer("fleet", os.environ)
    options = Options(**json.loads(sys.argv[1]))
    tokens = sys.stdin.read().split()
    trio.run(partial(run_until_stopped, partial(run_fleet, options, tokens), announce=announce))


if __name__ == "__main__":
    main()
