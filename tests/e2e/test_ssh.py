"""SSH through the whole stack, as `connect_trio dev` has it, by OpenSSH's client."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import attrs
import pytest

from tests.support.e2e import FULL, MODES, PATIENCE, DevStack, MiB, dev_stack
from tests.support.files import checksum, fill
from tests.support.parts import require
from tests.support.ssh import client, keygen

SIZE = (200 if FULL else 4) * MiB
LONG = 600.0 if FULL else PATIENCE  # seconds that a client may take


@attrs.define
class Scene:
    """home: of the client. stack: with its key."""

    stack: DevStack
    home: Path

    def ssh(
        self, *arguments: str, user: str = "alice", label: str | None = None, stdin: bytes = b"", program: str = "ssh"
    ) -> subprocess.CompletedProcess[bytes]:
        config = self.configure(user, label)
        command = [client(program), "-F", str(config), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=LONG, check=False, cwd=self.home)

    def configure(self, user: str = "alice", label: str | None = None) -> Path:
        """The client's configuration, in which the Studio is `studio`."""
        config, ssh = self.home / f"config-{user}", self.stack.document["ssh"]
        text = f"""\
Host studio
    HostName {ssh["host"]}
    Port {ssh["port"]}
    User {user}@{label or self.stack.shared["label"]}
    IdentityFile {self.home}/id_{user}
    IdentitiesOnly yes
    UserKnownHostsFile {self.home}/known_hosts
    StrictHostKeyChecking accept-new
    BatchMode yes
"""
        if not config.exists() or config.read_text() != text:  # clients may be reading it
            config.write_text(text)
        return config


