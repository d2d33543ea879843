"""`connect_trio` with other waits than its own: `python -m tests.support.impatient dev ...`, also in its processes.

A test that waits until a stack is whole again, or until something is given up, waits as long as that takes. What it
shows it shows in less time, too.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping

import attrs

from connect_trio.cli import main
from connect_trio.roles import dev_processes

PROGRAM = (sys.executable, "-m", "tests.support.impatient")
VARIABLE = "IMPATIENT"

SOON_WHOLE = {
    "connect_trio.agent.client.LOOK": 0.5,  # an agent whose tunnels met at one server looks for another one
    "connect_trio.sessions.LINGER": 1.0,  # what a tunnel carries that was replaced leaves it
    "connect_trio.sessions.RENEW": 1.0,  # a server finds out that a tunnel was replaced
}
"""Waits for a stack to be as it was before a fault, in seconds."""


def environ(waits: Mapping[str, float]) -> dict[str, str]:
    """What tells PROGRAM of these waits: "package.module.NAME", and seconds."""
    return {VARIABLE: json.dumps(dict(waits))}


def alike(process: dev_processes.Process) -> dev_processes.Process:
    """A role of `connect_trio dev --processes`, started by way of this module."""
    return attrs.evolve(process, command=[*PROGRAM, *process.command[len(PROGRAM) :]])


def run() -> int:
    for name, seconds in json.loads(os.environ[VARIABLE]).items():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name
        setattr(importlib.import_module(module), constant, seconds)
    original = dev_processes.role_process
    dev_processes.role_process = lambda *arguments, **options: alike(original(*arguments, **options))
    return main()


if __name__ == "__main__":
    sys.exit(run())
