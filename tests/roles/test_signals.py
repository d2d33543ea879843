"""What signals do to roles as processes: one drains, a second one stops at once, SIGHUP reads anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from connect_trio.roles.running import READY_FD
from tests.roles.test_management import MANAGED, Port, port_at
from tests.roles.test_proxy import proxy_environ
from tests.support.e2e import ROOT, wait_until
from tests.support.redis import RedisServer, redis_server
from tests.support.stack import server_environ

__all__ = ["redis_server"]

pytestmark = pytest.mark.redis


@attrs.frozen
class Running:
    """A role as a process. started: what it told when it was ready. log: what it says on stderr."""

    process: subprocess.Popen[bytes]
    started: dict[str, Any]
    log: Path

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    async def exit_code(self) -> int:
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


@contextmanager
def running(role: str, environ: dict[str, str], folder: Path) -> Iterator[Running]:
    reading, writing = os.pipe()
    log = folder / f"{role}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "connect_trio", role],
            env={**os.environ, **environ, READY_FD: str(writing)},
            cwd=ROOT,
            stderr=stderr,
            pass_fds=[writing],
        )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        assert line, log.read_text()
        yield Running(process, json.loads(line)["started"], log)
    finally:
        process.kill()
        process.wait()


async def ends(stream: trio.SocketStream) -> bytes:
    """All that comes until the connection ends, however it does."""
    try:
        return b"".join([part async for part in stream])
    except trio.BrokenResourceError:
        return b""


async def not_ready(port: Port) -> None:
    await port.until("/readyz", 503)


async def test_a_signal_lets_a_proxy_finish_what_is_in_flight(redis_server: RedisServer, tmp_path: Path) -> None:
    changes = {"CONNECT_REDIS_ADDRESS": redis_server.address, "CONNECT_DRAIN_GRACE": "1h", **MANAGED}
    with running("proxy", proxy_environ(tmp_path, **changes), tmp_path) as proxy:
        async with (
            port_at(proxy.started["management_port"]) as port,
            await trio.open_tcp_stream("127.0.0.1", proxy.started["http_port"]) as visitor,
        ):
            await visitor.send_all(b"GET / HTTP/1.1\r\n")  # in the middle of its request
            await port.until("/readyz", 200)
            proxy.signal(signal.SIGTERM)
            await not_ready(port)
            assert proxy.process.poll() is None
            await visitor.send_all(b"Host: connect.localhost:8080\r\n\r\n")
            answer = await ends(visitor)
            assert b"Connection: close\r\n" in answer, "a request in flight is answered during a drain"
            assert await proxy.exit_code() == 0, "and then nothing is left to wait for"


async def test_a_second_signal_stops_at_once(redis_server: RedisServer, tmp_path: Path) -> None:
    changes = {"CONNECT_REDIS_ADDRESS": redis_server.address, "CONNECT_DRAIN_GRACE": "1h", **MANAGED}
    with running("proxy", proxy_environ(tmp_path, **changes), tmp_path) as proxy:
        async with (
            port_at(proxy.started["management_port"]) as port,
            await trio.open_tcp_stream("127.0.0.1", proxy.started["http_port"]) as visitor,
        ):
            await visitor.send_all(b"GET / HTTP/1.1\r\n")
            await port.until("/readyz", 200)
            proxy.signal(signal.SIGTERM)
            await not_ready(port)
            proxy.signal(signal.SIGTERM)
            assert await proxy.exit_code() == 0
            assert b"200 OK" not in await ends(visitor)
        assert not proxy.said("Traceback")


async def test_a_server_stops_with_the_first_signal_if_nobody_is_there(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    changes = {"CONNECT_REDIS_ADDRESS": redis_server.address, "CONNECT_DRAIN_GRACE": "1h"}
    with running("server", server_environ() | changes, tmp_path) as server:
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
        assert server.said("drained")


async def test_sighup_reads_the_log_level_anew(redis_server: RedisServer, tmp_path: Path) -> None:
    level = tmp_path / "level"
    changes = {"CONNECT_REDIS_ADDRESS": redis_server.address, "CONNECT_LOG_LEVEL_FILE": str(level)}
    with running("server", server_environ() | changes, tmp_path) as server:
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.said("not reloaded"), "the file is missing")
        level.write_text("DEBUG")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.said('reloaded what="log level" now=DEBUG'), "the new level")
        level.write_text("loud")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.said("not a log level"), "a wrong level")
        assert server.process.poll() is None
