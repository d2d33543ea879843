"""A real Redis for tests: its own process, port and folder, nothing kept on disk, ended by its process id."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parts import require

__all__ = ["RedisServer", "redis_server"]


class RedisServer:
    """One redis-server on a free loopback port. Stopped and started again it keeps its port and forgets its data."""

    def __init__(self, folder: Path, *, tls: bool = False, options: tuple[str, ...] = ()) -> None:
        """tls: speak TLS instead of plain TCP; `options` must name the certificates."""
        self.folder = folder
        self.port = _free_port()
        self._listen = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it accepts connections."""
        fixed = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        command = [require("redis-server"), *self._listen, *fixed, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        raise RuntimeError(f"redis-server ended with status {self._process.wait()}: {''.join(said)}")

    def stop(self) -> None:
        """End it at once, as a crash would; quiet if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections stay, answers do not come."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


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
