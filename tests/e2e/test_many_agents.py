"""A server that is killed takes a third of all tunnels with it; their agents find the others."""

from __future__ import annotations

import resource
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.crowd import SERVERS, crowd, document
from tests.support.crowd_agents import SLOTS
from tests.support.e2e import FULL, wait_until
from tests.support.parts import require
from tests.support.survival import keep

AGENTS = 2000 if FULL else 60
PROCESSES = 2 if FULL else 1
COME = 240.0 if FULL else 60.0
"""Seconds in which all agents must be there at first."""
BACK = 120.0
"""Seconds in which all must be back; the aim is 20 s, and not asserted."""
SETTLED = 11.0 if FULL else 0.0
"""Seconds after which agents take a tunnel for a good one, which they dial again at once when it is lost."""
FILES = 8 * AGENTS
"""Open files that each process may need: the proxy has two for each tunnel."""


def test_all_agents_come_back_by_the_other_servers(tmp_path: Path) -> None:
    require("redis-server")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"a process may open {hard} files here, which is less than {FILES}")
    with crowd(AGENTS, processes=PROCESSES, folder=tmp_path) as agents:
        wait_until(lambda: not agents.missing(), "a route for each tunnel", patience=COME, every=0.25)
        spread = Counter(agents.routes().values())
        assert len(spread) == SERVERS, spread
        time.sleep(SETTLED)
        agents.told()
        before = agents.cpu()
        since, lost = agents.kill_a_server()
        wait_until(lambda: not agents.missing(), "all tunnels at living servers", patience=BACK, every=0.1)
        back = time.monotonic()
        cpu = {role: seconds - before[role] for role, seconds in agents.cpu().items()}
        told = agents.told()
        assert len(agents.routes()) == AGENTS * SLOTS
        assert set(agents.routes().values()) == agents.living()
    kept = document(agents, since=since, lost=lost, back=back, told=told, cpu=cpu)
    keep("agents", {"stack": "three servers", "fault": "one server killed", **kept})
