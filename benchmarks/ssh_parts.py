"""The parts of `benchmarks.ssh_edge`: the stack, the processes with clients, and what is asked of them and of /proc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from benchmarks.ssh_clients import Answer, Place
from benchmarks.targets import HERE, STOP, CannotMeasure, running

PATIENCE = 60.0  # seconds that a single client may take
USER = "alice"
BUG = 60  # lines that are shown of an unexpected error


@attrs.frozen(kw_only=True)
class SshStack:
    """A running stack. pids: of its roles. labels: of the Studios of USER. log: what it says."""

    port: int
    labels: Sequence[str]
    pids: Mapping[str, list[int]]
    key: Path
    log: Path

    @property
    def proxy(self) -> int:
        return self.pids["proxy"][0]

    def clients(self, number: int) -> Place:
        """For a process with clients; each needs another number."""
        return Place(port=self.port, user=USER, labels=self.labels, key=str(self.key), number=number)

    def bugs(self) -> list[str]:
        """Lines of its log that tell of an error that nobody expected, with a few that follow each."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [number for number, line in enumerate(lines) if "Traceback" in line or "this is a bug" in line]
        return ["\n".join(lines[number : number + BUG]) for number in found]


@contextmanager
def ssh_stack(caps: Mapping[str, int]) -> Iterator[SshStack]:
    """Connect, each role a process, with a key of USER. caps: variables of the proxy. Raises CannotMeasure."""
    command = [sys.executable, "-m", "connect_trio", "dev", "--processes", "--port", "0", "--platform-port", "0"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        key, log, state, root = folder / "key", folder / "log", folder / "state.json", folder / "root"
        root.mkdir()
        subprocess.run([_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        command += ["--ssh-port", "0", "--authorized-key", f"{key}.pub", "--root", str(root), "--json"]
        env = os.environ | {"XDG_STATE_HOME": str(folder)} | {cap: str(value) for cap, value in caps.items()}
        with (
            log.open("w") as stderr,
            running([*command, "--state", str(state)], env=env, stdout=subprocess.PIPE, stderr=stderr) as process,
        ):
            if process.stdout is None or not process.stdout.readline():
                raise CannotMeasure(f"the development stack does not start: {log.read_text()[-1000:]}")
            document = json.loads(state.read_text())
            labels = [session["label"] for session in document["sessions"]]
            yield SshStack(port=document["ssh"]["port"], labels=labels, pids=document["pids"], key=key, log=log)


class Crew:
    """A process with clients (`benchmarks.ssh_clients`)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, do: str, **arguments: object) -> None:
        """Have something done; `hear` waits until it is."""
        self.say({"do": do, **arguments})

    def ask(self, do: str, **arguments: object) -> Answer:
        self.order(do, **arguments)
        return self.hear()

    def hear(self) -> Answer:
        """Raises CannotMeasure."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise CannotMeasure("a process with SSH clients ended early; what it said is above")
        answer: Answer = json.loads(line)
        return answer

    def say(self, words: Mapping[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()


@contextmanager
def crew(place: Place) -> Iterator[Crew]:
    """Starts one. It is ready when it is first heard, so that many can start at the same time."""
    command = [sys.executable, "-m", "benchmarks.ssh_clients"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=HERE.parent, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            found = Crew(process)
            found.say(attrs.asdict(place))
            yield found
        finally:
            process.kill()
            process.wait(STOP)


def shown_by_openssh(stack: SshStack) -> tuple[int, str]:
    """The status of OpenSSH's client that is to run `true`, and what its user sees."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"]
    command = [_program("ssh"), "-F", "none", "-p", str(stack.port), "-i", str(stack.key), "-o", "LogLevel=ERROR"]
    command += [part for option in options for part in ("-o", option)]
    done = subprocess.run(
        [*command, f"{USER}@{stack.labels[0]}@127.0.0.1", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr.strip()


def resident(pid: int, name: str = "VmRSS:") -> float:
    """MiB of memory (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def forget_peak(pid: int) -> None:
    """From now on, `resident(pid, "VmHWM:")` is the most since now (proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise CannotMeasure(f"there is no {name} here, which comes with OpenSSH's client")
    return path
