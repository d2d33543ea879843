"""The SSH edge under test: real, with OpenSSH's client in front of it and a real agent's forwarder behind it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from connect_trio.agent.listening import ListenPolicy
from connect_trio.dial import Dialer
from connect_trio.edge.scopes import SessionScopes
from connect_trio.identity.control_plane import RUNNING, Decision
from connect_trio.roles.ssh import SshScopes
from connect_trio.routing.names import label_of
from connect_trio.ssh.bridge_keys import HostKey, make_host_key, read_public_keys
from connect_trio.ssh.keys import FixedKeys
from connect_trio.ssh.listener import SshEdge
from tests.support.channels import ShellBench, shell_bench
from tests.support.e2e import FULL
from tests.support.grants import granted
from tests.support.parts import require
from tests.support.tables import SESSION

LABEL = label_of(SESSION)
PATIENCE = 300.0 if FULL else 90.0  # seconds that any client may take


@attrs.define
class Judge:
    """Stands in for the authorizer; tests change its mind. decision: None to let everybody in."""

    decision: Decision | None = None
    asked: list[tuple[str, str, str]] = attrs.field(factory=list)

    async def check(self, subject: str, session: str, method: str) -> Decision:
        self.asked.append((subject, session, method))
        await trio.lowlevel.checkpoint()
        if self.decision is not None:
            return self.decision
        return Decision(allowed=True, reason=None, session_state=RUNNING, grant=granted(session, subject, method))


@attrs.frozen
class Result:
    status: int
    out: bytes
    err: bytes

    @property
    def said(self) -> str:
        """What the user sees besides output."""
        return self.err.decode(errors="replace").replace("\r\n", "\n")


@attrs.define
class SshBench:
    """folder: where the Studio's commands run. home: of the client, with its keys and configuration."""

    edge: SshEdge
    judge: Judge
    scopes: SessionScopes
    port: int
    folder: Path
    home: Path
    agent: ShellBench | None
    session: str = SESSION
    config: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.config = self.home / "config"
        self.config.write_text(
            f"""\
Host studio
    HostName 127.0.0.1
    Port {self.port}
    User alice@{LABEL}
    IdentityFile {self.home}/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile {self.home}/known_hosts
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 20
"""
        )
        (self.home / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {self.edge.host_key.line}\n")

    def command(self, *arguments: str, program: str = "ssh") -> list[str]:
        return [client(program), "-F", str(self.config), *arguments]

    async def run(
        self, *arguments: str, stdin: bytes = b"", program: str = "ssh", environ: Mapping[str, str] | None = None
    ) -> Result:
        """Run a client to its end, in its own folder."""
        return await run(self.command(*arguments, program=program), stdin=stdin, folder=self.home, environ=environ)

    async def ssh(self, command: str, *options: str, stdin: bytes = b"") -> Result:
        """A command in the Studio."""
        return await self.run(*options, "studio", command, stdin=stdin)


def client(name: str) -> str:
    """The path of one of OpenSSH's programs."""
    require("ssh")
    path = shutil.which(name)
    assert path is not None, f"{name} does not come with ssh here"
    return path


async def run(
    command: Sequence[str], *, stdin: bytes = b"", folder: Path, environ: Mapping[str, str] | None = None
) -> Result:
    with trio.fail_after(PATIENCE):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            list(command),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **(environ or {})},
        )
    return Result(done.returncode, done.stdout, done.stderr)


def keygen(path: Path, kind: str = "ed25519", *options: str) -> Path:
    """A new key pair; the path of the private key."""
    subprocess.run(
        [client("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", path, *options], check=True, capture_output=True
    )
    return path


def listening() -> tuple[socket.socket, int]:
    """A listening socket on a free port of loopback, and the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    return listener, int(listener.getsockname()[1])


@asynccontextmanager
async def ssh_edge(
    home: Path, dialer: Dialer, *, host_key: HostKey | None = None, **options: object
) -> AsyncIterator[tuple[SshEdge, Judge, SessionScopes, int]]:
    """An edge on loopback that knows the key of alice in `home`, which is made."""
    keygen(home / "id_ed25519")
    mine = read_public_keys((home / "id_ed25519.pub").read_text())
    judge, scopes = Judge(), SessionScopes()
    edge = SshEdge(
        host_key=host_key or make_host_key()[0],
        checker=FixedKeys({"alice": mine}, {"alice": "sub-alice"}),
        authorize=judge.check,
        dialer=dialer,
        scopes=SshScopes(scopes),
        **options,  # type: ignore[arg-type]
    )
    listener, port = listening()
    async with trio.open_nursery() as nursery:
        await nursery.start(edge.serve, listener)
        try:
            yield edge, judge, scopes, port
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def ssh_bench(
    tmp_path: Path, *, places: ListenPolicy | None = None, host_key: HostKey | None = None, **options: object
) -> AsyncIterator[SshBench]:
    """An edge in front of an agent whose commands run in `tmp_path/studio`. places: where that agent listens, None for
    all that there is. options: of SshEdge."""
    require("ssh")
    folder, home = tmp_path / "studio", tmp_path / "home"
    folder.mkdir()
    home.mkdir(mode=0o700)
    places = places or ListenPolicy(directory=tmp_path / "sockets", agents=True)
    async with (
        shell_bench(folder, places=places) as bench,
        ssh_edge(home, bench.dialer, host_key=host_key, **options) as (edge, judge, scopes, port),
    ):
        yield SshBench(edge, judge, scopes, port, folder, home, bench)
