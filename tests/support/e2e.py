"""The stack as its users run it: `connect_trio dev` as a child process, looked at from outside only."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs

from tests.support.impatient import PROGRAM, environ

ROOT = Path(__file__).resolve().parent.parent.parent
ARTIFACTS = ROOT / "test-artifacts"
"""Screenshots of what failed, and what each stack said on stderr."""

FULL = os.environ.get("CONNECT_E2E_FULL", "").lower() in ("1", "true", "yes")
"""Whether tests move as much, and wait as long, as Connect promises; otherwise a fraction of it."""

CONNECT = (sys.executable, "-m", "connect_trio")
MODES = {"single": (), "processes": ("--processes", "--servers", "2", "--proxies", "2")}

PATIENCE = 60.0
"""Seconds for anything to happen at all; nothing here measures time."""

STOP = 5.0 if FULL else PATIENCE
"""Seconds within which a stack must have stopped, children included: 5 are promised, to a machine that is not busy."""

MiB = 1 << 20

T = TypeVar("T")


@attrs.define
class DevStack:
    """A running stack.

    document: what it said when it was ready. state: the file that always says it anew. log: what it said on stderr.
    """

    process: subprocess.Popen[str]
    document: dict[str, Any]
    state: Path
    log: Path
    root: Path

    @property
    def connect_url(self) -> str:
        return str(self.document["connect_url"])

    @property
    def platform_url(self) -> str:
        return str(self.document["platform_url"])

    @property
    def shared(self) -> dict[str, str]:
        """The session that bob may open too."""
        return self._session("Shared Studio")

    @property
    def private(self) -> dict[str, str]:
        return self._session("Private Studio")

    def now(self) -> dict[str, Any]:
        """What the state file says."""
        document: dict[str, Any] = json.loads(self.state.read_text())
        return document

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def pids(self, role: str) -> list[int]:
        return list(self.now()["pids"][role])

    def wait_for_agents(self) -> None:
        """It is ready without those that are late."""
        wanted = len(self.document["sessions"]) if self.document["management"] else 1
        wait_until(lambda: len(self.now()["pids"].get("agent", [])) == wanted, "the agents")

    def wait_for_log(self, text: str) -> str:
        """The first line on stderr with this text."""
        return wait_until(lambda: next((line for line in self.said().splitlines() if text in line), None), text)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it as a user does, and look whether it kept what it promises: in time, with 0, nothing left behind."""
        family = descendants(self.process.pid)
        deadline = time.monotonic() + STOP
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=STOP)
        left = family
        while left and time.monotonic() < deadline:
            left = [process for process in left if process.lives]
            time.sleep(0.01)
        assert self.process.returncode == 0, self.said()[-2000:]
        assert rest == "", "one line on stdout, and no other"
        assert left == [], "processes that a stopped stack has left behind"
        assert self.now()["ready"] is False

    def _session(self, name: str) -> dict[str, str]:
        return next(session for session in self.document["sessions"] if session["name"] == name)


@contextmanager
def dev_stack(
    *arguments: str,
    root: Path,
    name: str,
    env: dict[str, str] | None = None,
    calm: bool = True,
    waits: Mapping[str, float] | None = None,
) -> Iterator[DevStack]:
    """Run `connect_trio dev` on free ports, and stop it afterwards.

    arguments: further ones, a tool's command among them. root: the folder that Studios show. name: of its log among
    the artifacts. env: what to add to the environment. calm: whether an error with a traceback in the log is a failure.
    waits: which of its waits are to be shorter than they are, as `tests.support.impatient` takes them.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    log = ARTIFACTS / f"{file_name(name)}.log"
    state = root.parent / f"{root.name}-state.json"
    command = [*(PROGRAM if waits else CONNECT), "dev", "--port", "0", "--platform-port", "0", "--json"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, "--root", str(root), "--state", str(state), *arguments],
            cwd=ROOT,
            env={**os.environ, "XDG_STATE_HOME": str(ARTIFACTS / "state"), **environ(waits or {}), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the stack did not start: {log.read_text()[-2000:]}"
        stack = DevStack(process, json.loads(line), state, log, root)
        stack.wait_for_agents()
        yield stack
        if process.poll() is None:
            stack.stop()
        assert not calm or "Traceback" not in stack.said(), f"an error that nobody expected: see {log}"
    finally:
        # Whatever went wrong: the kernel ends the children of a stack that is killed.
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@attrs.frozen
class Process:
    """A process of the system. start: in clock ticks after boot, which tells it from a later one of the same id."""

    pid: int
    parent: int
    start: int
    state: str
    name: str

    @property
    def lives(self) -> bool:
        now = process_of(self.pid)
        return now is not None and now.start == self.start and now.state != "Z"


def process_of(pid: int) -> Process | None:
    """What /proc says about a process (proc(5)); None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in brackets and may hold some itself.
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(pid, int(fields[1]), int(fields[19]), fields[0], name)


def descendants(pid: int) -> list[Process]:
    """Children of a process, their children, and so on."""
    everything = [process for entry in Path("/proc").glob("[0-9]*") if (process := process_of(int(entry.name)))]
    found: list[Process] = []
    family = {pid}
    while added := [one for one in everything if one.parent in family and one.pid not in family]:
        found += added
        family |= {one.pid for one in added}
    return found


def listening_ports(pid: int) -> set[int]:
    """The TCP ports of IPv4 on which a process listens: its sockets, found in /proc/net/tcp (proc(5))."""
    links = (name for link in Path(f"/proc/{pid}/fd").iterdir() if (name := open_file(link)))
    inodes = {name.removeprefix("socket:[").removesuffix("]") for name in links if name.startswith("socket:[")}
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def open_file(link: Path) -> str:
    """What a descriptor is; empty if it was closed just now."""
    try:
        return link.readlink().name
    except FileNotFoundError:
        return ""


def wait_until(look: Callable[[], T | None], what: str, *, patience: float = PATIENCE, every: float = 0.02) -> T:
    """What `look` finds, as soon as it is something; it looks every so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(every)


def run_cli(
    *arguments: str, env: dict[str, str] | None = None, waits: Mapping[str, float] | None = None
) -> tuple[int, list[str]]:
    """A command of connect_trio that ends by itself: its exit code, and the lines of its stderr. waits: as above."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CONNECT_", "PLATFORM_"))}
    done = subprocess.run(
        [*(PROGRAM if waits else CONNECT), *arguments],
        cwd=ROOT,
        env={**clean, **environ(waits or {}), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def file_name(text: str) -> str:
    """A test's name, made fit for a file's."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def with_tool(mode: str, command: Sequence[str]) -> list[str]:
    """Arguments for a stack in this mode with a tool of its own."""
    return [*MODES[mode], "--", *command]
