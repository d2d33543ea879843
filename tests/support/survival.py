"""What survival tests do and tell: rounds of faults under load, pauses by fault, a table and a file of them.

`python -m tests.support.survival` shows the last run's table again.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.support import crowd, survival_tool
from tests.support.e2e import ARTIFACTS, FULL, ROOT, DevStack, MiB, file_name
from tests.support.faults import TUNNELS, Fault, Scene, stopped_agent
from tests.support.impatient import SOON_WHOLE
from tests.support.visits import Visitor

TOOL = [sys.executable, "-P", str(Path(survival_tool.__file__)), "{port}"]
WAITS = SOON_WHOLE
"""Of the stack, which is whole again sooner; in full, too, where rounds would take a minute each."""

RESULTS = ARTIFACTS / "survival.json"
"""A line of JSON for each fault."""

GOES_ON = 60.0
"""Seconds within which everything must have gone on after a fault; the aims are shorter, and not asserted."""

NOTICED = 0.05
"""Seconds that a message takes before somebody could say that something has held it up."""

CALM, AGENT_STOPPED = "none", "agent stopped for a moment"
"""Faults that are none."""

Breaks = list[tuple[str, str, float]]
"""Which flow, why, and when (time.monotonic)."""


class LoadProcess:
    """A running `tests.support.survival_load`, asked one thing at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, command: str, **arguments: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the load has ended: {self._log.read_text()[-2000:]}"
        document: dict[str, Any] = json.loads(line)
        return document

    def settle(self, since: float) -> list[str]:
        """Wait until everything whole went on after `since`; what did not."""
        return list(self.ask("settle", since=since, within=GOES_ON)["waiting"])

    def finish(self) -> dict[str, Any]:
        """End everything. Asserts that nothing ever broke, and that something happened at all."""
        report = self.ask("finish")
        assert not report["broken"], told(report["broken"])
        return report


@contextmanager
def load(stack: DevStack, name: str, **options: float) -> Iterator[LoadProcess]:
    """Run a load at the first proxy's own port, in alice's private Studio. options: of `survival_load.Options`."""
    door = int(stack.document["proxies"][0].rpartition(":")[2])
    alice = Visitor(via=door)
    url = stack.private["url"]
    alice.log_in(url + "hello", "alice")
    host = url.removeprefix("http://").partition("/")[0]
    with running_load(name, doors=[(door, host, alice.cookie_header(url))], **options) as running:
        yield running


