"""Many streams through one proxy whose memory is scarce: a hundredth of what it is to carry, and of its budget.
CONNECT_E2E_FULL=1 opens all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connect_trio.mux.budget import BUDGET, FLOOR

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("CONNECT_E2E_FULL"))
STREAMS, AGENTS = (60_000, 100) if FULL else (600, 10)


@pytest.mark.slow
def test_all_streams_open_and_move_bytes_both_ways_while_memory_is_scarce(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.many_streams", "--streams", str(STREAMS), "--agents", str(AGENTS)]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    told = {name: step["told"] for name, step in result["many_streams"].items()}
    budget = BUDGET * STREAMS // 60_000
    assert result["agents"] == {"opened": STREAMS, "refused": 0}
    assert told["filled"]["used"] > budget // 2
    assert told["filled"]["share"] == told["opened"]["share"] == FLOOR
    moved = told["moved"]
    assert (moved["streams"], moved["refused"], moved["ended"]) == (STREAMS, 0, 0)
    assert moved["moved"] == STREAMS * 995 // 1000 * 2 * 8192, "all but those that fill the memory"
    assert moved["peak"] <= budget
    assert told["free"]["share"] > FLOOR, "windows stay small"
