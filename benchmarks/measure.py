"""Rounds of measurements. All targets take turns within each round, so that a busy moment hits all of them alike."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from benchmarks.load import Spec
from benchmarks.targets import CannotMeasure, Target

LOAD = Path(__file__).resolve().parent / "load.py"
TIMEOUT = 600.0
GIB = 1 << 30
MB = 1_000_000


@attrs.frozen(kw_only=True)
class Case:
    """One kind of load. case, size, connections, seconds: as in `load.Spec`."""

    name: str
    case: str
    size: int = 0
    connections: int = 1
    seconds: float = 0.0

    @property
    def unit(self) -> str:
        return "req/s" if self.case == "requests" else "MB/s"

    @property
    def cpu_unit(self) -> str:
        return "us per request" if self.case == "requests" else "s per GiB"


@attrs.frozen(kw_only=True)
class Sample:
    """One target under one load in one round. rate: in the case's unit; cpu: by role; p50, p99: in ms, of requests."""

    rate: float
    cpu: dict[str, float]
    p50: float | None = None
    p99: float | None = None


@attrs.frozen(kw_only=True)
class Row:
    """What came out for one target under one load, over all rounds."""

    case: Case
    target: str
    samples: tuple[Sample, ...]
    reference: tuple[Sample, ...]  # of the target that rates are compared with, in the same rounds
    direct: tuple[Sample, ...]  # of the one that latencies are compared with
    against: str = "relay"  # the name of the former

    @property
    def rate(self) -> float:
        return statistics.median(sample.rate for sample in self.samples)

    @property
    def noise(self) -> float:
        """Half of the way from the slowest round to the fastest, as a part of the median."""
        return spread([sample.rate for sample in self.samples])

    @property
    def ratios(self) -> list[float]:
        """To the reference, by round."""
        return [own.rate / other.rate for own, other in zip(self.samples, self.reference, strict=True)]

    @property
    def cpu_ratio(self) -> float:
        """CPU time of all its processes together, to the reference's. A busy machine disturbs it less than rates."""
        pairs = zip(self.samples, self.reference, strict=True)
        return statistics.median(sum(own.cpu.values()) / sum(other.cpu.values()) for own, other in pairs)

    @property
    def cpu(self) -> dict[str, float]:
        roles = self.samples[0].cpu
        return {role: statistics.median(sample.cpu[role] for sample in self.samples) for role in roles}

    def latency(self, name: str) -> float | None:
        """The median of "p50" or "p99" in ms; None for a transfer."""
        values = [value for sample in self.samples if (value := getattr(sample, name)) is not None]
        return statistics.median(values) if values else None

    def added(self, name: str) -> float | None:
        """What it adds to "p50" or "p99" of `direct`, in ms."""
        values = [
            getattr(own, name) - getattr(other, name)
            for own, other in zip(self.samples, self.direct, strict=True)
            if own.p50 is not None
        ]
        return statistics.median(values) if values else None

    def document(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "case": self.case.name,
            "target": self.target,
            "unit": self.case.unit,
            "median": self.rate,
            "noise": self.noise,
            f"ratio_to_{self.against}": statistics.median(self.ratios),
            "ratio_noise": spread(self.ratios),
            "rounds": [attrs.asdict(sample) for sample in self.samples],
            "cpu_unit": self.case.cpu_unit,
            "cpu": self.cpu,
            f"cpu_ratio_to_{self.against}": self.cpu_ratio,
            "p50_ms": self.latency("p50"),
            "p99_ms": self.latency("p99"),
            "added_p50_ms": self.added("p50"),
            "added_p99_ms": self.added("p99"),
        }


def spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2 / statistics.median(values)


def measure(
    cases: Sequence[Case], targets: Sequence[Target], *, rounds: int, progress: Callable[[str], None], reference: int
) -> list[Row]:
    """All targets under all loads. Latencies are compared with the first one's, rates with those of `reference`."""
    samples: dict[tuple[str, str], list[Sample]] = {(case.name, each.name): [] for case in cases for each in targets}
    for number in range(rounds):
        for case in cases:
            progress(f"round {number + 1} of {rounds}: {case.name}")
            # Each round begins with another one, so that nobody always comes after the same neighbour.
            for at in range(len(targets)):
                target = targets[(at + number) % len(targets)]
                samples[case.name, target.name].append(run(case, target))
    direct, against = targets[0].name, targets[reference].name
    return [
        Row(
            case=case,
            target=target.name,
            samples=tuple(samples[case.name, target.name]),
            reference=tuple(samples[case.name, against]),
            direct=tuple(samples[case.name, direct]),
            against=against,
        )
        for case in cases
        for target in targets
    ]


def run(case: Case, target: Target) -> Sample:
    """One load in a process of its own. Raises CannotMeasure."""
    spec = Spec(
        case=case.case,
        port=target.port,
        host=target.host,
        cookie=target.cookie,
        size=case.size,
        connections=case.connections,
        seconds=case.seconds,
        pids=target.pids,
    )
    command = [sys.executable, str(LOAD), json.dumps(dataclasses.asdict(spec))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise CannotMeasure(f"{case.name} at {target.name} failed: {reason}")
    result = json.loads(done.stdout)
    if case.case == "requests":
        count = result["requests"]
        cpu = {role: seconds / count * 1e6 for role, seconds in result["cpu"].items()}
        rate = count / result["seconds"]
        return Sample(rate=rate, cpu=cpu, p50=result["p50"] * 1000, p99=result["p99"] * 1000)
    cpu = {role: seconds / case.size * GIB for role, seconds in result["cpu"].items()}
    return Sample(rate=case.size / result["seconds"] / MB, cpu=cpu)
