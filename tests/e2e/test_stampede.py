"""All streams of a proxy are detached at once: they come back together, and what they took meanwhile is given back."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import pytest

from tests.support.connections import listened_to
from tests.support.e2e import FULL, dev_stack, wait_until, with_tool
from tests.support.faults import Scene, kill, server_ports
from tests.support.parts import require
from tests.support.survival import GOES_ON, TOOL, WAITS, keep, load, memory, told, within

CONVERSATIONS = 2000 if FULL else 200
IDLE = 60.0
"""Seconds between the messages of a conversation, besides the one with which it answers whether it lives."""

FILES = 4 * CONVERSATIONS
"""Open files that each process may need."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require("redis-server")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        pytest.skip(f"a process may open {hard} files here, which is less than {FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    try:
        root = tmp_path_factory.mktemp("stampede")
        with dev_stack(*with_tool("processes", TOOL), root=root, name="stampede", waits=WAITS) as stack:
            yield Scene(stack, stack.private["id"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_all_conversations_answer_after_every_server_has_died(scene: Scene) -> None:
    steps = {"empty": memory(scene)}
    with load(scene.stack, "stampede", conversations=CONVERSATIONS, interval=IDLE) as running:
        scene.wait_until_whole()
        steps["open"] = memory(scene)
        running.ask("forget")
        pids = scene.stack.pids("server")
        ports = [server_ports(pid) for pid in pids]
        since = time.monotonic()
        kill(scene, *pids)
        # Asked while nobody can answer.
        running.ask("ask")
        wait_until(lambda: any(two <= listened_to() for two in ports), "a server that listens again", every=0.005)
        listening = time.monotonic()
        waiting = running.settle(since)
        outcome = running.ask("pauses", since=since)
        assert waiting == [], f"{len(waiting)} conversations have not gone on within {GOES_ON:g} s"
        if outcome["broken"]:
            pytest.fail(told(outcome["broken"]), pytrace=False)
        scene.wait_until_whole()
        wait_until(lambda: within(memory(scene), steps["open"]), f"the memory to be given back: {steps['open']}")
        steps["resumed"] = memory(scene)
        running.finish()
    steps["closed"] = memory(scene)
    last = outcome["last"]
    times = {"after": last - since, "after_listening": last - listening}
    keep("stampede", {"conversations": CONVERSATIONS, "fault": "all servers killed", "memory": steps, **times})
