"""`connect_trio dev`: the whole stack on this machine with one command, loopback only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import attrs
import trio

from connect_trio.roles.dev_plan import CannotRun, DevOptions, Plan, make_plan
from connect_trio.roles.dev_report import Report
from connect_trio.roles.dev_ssh import make_ssh_files
from connect_trio.roles.running import run_until_stopped


async def run_dev(plan: Plan, *, out: TextIO, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Run the stack until cancelled. Tells where to click on `out` once it can be used; then it has started.

    Raises what the roles raise, CannotRun and OSError, in groups.
    """
    report = Report(plan)
    try:
        async with trio.open_nursery() as nursery:
            # Imported here: the parent of many processes needs no role itself, and starts in half the time.
            if plan.options.processes:
                from connect_trio.roles.dev_processes import run_processes as run
            else:
                from connect_trio.roles.dev_single import run_single as run
            await nursery.start(run, plan, report)
            report.ready()
            out.write(report.line() if plan.options.json else report.greeting())
            out.flush()
            task_status.started()
    finally:
        report.stopped()


def dev(options: DevOptions, *, environ: Mapping[str, str]) -> None:
    """Run the stack until SIGINT or SIGTERM. Raises as `run_dev`."""
    with own_stdout() as out, tempfile.TemporaryDirectory(prefix="connect-dev-") as work:
        plan = make_plan(options, work=Path(work), environ=environ)
        ssh = make_ssh_files(options, work=plan.work, environ=environ)
        plan = attrs.evolve(plan, ssh_key=ssh.host_key, ssh_fingerprint=ssh.fingerprint, ssh_users_keys=ssh.keys)
        if options.state is not None and not options.state.absolute().parent.is_dir():
            raise CannotRun(f"--state {options.state}: there is no such folder; make it first")
        trio.run(_until_stopped, plan, out)


async def _until_stopped(plan: Plan, out: TextIO) -> None:
    async def run(task_status: trio.TaskStatus[None]) -> None:
        await run_dev(plan, out=out, task_status=task_status)

    await run_until_stopped(run)


@contextlib.contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Standard output for us alone: what tools and libraries print goes to stderr, so that a reader of ours finds only
    what it waits for."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as out:
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)
