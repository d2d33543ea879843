"""A real Redis for tests: its own process, port and folder, nothing kept on disk, ended by its process id."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from connect_trio.ports import free_ports
from connect_trio.routing.redis import TlsFiles
from tests.support.parts import require
from tests.support.redis_certificates import Authority, Pair

__all__ = [
    "ACL_PASSWORD",
    "RedisServer",
    "acl_of_the_documentation",
    "authority",
    "client_files",
    "execute",
    "redis_server",
    "tight_redis",
    "tls_options",
]

ACL_PASSWORD = "correct-horse-battery"


class RedisServer:
    """One redis-server on a free loopback port. Stopped and started again it keeps its port and forgets its data."""

    def __init__(
        self, folder: Path, *, tls: bool = False, options: tuple[str, ...] = (), sentinel: bool = False
    ) -> None:
        """tls: speak TLS instead of plain TCP; `options` must name the certificates.

        sentinel: be one, with what `write_configuration` wrote.
        """
        self.folder = folder
        (self.port,) = free_ports(1)
        self._listen = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        """Return when it accepts connections. options: for this time, instead of its own."""
        fixed = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        command = [require("redis-server"), *self._listen, *fixed, *(options or self._options)]
        if self._sentinel:
            command = [require("redis-server"), str(self._configuration), "--sentinel", *self._listen, *fixed[:4]]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line or "Sentinel ID is" in line:
                return
        status = self._process.wait()
        self.stop()
        raise RuntimeError(f"redis-server ended with status {status}: {''.join(said)}")

    def stop(self) -> None:
        """End it at once, as a crash would; quiet if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    @property
    def _configuration(self) -> Path:
        return self.folder / "sentinel.conf"

    def write_configuration(self, *lines: str) -> None:
        """What a sentinel knows; it writes there, too."""
        self._configuration.write_text("".join(f"{line}\n" for line in lines))

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextmanager
    def admin(self, *, password: str | None = None, db: int = 0) -> Iterator[redis_py.Redis]:
        """Another client, which may do anything; not for a server that speaks TLS."""
        with redis_py.Redis(port=self.port, password=password, db=db, single_connection_client=True) as client:
            yield client

    def freeze(self) -> None:
        """Let it hang: connections stay, answers do not come."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def execute(client: redis_py.Redis, *words: object) -> Any:
    """A command that redis-py has no method for."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running redis-server of the test's own; see `require` for what happens without one."""
    with tempfile.TemporaryDirectory(prefix="connect-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def client_files(authority: Authority) -> TlsFiles:
    """What a client shows a Redis of this test's authority, and what it believes."""
    pair = authority.issue("client")
    return TlsFiles(ca_file=authority.ca, cert_file=pair.cert, key_file=pair.key)


@pytest.fixture
def tight_redis(authority: Authority, tmp_path: Path) -> Iterator[RedisServer]:
    """TLS with certificates on both sides, and nobody but the user of the documentation."""
    user = ("--user", "default", "off", "--user", "connect", *acl_of_the_documentation(ACL_PASSWORD))
    server = RedisServer(tmp_path, tls=True, options=(*tls_options(authority, authority.issue("redis")), *user))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def tls_options(authority: Authority, pair: Pair) -> tuple[str, ...]:
    """Options of a Redis that shows `pair` and wants certificates of `authority`."""
    return ("--tls-cert-file", pair.cert, "--tls-key-file", pair.key, "--tls-ca-cert-file", authority.ca)


def acl_of_the_documentation(password: str) -> list[str]:
    """The rules of the user that docs/operations.md describes."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER connect "))
    return line.replace("PASSWORD", password).removeprefix("ACL SETUSER connect ").split(" ")
