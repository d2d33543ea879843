"""A redis-server of our own, on loopback, that keeps nothing on disk."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import attrs

from benchmarks.targets import STOP, CannotMeasure

START = 10.0


@attrs.frozen
class Redis:
    port: int
    pid: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def keys(self) -> int:
        """How many it holds."""
        with socket.create_connection(("127.0.0.1", self.port), STOP) as sock, sock.makefile("rb") as answers:
            sock.sendall(b"DBSIZE\r\n")
            return int(answers.readline()[1:])


@contextmanager
def own_redis() -> Iterator[Redis]:
    """Accepts connections for the length of the block. Raises CannotMeasure."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        try:
            process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        except FileNotFoundError as exc:
            raise CannotMeasure("there is no redis-server: install it") from exc
        try:
            redis = Redis(port, process.pid)
            _wait_for(redis)
            yield redis
        finally:
            process.kill()
            process.wait(STOP)


def _wait_for(redis: Redis) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            redis.keys()
        except OSError:
            if time.monotonic() > deadline:
                raise CannotMeasure("redis-server does not start") from None
            time.sleep(0.05)
        else:
            return
