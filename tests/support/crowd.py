"""Many agents at three servers behind one proxy, over a real Redis, each role a process; what they did, told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.load import cpu_seconds
from connect_trio.ports import free_ports
from tests.support.crowd_agents import SLOTS
from tests.support.crowd_platform import sessions
from tests.support.e2e import ROOT, process_of
from tests.support.processes import RunningRole, running_role
from tests.support.redis import RedisServer

SERVERS = 3
CLUSTER_KEY = "a key for the servers of many agents 0123456789"
PREFIX = "crowd"
BIN = 0.5
"""Seconds that a row of the histogram stands for."""


@attrs.define
class Crowd:
    """servers: all that were started, the killed ones among them. pids: by role; servers without the first one, which
    is the one to be killed."""

    count: int
    redis: RedisServer
    servers: list[RunningRole]
    agents: list[subprocess.Popen[str]]
    pids: dict[str, list[int]]

    def cpu(self) -> dict[str, float]:
        """Seconds that the living have used, by role."""
        return cpu_seconds({role: [pid for pid in pids if process_of(pid)] for role, pids in self.pids.items()})

    def routes(self) -> dict[tuple[str, int], str]:
        """Session and slot -> the address of the server that has it, as Redis says."""
        places = [(session, slot) for session in sessions(self.count) for slot in range(SLOTS)]
        with self.redis.admin() as client:
            values = client.mget([f"{PREFIX}:{session}:{slot}" for session, slot in places])
        found = zip(places, values, strict=True)
        return {place: json.loads(value)["address"] for place, value in found if value is not None}

    def living(self) -> set[str]:
        """Addresses of the servers that run."""
        return {role.started["address"] for role in self.servers if role.process.poll() is None}

    def missing(self) -> int:
        """How many tunnels have no route to a living server."""
        living = self.living()
        return self.count * SLOTS - sum(address in living for address in self.routes().values())

    def told(self) -> dict[str, list[Any]]:
        """What the agents did since they were asked the last time: see `crowd_agents.Log`."""
        told: dict[str, list[Any]] = {"dials": [], "opened": [], "failed": []}
        for process in self.agents:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            for name, entries in json.loads(process.stdout.readline()).items():
                told[name] += entries
        return told

    def kill_a_server(self) -> tuple[float, int]:
        """When that was, and how many tunnels it had."""
        victim = self.servers[0]
        had = Counter(self.routes().values())[victim.started["address"]]
        since = time.monotonic()
        victim.process.kill()
        victim.process.wait()
        return since, had


@contextmanager
def crowd(count: int, *, processes: int, folder: Path) -> Iterator[Crowd]:
    """count: agents, who live in so many processes. folder: for everything that is written, logs among it."""
    with ExitStack() as stack:
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        common = {
            "CONNECT_REDIS_ADDRESS": redis.address,
            "CONNECT_REDIS_PREFIX": PREFIX,
            "CONNECT_CLUSTER_KEY": CLUSTER_KEY,
            "CONNECT_LOG_LEVEL": "WARN",
        }
        servers = [stack.enter_context(_server(common, folder / f"server-{n}.log")) for n in range(SERVERS)]
        port, platform_port = free_ports(2)
        url, tokens = f"http://connect.localhost:{port}", folder / "tokens.json"
        platform = stack.enter_context(
            _python("crowd_platform", platform_port, url, count, tokens, log=folder / "platform.log")
        )
        environ = {
            **common,
            "CONNECT_HTTP_HOST": "127.0.0.1",
            "CONNECT_HTTP_PORT": str(port),
            "CONNECT_PROXY_URL": url,
            "CONNECT_TUNNEL_URL": ",".join(f"127.0.0.1:{role.started['tunnel_port']}" for role in servers),
            "PLATFORM_URL": f"http://localhost:{platform_port}",
            "CONNECT_STORAGE_ROOT": str(folder / "proxy"),
            "CONNECT_DRAIN_GRACE": "0s",
        }
        proxy = stack.enter_context(running_role("proxy", env=environ, log=folder / "proxy.log"))
        bounds = [count * number // processes for number in range(processes + 1)]
        agents = [
            stack.enter_context(
                _python("crowd_agents", url, tokens, *bounds[n : n + 2], log=folder / f"agents-{n}.log", ready=False)
            )
            for n in range(processes)
        ]
        pids = {
            "agents": [process.pid for process in agents],
            "proxy": [proxy.process.pid],
            "servers": [role.process.pid for role in servers[1:]],
            "redis": [redis.pid],
            "platform": [platform.pid],
        }
        yield Crowd(count, redis, servers, agents, pids)


@contextmanager
def _server(common: dict[str, str], log: Path) -> Iterator[RunningRole]:
    ports = {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0"}
    env = {**common, **ports, "CONNECT_BIND_HOST": "127.0.0.1", "CONNECT_DRAIN_GRACE": "0s"}
    with running_role("server", env=env, log=log) as role:
        yield role


@contextmanager
def _python(module: str, *arguments: object, log: Path, ready: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A part of ours as a process. ready: whether it prints a line when it is."""
    command = [sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, cwd=ROOT, text=True, stderr=stderr, **pipes) as process,  # type: ignore[call-overload]
    ):
        try:
            assert not ready or process.stdout.readline(), log.read_text()
            yield process
        finally:
            process.kill()


def document(
    crowd: Crowd, *, since: float, lost: int, back: float, told: dict[str, list[Any]], cpu: Mapping[str, float]
) -> dict[str, Any]:
    """What is kept of a fault at `since` that took `lost` tunnels, all of which were back at `back`.

    cpu: seconds that it took, by role.
    """
    return {
        "agents": crowd.count,
        "tunnels_lost": lost,
        "back_after": round(back - since, 2),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "cpu": {role: round(seconds, 2) for role, seconds in cpu.items()},
        "bin": BIN,
        "dials": histogram(told["dials"], since),
        "opened": histogram(told["opened"], since),
        "failed": histogram([at for at, _ in told["failed"]], since),
        "reasons": dict(Counter(_without_numbers(reason) for _, reason in told["failed"]).most_common(8)),
    }


def histogram(times: Sequence[float], since: float) -> list[int]:
    """How many there were in each `BIN` after `since`."""
    bins = Counter(int((at - since) / BIN) for at in times if at >= since)
    return [bins[number] for number in range(max(bins, default=-1) + 1)]


def _without_numbers(reason: str) -> str:
    """Ids and ports differ, and mean the same."""
    return "".join("#" if letter.isdigit() else letter for letter in reason)[:160]


def lines(document: dict[str, Any]) -> list[str]:
    """For people."""
    rows = max(len(document[name]) for name in ("dials", "opened", "failed"))
    cells = {name: document[name] + [0] * (rows - len(document[name])) for name in ("dials", "opened", "failed")}
    return [
        f"{document['agents']:,} agents, one of {SERVERS} servers killed: {document['tunnels_lost']:,} tunnels lost,"
        f" all back after {document['back_after']:.2f} s (load average {document['load_average'][0]:g})",
        f"CPU seconds meanwhile: {', '.join(f'{role} {seconds:.2f}' for role, seconds in document['cpu'].items())}",
        "seconds after   dials  opened  failed",
        *(
            f"{BIN * row:5.1f} to {BIN * (row + 1):4.1f}  {cells['dials'][row]:6}  {cells['opened'][row]:6}"
            f"  {cells['failed'][row]:6}"
            for row in range(rows)
        ),
        *(f"{count} x {reason}" for reason, count in document["reasons"].items()),
    ]
