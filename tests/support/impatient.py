"""`connect_trio` as it is, but for two waits: `python -m tests.support.impatient dev --processes ...`.

An agent whose tunnels met at one server looks for another one after ten seconds, and what a tunnel carries that was
replaced may stay there for half a minute. Who waits until a stack is whole again waits for both.
"""

from __future__ import annotations

import sys

import attrs

from connect_trio import sessions
from connect_trio.agent import client
from connect_trio.cli import main
from connect_trio.roles import dev_processes

COMMAND = (sys.executable, "-m", "tests.support.impatient")

LOOK, LINGER = 0.5, 1.0
"""Seconds, instead of the ones in `connect_trio.agent.client` and `connect_trio.sessions`."""


def impatient(process: dev_processes.Process) -> dev_processes.Process:
    """The same role, started by way of this module."""
    if process.role not in ("server", "agent"):
        return process
    return attrs.evolve(process, command=[*COMMAND, *process.command[3:]])


def run() -> int:
    client.LOOK, sessions.LINGER, sessions.RENEW = LOOK, LINGER, LINGER
    original = dev_processes.role_process
    dev_processes.role_process = lambda *arguments, **options: impatient(original(*arguments, **options))
    return main()


if __name__ == "__main__":
    sys.exit(run())
