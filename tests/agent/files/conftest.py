"""A file-server on a real port, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import httpx2
import pytest
import trio

from connect_trio.agent.files import serve_files


@attrs.frozen
class Server:
    """A running file-server; `root` is its folder, `outside` one beside it with a secret."""

    port: int
    root: Path
    outside: Path
    client: httpx2.AsyncClient

    async def raw(self, request: bytes) -> bytes:
        """Send the bytes of a request and read until the server closes."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(request)
            return b"".join([piece async for piece in stream])

    async def status(self, target: bytes, method: bytes = b"GET") -> int:
        """The status for a request target that no HTTP client would send."""
        head = await self.raw(method + b" " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return int(head.split(b" ", 2)[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("SECRET")
    return folder


@pytest.fixture
async def server(root: Path, outside: Path, nursery: trio.Nursery) -> AsyncIterator[Server]:
    port = await nursery.start(partial(serve_files, root))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield Server(port, root, outside, client)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until something outside of this task has become true; a hang fails the test."""

    async def wait(condition: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not condition():
                await trio.sleep(0.005)

    return wait
