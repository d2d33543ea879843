"""A role as a process of its own, told by variables alone; looked at from outside."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

PATIENCE = 60.0


def clean_environ() -> dict[str, str]:
    """Ours, without what configures a role."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("CONNECT_", "PLATFORM_"))}


def run_connect(*arguments: str, **env: str) -> tuple[int, list[str], list[str]]:
    """A command that ends by itself: its exit code, and the lines of its stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "connect_trio", *arguments],
        env=clean_environ() | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@attrs.define
class RunningRole:
    """started: what it said when it was ready. log: the file of its stderr. code: set when it was stopped."""

    process: subprocess.Popen[bytes]
    started: dict[str, Any]
    log: Path
    code: int | None = None

    @property
    def said(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def open_files(self) -> tuple[int, int]:
        """Its soft and its hard limit of open files now."""
        return resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.code = self.process.wait(PATIENCE)
        return self.code


@contextmanager
def running_role(
    *arguments: str, env: Mapping[str, str], log: Path, open_files: tuple[int, int] | None = None
) -> Iterator[RunningRole]:
    """Start a role; yield when it says that it is ready.

    env: its variables. open_files: its soft and hard limit. log: a new file for its stderr.
    """
    command = [sys.executable, "-m", "connect_trio", *arguments]
    if open_files is not None:
        soft, hard = open_files
        command = ["sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh", *command]
    reading, writing = os.pipe()
    with log.open("wb") as stderr, open(reading) as pipe:
        ready = {"CONNECT_READY_FD": str(writing)}
        process = subprocess.Popen(
            command,
            env=clean_environ() | dict(env) | ready,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[writing],
        )
        os.close(writing)
        try:
            line = pipe.readline()  # empty if it ended instead
            assert line, log.read_text()
            yield RunningRole(process, json.loads(line)["started"], log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
