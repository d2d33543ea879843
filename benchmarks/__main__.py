"""`python -m benchmarks`: measures Connect beside a plain relay chain, prints a table and writes JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.login import LoginFailed
from benchmarks.measure import Case, measure
from benchmarks.memory import idle_memory
from benchmarks.report import document, memory_table, table, write
from benchmarks.targets import CannotMeasure, Target, connect_stack, relay_chain, tool

MIB = 1 << 20

EPILOG = """Targets: the tool itself; three plain trio TCP relays on the way that Connect's bytes go (proxy, server,
proxy, agent); Connect with a tunnel of raw bytes, and with a WebSocket. Everything runs in processes of its own on this
machine, which also make the load: only the ratios within one run mean something."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    size, seconds, rounds = options.size, options.seconds, options.rounds
    idle = options.idle
    if options.quick:
        size, seconds, rounds, idle = min(size, 4), min(seconds, 0.2), 1, min(idle, 50)
    try:
        with ExitStack() as stack:
            targets, reference = _without_retention(stack) if options.retention else _beside_relays(stack)
            cases = _cases(size * MIB, seconds)
            rows = measure(cases, targets, rounds=rounds, progress=_progress, reference=reference)
        memory = {}
        if not options.retention:
            _progress("memory")
            memory = idle_memory(idle)
    except (CannotMeasure, LoginFailed) as exc:
        print(f"benchmarks: {exc}", file=sys.stderr)
        return 1
    print(table(rows))
    if memory:
        print("\n" + memory_table(memory))
    used = {"size_mib": size, "seconds": seconds, "rounds": rounds, "idle": idle}
    print(f"\nwritten to {write(document(rows, memory, used), options.output)}")
    return 0


def _beside_relays(stack: ExitStack) -> tuple[list[Target], int]:
    """The targets, and which of them is the reference for rates."""
    direct = stack.enter_context(tool())
    return [
        direct,
        stack.enter_context(relay_chain(direct.port)),
        stack.enter_context(connect_stack("raw tunnel")),
        stack.enter_context(connect_stack("WebSocket", websocket_only=True)),
    ], 1


def _without_retention(stack: ExitStack) -> tuple[list[Target], int]:
    """What it costs to keep what was sent until it is acknowledged: Connect beside itself without that."""
    return [
        stack.enter_context(connect_stack("unretained", module="benchmarks.unretained")),
        stack.enter_context(connect_stack("raw tunnel")),
    ], 0


def _cases(size: int, seconds: float) -> list[Case]:
    transfers = [Case(name=f"bulk {case}, one stream", case=case, size=size) for case in ("down", "up")]
    requests = [
        Case(
            name=f"requests, {count} connection{'s' if count > 1 else ''}",
            case="requests",
            connections=count,
            seconds=seconds,
        )
        for count in (1, 16, 64)
    ]
    return [*transfers, *requests]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=EPILOG)
    parser.add_argument("--size", type=positive, default=256, metavar="MIB", help="of a transfer (256)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of requests, for each target (3)")
    parser.add_argument("--rounds", type=positive, default=5, help="in which all targets take turns (5)")
    parser.add_argument(
        "--idle", type=positive, default=1000, help="tunnels and streams whose memory is weighed (1000)"
    )
    parser.add_argument(
        "--retention",
        action="store_true",
        help="instead: Connect (raw tunnel) beside itself without keeping what was sent, which is what resuming costs",
    )
    parser.add_argument("--quick", action="store_true", help="see whether it works, within a minute; means nothing")
    parser.add_argument("--output", type=Path, help="the JSON file, instead of one in benchmarks/results/")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
