"""`python -m benchmarks.idle_tunnels`: what ten thousand idle tunnels cost one server process, and Redis.

A real server over a real redis-server, and agents (`benchmarks.idle_agents`) that open tunnels at its port as a proxy
would, and then only live: two tunnels each, a ping every 20 to 30 seconds. Memory is compared with that of the same
process before the first tunnel; CPU is the share of one core, renewals of all routes included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.__main__ import positive
from benchmarks.load import cpu_seconds
from benchmarks.memory_server import CLUSTER_KEY
from benchmarks.redis import Redis, own_redis
from benchmarks.report import aligned, circumstances, write
from benchmarks.targets import HERE, STOP, CannotMeasure

EMPTY = 5.0  # seconds that the process without tunnels is looked at
PATIENCE = 120.0  # seconds until all routes are in Redis
SPARE_FILES = 200


@attrs.frozen
class Figures:
    """tunnels: that many were up all the time. dialled: seconds until all were up and their routes in Redis.

    before, after, peak: resident memory of the server without tunnels, when all have been idle for a while, and at
    most, in MiB. empty, idle, redis: share of a core that the server took without tunnels, that it took with them, and
    that Redis took. pongs: pings answered meanwhile. load: load average of the machine at the begin and the end.
    """

    tunnels: int
    seconds: float
    dialled: float
    before: float
    after: float
    peak: float
    empty: float
    idle: float
    redis: float
    pongs: int
    lost: int
    load: tuple[float, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        figures = measure(options.tunnels, settle=options.settle, seconds=options.seconds)
    except CannotMeasure as exc:
        print(f"benchmarks.idle_tunnels: {exc}", file=sys.stderr)
        return 1
    print(table(figures))
    used = {"tunnels": options.tunnels, "settle": options.settle, "seconds": options.seconds}
    result = {**circumstances(used), "idle_tunnels": attrs.asdict(figures)}
    print(f"\nwritten to {write(result, options.output)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_tunnels", description=__doc__)
    parser.add_argument("--tunnels", type=positive, default=10_000, help="at the server (10000)")
    parser.add_argument("--settle", type=float, default=35.0, metavar="S", help="before it counts (35)")
    parser.add_argument("--seconds", type=float, default=60.0, help="that the server is looked at (60)")
    parser.add_argument("--output", type=Path, help="the JSON file, instead of one in benchmarks/results/")
    return parser


def table(figures: Figures) -> str:
    """For people."""
    rows = [
        [f"{figures.tunnels:,} idle tunnels", ""],
        ["  resident memory without tunnels, MiB", f"{figures.before:.1f}"],
        ["  above that, with all of them", f"{figures.after - figures.before:.1f}"],
        ["  above that, at most", f"{figures.peak - figures.before:.1f}"],
        ["  KiB for each", f"{1024 * (figures.after - figures.before) / figures.tunnels:.1f}"],
        ["  server's share of a core without tunnels", f"{figures.empty:.2%}"],
        [f"  server's share of a core, {figures.seconds:g} s", f"{figures.idle:.2%}"],
        ["  Redis' share of a core", f"{figures.redis:.2%}"],
        ["  pings answered", f"{figures.pongs:,}"],
        ["  tunnels lost", f"{figures.lost:,}"],
        ["  seconds to open them all", f"{figures.dialled:.1f}"],
        ["  load average, begin and end", " ".join(f"{each:.1f}" for each in figures.load)],
    ]
    return aligned(rows)


def measure(tunnels: int, *, settle: float, seconds: float) -> Figures:
    """Raises CannotMeasure."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < tunnels + SPARE_FILES:
        raise CannotMeasure(f"a process may open {hard} files, too few for {tunnels} tunnels: raise it (ulimit -Hn)")
    begin = os.getloadavg()[0]
    with ExitStack() as stack:
        redis = stack.enter_context(own_redis())
        pid, port = stack.enter_context(_server(redis))
        pids = {"server": [pid], "redis": [redis.pid]}
        time.sleep(1)
        before, (empty, _) = _resident(pid), _shares(pids, min(EMPTY, seconds))
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak of the start: proc(5)
        since = time.monotonic()
        crowd = stack.enter_context(_agents(port, tunnels))
        _hear(crowd)
        _wait_for_routes(redis, tunnels)
        dialled = time.monotonic() - since
        time.sleep(settle)
        first = _ask(crowd)
        idle, of_redis = _shares(pids, seconds)
        last = _ask(crowd)
        return Figures(
            tunnels=tunnels,
            seconds=seconds,
            dialled=dialled,
            before=before,
            after=_resident(pid),
            peak=_resident(pid, "VmHWM:"),
            empty=empty,
            idle=idle,
            redis=of_redis,
            pongs=last["pongs"] - first["pongs"],
            lost=last["lost"],
            load=(begin, os.getloadavg()[0]),
        )


def _shares(pids: dict[str, list[int]], seconds: float) -> tuple[float, float]:
    """Of a core, taken by the server and by Redis during that time."""
    since, first = time.monotonic(), cpu_seconds(pids)
    time.sleep(seconds)
    took, last = time.monotonic() - since, cpu_seconds(pids)
    return (last["server"] - first["server"]) / took, (last["redis"] - first["redis"]) / took


def _resident(pid: int, name: str = "VmRSS:") -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def _wait_for_routes(redis: Redis, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (there := redis.keys()) < count:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"only {there} of {count} routes are in Redis after {PATIENCE:g} s")
        time.sleep(0.2)


@contextmanager
def _server(redis: Redis) -> Iterator[tuple[int, int]]:
    """A running server: its pid, and its port for tunnels."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CONNECT_", "PLATFORM_"))}
    reading, writing = os.pipe()
    environ = ours | {
        "CONNECT_BIND_HOST": "127.0.0.1",
        "CONNECT_LISTENER_PORT": "0",
        "CONNECT_TUNNEL_PORT": "0",
        "CONNECT_REDIS_ADDRESS": redis.address,
        "CONNECT_CLUSTER_KEY": CLUSTER_KEY,
        "CONNECT_DRAIN_GRACE": "0s",
        "CONNECT_READY_FD": str(writing),
    }
    command = [sys.executable, "-m", "connect_trio", "server"]
    process = subprocess.Popen(command, cwd=HERE.parent, env=environ, stderr=subprocess.DEVNULL, pass_fds=[writing])
    os.close(writing)
    try:
        with open(reading) as pipe:
            line = pipe.readline()
        if not line:
            raise CannotMeasure("the server does not start")
        yield process.pid, json.loads(line)["started"]["tunnel_port"]
    finally:
        process.kill()
        process.wait(STOP)


@contextmanager
def _agents(port: int, tunnels: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.idle_agents", str(port), str(tunnels)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE.parent, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()
            process.wait(STOP)


def _ask(crowd: subprocess.Popen[str]) -> dict[str, Any]:
    if crowd.stdin is not None:
        crowd.stdin.write("\n")
        crowd.stdin.flush()
    return _hear(crowd)


def _hear(crowd: subprocess.Popen[str]) -> dict[str, Any]:
    line = crowd.stdout.readline() if crowd.stdout is not None else ""
    if not line:
        raise CannotMeasure("the agents have ended early; what they said is above")
    report: dict[str, Any] = json.loads(line)
    return report


if __name__ == "__main__":
    sys.exit(main())