@pytest.fixture(scope="module")
def scene(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require("ssh")
    root = tmp_path_factory.mktemp("ssh-root")
    with tempfile.TemporaryDirectory(prefix="connect-ssh-") as folder:  # sockets of ssh need a short path
        yield from make_scene(mode, Path(folder), root)


def make_scene(mode: str, home: Path, root: Path) -> Iterator[Scene]:
    for user in ("alice", "bob"):
        keygen(home / f"id_{user}")
    options = (*MODES[mode], "--ssh-port", "0", "--authorized-key", str(home / "id_alice.pub"))
    env = {"XDG_STATE_HOME": str(home / "state")}
    with dev_stack(*options, root=root, name=f"ssh-{mode}", env=env) as stack:
        scene = Scene(stack, home)
        scene.ssh("studio", "true")  # which gets to know the host
        yield scene


def test_the_stack_tells_where_ssh_is_and_by_which_key(scene: Scene) -> None:
    found = scene.stack.document["ssh"]
    assert found["host"] == "127.0.0.1"
    scan = [client("ssh-keyscan"), "-t", "ed25519", "-p", str(found["port"]), "127.0.0.1"]
    line = subprocess.run(scan, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    shown = subprocess.run([client("ssh-keygen"), "-lf", "-"], input=line, capture_output=True, text=True, check=True)
    assert found["fingerprint"] in shown.stdout


def test_a_command_in_the_folder_of_the_studio(scene: Scene) -> None:
    done = scene.ssh("studio", "pwd; echo err >&2; exit 3")
    assert (done.stdout.decode().strip(), done.stderr, done.returncode) == (str(scene.stack.root), b"err\n", 3)


def test_both_studios_are_reached(scene: Scene) -> None:
    for session in (scene.stack.shared, scene.stack.private):
        done = scene.ssh("studio", "echo in", label=session["label"])
        assert (done.stdout, done.returncode) == (b"in\n", 0), done.stderr


def test_much_both_ways(scene: Scene) -> None:
    data = os.urandom(16 * MiB)
    done = scene.ssh("studio", "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_no_short_command_loses_a_byte(scene: Scene) -> None:
    """A thousand of them in full, over four connections."""
    each = 250 if FULL else 10

    def some(start: int) -> None:
        master = ("-o", f"ControlPath={scene.home}/cm{start}")
        for number in range(start, start + each):
            command = f"echo {number}; echo e{number} >&2; exit {number % 256}"
            done = scene.ssh(*master, "-o", "ControlMaster=auto", "-o", "ControlPersist=30", "studio", command)
            assert (done.stdout, done.returncode) == (f"{number}\n".encode(), number % 256), done.stderr
            assert f"e{number}\n".encode() in done.stderr
        scene.ssh(*master, "-O", "exit", "studio")

    scene.configure()
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(some, start) for start in range(0, 4 * each, each)]:
            done.result()


@pytest.mark.parametrize("program", ["scp", "sftp", "rsync"])
def test_files_both_ways(scene: Scene, program: str) -> None:
    here, there, back = (scene.home / f"up-{program}", scene.stack.root / program, scene.home / f"back-{program}")
    expected = fill(here, SIZE)
    if program == "rsync":
        require("rsync")
        shell = " ".join([client("ssh"), "-F", str(scene.configure())])
        for arguments in ((str(here), f"studio:{there}"), (f"studio:{there}", str(back))):
            subprocess.run(["rsync", "-e", shell, *arguments], check=True, capture_output=True, timeout=LONG)
    else:
        require("sftp-server")
        if program == "scp":
            answers = [
                scene.ssh(str(here), f"studio:{there}", program="scp"),
                scene.ssh(f"studio:{there}", str(back), program="scp"),
            ]
        else:
            words = f"put {here} {there}\nget {there} {back}\n".encode()
            answers = [scene.ssh("-b", "-", "studio", program="sftp", stdin=words)]
        assert [done.returncode for done in answers] == [0] * len(answers), answers[-1].stderr
    assert checksum(there) == checksum(back) == expected
    for path in (here, there, back):
        path.unlink()


@pytest.mark.parametrize(
    ("user", "label", "says"),
    [
        ("bob", None, "for a user bob; add it at Platform"),
        ("alice", "a00000000", "there is no Studio a00000000"),
    ],
)
def test_who_does_not_come_in_is_told_why(scene: Scene, user: str, label: str | None, says: str) -> None:
    done = scene.ssh("studio", "true", user=user, label=label)
    assert done.returncode == 255
    assert says in done.stderr.decode()
    assert done.stdout == b""


def test_a_jump_to_the_other_studio(scene: Scene) -> None:
    """By way of this one, whose loopback is the proxy's here."""
    ssh = scene.stack.document["ssh"]
    scene.ssh("studio", "true")  # writes the configuration
    config = scene.home / "config-alice"
    inner = f"Host inner\n    HostName {ssh['host']}\n    Port {ssh['port']}\n    ProxyJump studio\n"
    inner += f"    User alice@{scene.stack.private['label']}\n    IdentityFile {scene.home}/id_alice\n"
    inner += f"    UserKnownHostsFile {scene.home}/known_hosts\n"
    config.write_text(config.read_text() + inner)
    command = [client("ssh"), "-F", str(config), "inner", "echo through"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    assert done.stdout == b"through\n", done.stderr


def test_the_block_of_ssh_config_is_all_that_a_client_needs(scene: Scene) -> None:
    """As docs/ssh.md has it: written by the command, and used by ssh, scp, rsync and ControlMaster."""
    ssh, label = scene.stack.document["ssh"], scene.stack.shared["label"]
    command = [sys.executable, "-m", "connect_trio", "ssh-config", label]
    command += ["--host", ssh["host"], "--port", str(ssh["port"]), "--user", "alice"]
    block = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    config = scene.home / "block"
    ours = ("IdentityFile id_alice", "UserKnownHostsFile known_hosts", "BatchMode yes")
    config.write_text(block.replace("~/.ssh/", f"{scene.home}/") + "".join(f"    {line}\n" for line in ours))
    scene.ssh("studio", "true")  # the host is known

    def done(program: str, *arguments: str) -> bytes:
        whole = [client(program), "-F", str(config), *arguments]
        process = subprocess.run(whole, capture_output=True, timeout=PATIENCE, check=False, cwd=scene.home)
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert done("ssh", label, "echo in") == b"in\n"
    assert (
        b"Master running"
        in subprocess.run(
            [client("ssh"), "-F", str(config), "-O", "check", label], capture_output=True, timeout=PATIENCE, check=True
        ).stderr
    )
    require("sftp-server")
    (scene.home / "given").write_text("content")
    done("scp", str(scene.home / "given"), f"{label}:taken")
    assert (scene.stack.root / "taken").read_text() == "content"
    (scene.stack.root / "taken").unlink()
    done("ssh", "-O", "exit", label)


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Scene]:
    """A stack of processes whose servers may be killed."""
    require("redis-server")
    keygen(tmp_path / "id_alice")
    root = tmp_path / "root"
    root.mkdir()
    options = (*MODES["processes"], "--ssh-port", "0", "--authorized-key", str(tmp_path / "id_alice.pub"))
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with dev_stack(*options, root=root, name="ssh-survival", env=env, calm=False) as stack:
        scene = Scene(stack, tmp_path)
        scene.ssh("studio", "true")
        yield scene


def test_a_shell_outlives_the_server_that_carries_it(crashing: Scene) -> None:
    """Each number comes once and in order, whatever is killed meanwhile."""
    counting = "i=0; while read line; do i=$((i+1)); echo $i $line; done; exit 7"
    command = [client("ssh"), "-F", str(crashing.home / "config-alice"), "studio", counting]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        number = 0
        for round_ in range(4):
            for _ in range(50):
                number += 1
                process.stdin.write(f"line{number}\n".encode())
                process.stdin.flush()
                assert process.stdout.readline() == f"{number} line{number}\n".encode()
            kill_a_server(crashing, round_)
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(PATIENCE) == 7
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def kill_a_server(scene: Scene, number: int) -> None:
    for pid in scene.stack.pids("server")[number % 2 : number % 2 + 1]:
        os.kill(pid, signal.SIGKILL)


def test_a_long_command_outlives_the_servers_that_carry_it(crashing: Scene) -> None:
    """Megabytes go both ways at once through `tee`, servers die in the middle, and no byte is lost or comes twice."""
    data = os.urandom(24 * MiB)
    command = [client("ssh"), "-F", str(crashing.home / "config-alice"), "studio", "tee copy; echo end >&2; exit 3"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    came = bytearray()

    def write(stdin: IO[bytes]) -> None:
        with stdin:
            stdin.write(data)

    try:
        with ThreadPoolExecutor() as threads:
            writing = threads.submit(write, process.stdin)
            for part in range(6):
                while len(came) < (part + 1) * len(data) // 6:
                    got = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
                    assert got, process.stderr.read()
                    came += got
                if part < 4:
                    kill_a_server(crashing, part)
            writing.result(PATIENCE)
        assert process.stdout.read() == b""
        assert process.wait(PATIENCE) == 3
        assert process.stderr.read() == b"end\n"
        assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()
        assert checksum(crashing.stack.root / "copy") == hashlib.sha256(data).hexdigest()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
