"""An agent that is the first process of its container: signals reach it, and no zombie stays.

The tests' init is no process 1, but one that the kernel gives orphans to as well (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent, indent

import pytest

from connect_trio.roles.init import under_init

PATIENCE = 60.0

# Ends when there is no end of the pipe left that its test holds: nothing of it outlives a test.
_PROGRAM = """
import ctypes, os, signal, subprocess, sys, time
from connect_trio.roles.init import run_with_init

ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

def say(*words):
    print(*words, flush=True)

def run():
{body}

sys.exit(run_with_init(run))
"""


@contextmanager
def init(body: str) -> Iterator[subprocess.Popen[str]]:
    program = _PROGRAM.format(body=indent(dedent(body).strip(), "    "))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.strip()


def children(pid: int) -> dict[int, str]:
    """Process ids with their states: "Z" is a zombie."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(after[1]) == pid:
            found[int(stat.parent.name)] = after[0]
    return found


def test_what_the_first_process_inherits_is_reaped() -> None:
    body = """
        for _ in range(3):
            subprocess.run(["sh", "-c", "true & sleep 0.1 & exit"])  # whose children are ours to inherit
        say("inherited", os.getpid())
        input()
        return 0
    """
    with init(body) as process:
        child = int(next(lines(process)).split()[1])
        deadline = time.monotonic() + PATIENCE
        while children(process.pid).keys() != {child}:
            assert time.monotonic() < deadline, children(process.pid)
            time.sleep(0.02)
        print(file=process.stdin, flush=True)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 0", 0),
        ("return 2", 2),
        ("sys.exit(3)", 3),
        ("raise RuntimeError", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_its_exit_code_is_the_childs(end: str, code: int) -> None:
    with init(end) as process:
        assert process.wait(PATIENCE) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_the_childs(number: signal.Signals) -> None:
    body = f"""
        def told(number, frame):
            say("told", number)
            os._exit(5)
        signal.signal({int(number)}, told)
        say("ready")
        input()
        return 0
    """
    with init(body) as process:
        heard = lines(process)
        assert next(heard) == "ready"
        process.send_signal(number)
        assert next(heard) == f"told {int(number)}"
        assert process.wait(PATIENCE) == 5


def test_the_child_takes_signals_as_its_parent_did() -> None:
    body = """
        say(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        return 0
    """
    with init(body) as process:
        assert next(lines(process)) == "[]"


def test_any_other_process_runs_by_itself() -> None:
    assert under_init(lambda: 7) == 7
