"""What was measured, as a table for people and as JSON for comparisons."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import trio

from benchmarks.measure import Row, spread

RESULTS = Path(__file__).resolve().parent / "results"


def table(rows: Sequence[Row]) -> str:
    """One block for each load."""
    blocks = []
    for (case, against), group in groupby(rows, lambda row: (row.case, row.against)):
        title = f"{case.name} ({case.unit})"
        latency = case.case == "requests"
        columns = [title, "median", "noise", f"/ {against}", "noise", f"CPU / {against}"]
        columns += ["p50 ms", "p99 ms", "added p50", "added p99"] if latency else []
        lines = [[*columns, f"CPU {case.cpu_unit}: proxy, server, agent"]]
        lines += [_cells(row, latency=latency) for row in group]
        blocks.append(aligned(lines))
    return "\n\n".join(blocks)


def _cells(row: Row, *, latency: bool) -> list[str]:
    cells = [
        f"  {row.target}",
        f"{row.rate:,.0f}",
        f"±{row.noise:.0%}",
        f"{statistics.median(row.ratios):.2f}",
        f"±{spread(row.ratios):.0%}",
        f"{row.cpu_ratio:.2f}",
    ]
    if latency:
        values = (row.latency("p50"), row.latency("p99"), row.added("p50"), row.added("p99"))
        cells += ["" if value is None else f"{value:.2f}" for value in values]
    digits = 1 if latency else 2
    return [*cells, "  ".join(f"{value:7.{digits}f}" for role, value in row.cpu.items() if role != "tool")]


def memory_table(memory: Mapping[str, float]) -> str:
    """KiB of the server's resident memory for each idle thing."""
    lines = [["server's resident memory", "KiB each"], *([f"  {name}", f"{kib:.1f}"] for name, kib in memory.items())]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of numbers to the right; the first one, and a remark in the last one of many, to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = range(1, max(2, len(widths) - 1))
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at in numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def document(rows: Sequence[Row], memory: Mapping[str, float], options: Mapping[str, object]) -> dict[str, object]:
    """Everything, for the JSON file."""
    return {
        **circumstances(options),
        "rows": [row.document() for row in rows],
        "memory_kib": dict(memory),
    }


def circumstances(options: Mapping[str, object]) -> dict[str, object]:
    """When, where and how something was measured."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "trio": trio.__version__,
        },
        "options": dict(options),
    }


def write(result: Mapping[str, object], path: Path | None) -> Path:
    """Write the JSON file; by default one with the time in its name."""
    if path is None:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path