@contextmanager
def running_load(name: str, **arguments: object) -> Iterator[LoadProcess]:
    """The same at any doors. arguments: all of `survival_load.Options`."""
    log = ARTIFACTS / f"{file_name(name)}-load.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.survival_load", json.dumps(arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            running = LoadProcess(process, log)
            opened = running.answer()
            assert not opened["broken"], f"before any fault: {told(opened['broken'])}"
            yield running
        finally:
            process.kill()


@attrs.define
class Measured:
    """What one fault, again and again, did in one stack.

    broken: flows. tunnels: how many the session had. pauses: of each conversation in each round, in seconds.
    silences: of each download.
    """

    stack: str
    fault: str
    visible: bool
    rounds: int = 0
    broken: int = 0
    tunnels: int = 0
    pauses: list[float] = attrs.field(factory=list)
    silences: list[float] = attrs.field(factory=list)

    def add(self, pauses: Sequence[float], silences: Sequence[float]) -> None:
        self.rounds += 1
        self.pauses += pauses
        self.silences += silences

    def document(self) -> dict[str, Any]:
        noticed = [pause for pause in self.pauses if pause > NOTICED]
        return {
            "stack": self.stack,
            "fault": self.fault,
            "visible": self.visible,
            "rounds": self.rounds,
            "broken": self.broken,
            "tunnels": self.tunnels,
            "pauses": summary(self.pauses),
            "noticed": summary(noticed),
            "downloads": summary(self.silences),
        }


def summary(values: Sequence[float]) -> dict[str, float]:
    """How many, and percentiles in milliseconds."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    ranks = {"p50": math.ceil(0.5 * len(values)), "p99": math.ceil(0.99 * len(values)), "max": len(values)}
    return {"count": len(values), **{name: round(1000 * ordered[rank - 1], 1) for name, rank in ranks.items()}}


def rounds(load: LoadProcess, scene: Scene, fault: Fault, count: int, *, stack: str) -> tuple[Measured, Breaks]:
    """Let a fault happen again and again under load; what it cost, and what it broke.

    Goes on with what is whole, so that one broken conversation of many does not hide the others' pauses.
    """
    measured = Measured(stack, fault.name, fault.visible)
    broken: Breaks = []
    for number in range(1, count + 1):
        fault.prepare(scene)
        scene.wait_until_whole()
        load.settle(time.monotonic())
        load.ask("forget")
        with fault.strike(scene) as since:
            waiting = load.settle(since)
        outcome = load.ask("pauses", since=since)
        if outcome["pauses"]:
            scene.wait_until_whole()
            # What comes after, when the stack becomes whole, counts too.
            load.settle(time.monotonic())
            outcome = load.ask("pauses", since=since)
            measured.add(outcome["pauses"], outcome["silences"])
        when = f"in round {number} of {count} of '{fault.name}'"
        before = {name for name, _, _ in broken}
        broken += [(name, f"{when}: {why}", at) for name, why, at in outcome["broken"] if name not in before]
        broken += [(name, f"{when}: did not go on within {GOES_ON:g} s", since) for name in waiting]
        if waiting or not outcome["pauses"]:
            break
    measured.broken = len(broken)
    measured.tunnels = TUNNELS
    return measured, broken


def pause_all(load: LoadProcess, scene: Scene, seconds: float, *, stack: str) -> Measured:
    """What is measured where every conversation waits so many seconds for an answer, or more."""
    scene.wait_until_whole()
    load.settle(time.monotonic())
    load.ask("forget")
    with stopped_agent(scene):
        load.ask("ask")
        since = time.monotonic()
        time.sleep(seconds)
    load.settle(since)
    outcome = load.ask("pauses", since=since)
    measured = Measured(stack, AGENT_STOPPED, visible=True, tunnels=TUNNELS, broken=len(outcome["broken"]))
    measured.add(outcome["pauses"], outcome["silences"])
    return measured


def calm(load: LoadProcess, seconds: float, *, stack: str) -> Measured:
    """The same without a fault, to compare with."""
    measured = Measured(stack, CALM, visible=True)
    load.ask("forget")
    since = time.monotonic()
    time.sleep(seconds)
    outcome = load.ask("pauses", since=since)
    measured.add(outcome["pauses"], outcome["silences"])
    return measured


def told(broken: Breaks) -> str:
    """What broke, in a few lines."""
    lines = [f"{name}: {why}" for name, why, _ in broken]
    return "\n".join([f"{len(lines)} broken", *lines[:10], *(["..."] if len(lines) > 10 else [])])


def memory(scene: Scene) -> dict[str, int]:
    """Resident memory of the parts that carry the session, in bytes."""
    return {
        "proxy": resident(scene.visitors_proxy()),
        "server": sum(map(resident, scene.stack.pids("server"))),
        "agent": resident(scene.agent()),
    }


def within(now: dict[str, int], before: dict[str, int]) -> bool:
    """Whether no part has grown by more than half and a little."""
    return all(now[role] <= 1.5 * before[role] + 20 * MiB for role in before)


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def keep(kind: str, document: dict[str, Any]) -> None:
    """Add what was measured to the file; it takes the place of what it repeats."""
    entry = {"kind": kind, "full": FULL, "at": shown(time.time()), **document}
    ARTIFACTS.mkdir(exist_ok=True)
    same = ("kind", "full", "stack", "fault")
    others = [one for one in kept() if any(one.get(key) != entry.get(key) for key in same)]
    RESULTS.write_text("".join(json.dumps(one) + "\n" for one in (*others, entry)))


def kept(*, since: float = 0.0) -> list[dict[str, Any]]:
    """What the file has. since: not what is older (Unix time)."""
    if not RESULTS.exists() or RESULTS.stat().st_mtime < since:
        return []
    entries = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [one for one in entries if one["at"] >= shown(since)]


def shown(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


AIMS = {
    ("two servers", True): "p99 < 300 ms",
    ("two servers", False): "p99 < 6.5 s",
    ("one server", True): "p50 < 1 s, p99 < 5 s",
}

HEAD = (
    "pauses in ms",
    "tunnels",
    "rounds",
    "broken",
    "p50",
    "p99",
    "max",
    "noticed",
    "p50",
    "p99",
    "downloads p99",
    "aim",
)


def tables(entries: Sequence[dict[str, Any]]) -> list[str]:
    """What was measured, for people: pauses in milliseconds, then stampedes and crowds of agents."""
    pauses = [one for one in entries if one["kind"] == "pauses"]
    lines = []
    if pauses:
        rows = [HEAD, *map(row, sorted(pauses, key=lambda one: (one["stack"], not one["visible"])))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [text for one in entries if one["kind"] == "stampede" for text in stampede_lines(one)]
    lines += [text for one in entries if one["kind"] == "agents" for text in crowd.lines(one)]
    return lines + [cluster_line(one) for one in entries if one["kind"] == "cluster"]


def row(one: dict[str, Any]) -> tuple[str, ...]:
    every, noticed, downloads = one["pauses"], one["noticed"], one["downloads"]
    aim = "" if one["fault"] in (CALM, AGENT_STOPPED) else AIMS.get((one["stack"], one["visible"]), "")
    return (
        f"{one['stack']}, {one['fault']}",
        str(one["tunnels"] or "-"),
        str(one["rounds"]),
        str(one["broken"]),
        *(cell(every, name) for name in ("p50", "p99", "max")),
        f"{noticed['count']} of {every['count']}",
        *(cell(noticed, name) for name in ("p50", "p99")),
        cell(downloads, "p99"),
        aim,
    )


def cell(numbers: dict[str, float], name: str) -> str:
    return f"{numbers[name]:.0f}" if name in numbers else "-"


def stampede_lines(one: dict[str, Any]) -> list[str]:
    steps: dict[str, dict[str, int]] = one["memory"]
    grown = (f"{role} {' '.join(f'{step[role] / MiB:.0f}' for step in steps.values())}" for role in steps["open"])
    return [
        f"{one['conversations']} conversations, {one['fault']}: the last one answered {one['after']:.2f} s after it,"
        f" {one['after_listening']:.2f} s after a server listened again",
        f"MiB of memory when {', '.join(steps)}: {'; '.join(grown)}",
    ]


def cluster_line(one: dict[str, Any]) -> str:
    facts = {key: value for key, value in one.items() if key not in ("kind", "full", "at", "stack", "fault")}
    return f"{one['stack']}, {one['fault']}: " + ", ".join(f"{key} {value}" for key, value in facts.items())


if __name__ == "__main__":
    print("\n".join(tables(kept()) or ["nothing has been measured: run tests/e2e/test_survival.py first"]))
