"""Child processes that never outlive us, each in a session and process group of its own.

A child that we end gets SIGTERM and a while to tidy up; then its whole group is killed. If we are killed ourselves,
the kernel signals the child (`launch.py`); nothing that was started stays behind.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from connect_trio import launch

# The soft limit that we were started with, and that children get. We may raise ours; a program that closes every file
# that it could have open, one by one, or that knows only 1024, must not pay for it.
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class CannotStart(Exception):
    """The program is not there or may not be run; the text says which."""


class Child:
    """A running program, made by `start_child`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._process.poll()

    async def wait(self) -> int:
        """Its exit code, once it has ended. Several tasks may wait."""
        await trio.lowlevel.checkpoint()
        while self.exit_code is None:
            if hasattr(os, "pidfd_open"):
                await self._wait_by_descriptor()
            else:
                await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
        return self._process.wait()

    async def _wait_by_descriptor(self) -> None:
        descriptor = os.pidfd_open(self.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill_group(self) -> None:
        """End the program and what it started in its group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, grace: float) -> int:
        """SIGTERM, and after `grace` seconds SIGKILL for the whole group. Its exit code; never takes much longer.

        Also for clean-up: it does its work when cancelled, too.
        """
        with trio.CancelScope(shield=True):
            if self.exit_code is None:
                self.signal(signal.SIGTERM)
                with trio.move_on_after(grace):
                    await self.wait()
            self.kill_group()
            await self.wait()
        return self._process.wait()


def start_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    orphan_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """Start a program without input, whose output goes to our stderr. Raises CannotStart.

    env: its whole environment. orphan_signal: what it gets if we die first.

    Started from this thread and not from a worker: the kernel's signal comes when the *thread* that started it ends.
    """
    check_program(command[0], env=env, cwd=cwd)
    # Isolated and without site-packages: this adds ten milliseconds instead of fifty.
    ours = (str(int(orphan_signal)), str(os.getpid()), str(OPEN_FILES))
    launcher = [sys.executable, "-I", "-S", launch.__file__, *ours]
    process = subprocess.Popen(  # noqa: S603 - the command comes from whoever runs us
        [*launcher, *command],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=2,
        stderr=2,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    return Child(process)


def check_program(program: str, *, env: Mapping[str, str], cwd: Path | None = None) -> None:
    """Raises CannotStart if there is no such program, as seen from `cwd`."""
    path = str((cwd or Path.cwd()) / program) if "/" in program else program
    if shutil.which(path, path=env.get("PATH", os.defpath)) is None:
        raise CannotStart(f"there is no program {program}: install it, or write its whole path")
