"""`python -m benchmarks.many_streams`: sixty thousand streams through one proxy, while its memory is scarce.

Three processes: the opener that a proxy has, with the mux's defaults and a link; a real server; agents with a tunnel
each. First come streams of which nobody reads (`--hogs`): they take more than half of the budget, so that the share of
each stream is the floor. Then all others are opened, and each sends `--size` bytes, more than its share, and gets them
back. At last the former are given up, and the others do it once more. With fewer streams the budget is scaled down.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import attrs

from benchmarks.__main__ import positive
from benchmarks.load import cpu_seconds
from benchmarks.report import aligned, circumstances, write
from benchmarks.targets import HERE, STOP, CannotMeasure
from connect_trio.mux.budget import BUDGET

ALL = 60_000
HOGS = 300  # of these; each of them gets a whole window
STEPS = ("begin", "filled", "opened", "moved", "free")


@attrs.frozen
class Step:
    """Seconds that it took, CPU seconds of each process, MiB of resident memory of each at its end, and what the proxy
    tells of its streams then."""

    seconds: float
    cpu: dict[str, float]
    resident: dict[str, float]
    told: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if not all streams were opened, or one of them was lost."""
    options = _parser().parse_args(arguments)
    begin = os.getloadavg()[0]
    try:
        steps, agents = measure(options)
    except CannotMeasure as exc:
        print(f"benchmarks.many_streams: {exc}", file=sys.stderr)
        return 1
    load = (begin, os.getloadavg()[0])
    print(table(steps, options, load))
    result = {
        **circumstances({key: value for key, value in vars(options).items() if key != "output"}),
        "many_streams": {name: attrs.asdict(step) for name, step in steps.items()},
        "agents": agents,
        "load": load,
    }
    print(f"\nwritten to {write(result, options.output)}")
    told = steps["moved"].told
    whole = told["streams"] == agents["opened"] == options.streams
    return 0 if whole and not (told["refused"] or told["ended"] or agents["refused"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_streams", description=__doc__)
    parser.add_argument("--streams", type=positive, default=ALL, help="that are open at once (60000)")
    parser.add_argument("--agents", type=positive, default=100, help="that they go to (100)")
    parser.add_argument("--size", type=positive, default=8192, help="bytes that each stream moves each way (8192)")
    parser.add_argument("--rounds", type=positive, default=1, help="how often it does so (1)")
    parser.add_argument("--together", type=positive, default=1000, help="streams that do so at once (1000)")
    parser.add_argument("--output", type=Path, help="the JSON file, instead of one in benchmarks/results/")
    return parser


def table(steps: dict[str, Step], options: argparse.Namespace, load: tuple[float, float]) -> str:
    """For people."""
    filled, opened, moved, free = (steps[name] for name in STEPS[1:])
    bytes_moved = moved.told["moved"]
    rows = [
        [f"{options.streams:,} streams, budget {_memory(options) / (1 << 20):.1f} MiB", ""],
        ["  in use when nobody reads some, MiB", f"{filled.told['used'] / (1 << 20):.1f}"],
        ["  share of a stream then, bytes", f"{filled.told['share']:,}"],
        ["  streams open, refused, lost", f"{moved.told['streams']:,}, {moved.told['refused']}, {moved.told['ended']}"],
        ["  seconds to open them", f"{opened.seconds:.1f}"],
        ["  CPU seconds of the proxy for that", f"{opened.cpu['proxy']:.1f}"],
        ["  resident memory of proxy, server, agents then, MiB", _three(opened.resident)],
        ["  MiB moved, both ways together", f"{bytes_moved / (1 << 20):.1f}"],
        ["  seconds for that", f"{moved.seconds:.1f}"],
        ["  slowest exchange of one stream, seconds", f"{moved.told['slowest']:.2f}"],
        ["  CPU seconds of proxy, server, agents", _three(moved.cpu)],
        ["  most in use, MiB", f"{moved.told['peak'] / (1 << 20):.1f}"],
        ["  resident memory of proxy, server, agents then, MiB", _three(moved.resident)],
        ["  share when nothing is unread any more, bytes", f"{free.told['share']:,}"],
        ["  seconds to move as much again", f"{free.seconds:.1f}"],
        ["  CPU seconds of proxy, server, agents", _three(free.cpu)],
        ["  load average, begin and end", " ".join(f"{each:.1f}" for each in load)],
    ]
    return aligned(rows)


def _three(values: dict[str, float]) -> str:
    return ", ".join(f"{values[name]:.1f}" for name in ("proxy", "server", "agents"))


def _memory(options: argparse.Namespace) -> int:
    return int(BUDGET * min(1.0, options.streams / ALL))


def measure(options: argparse.Namespace) -> tuple[dict[str, Step], dict[str, int]]:
    """Raises CannotMeasure."""
    with ExitStack() as stack:
        server = stack.enter_context(_process("benchmarks.memory_server"))
        link_port, tunnel_port = _heard(server)
        agents = stack.enter_context(_process("benchmarks.many_streams_agents", str(tunnel_port), str(options.agents)))
        _heard(agents)
        wanted = {
            "port": link_port,
            "agents": options.agents,
            "streams": options.streams,
            "hogs": max(1, HOGS * min(options.streams, ALL) // ALL),
            "size": options.size,
            "rounds": options.rounds,
            "together": options.together,
            "memory": _memory(options),
        }
        proxy = stack.enter_context(_process("benchmarks.many_streams_proxy", json.dumps(wanted)))
        pids = {"proxy": [proxy.pid], "server": [server.pid], "agents": [agents.pid]}
        steps: dict[str, Step] = {}
        since, before = time.monotonic(), dict.fromkeys(pids, 0.0)
        for name in STEPS:
            told = _heard(proxy)
            now, cpu = time.monotonic(), cpu_seconds(pids)
            resident = {each: _resident(pid) for each, (pid,) in pids.items()}
            used = {each: cpu[each] - before[each] for each in pids}
            steps[name] = Step(now - since, used, resident, told)
            _say(proxy)
            since, before = time.monotonic(), cpu
            if name == "moved":
                _say(agents)
                counted = _heard(agents)
        return steps, counted


def _resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


def _heard(process: subprocess.Popen[str]) -> Any:
    line = _pipe(process.stdout).readline()
    if not line:
        raise CannotMeasure("a process has ended early")
    return json.loads(line)


def _say(process: subprocess.Popen[str]) -> None:
    pipe = _pipe(process.stdin)
    pipe.write("\n")
    pipe.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE.parent, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()
            process.wait(STOP)


if __name__ == "__main__":
    sys.exit(main())
