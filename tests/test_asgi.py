"""Applications on a real port, with clients that behave badly; mostly the file server, which has the most to lose."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from starlette.types import Receive, Scope, Send

from connect_trio import asgi
from connect_trio.agent.files import serve_files
from connect_trio.asgi import serve_app

REQUEST = b"GET /huge HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


async def read_to_the_end(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def test_cancellation_does_not_wait_for_a_client_that_stopped_reading(root: Path) -> None:
    with open(root / "huge", "wb") as file:
        file.truncate(1 << 40)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(partial(serve_files, root))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(REQUEST)
            await stream.receive_some(1)
            nursery.cancel_scope.cancel()
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await read_to_the_end(stream)


async def test_a_client_that_takes_nothing_for_too_long_is_cut(
    root: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SEND_TIMEOUT", 0.05)
    with open(root / "huge", "wb") as file:
        file.truncate(1 << 40)
    ended = trio.Event()
    serve = asgi.Connection.serve

    async def serve_and_note(self: asgi.Connection, *args: object) -> None:
        await serve(self, *args)  # type: ignore[arg-type]
        ended.set()

    monkeypatch.setattr(asgi.Connection, "serve", serve_and_note)
    port = await nursery.start(partial(serve_files, root))
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(REQUEST)
    with trio.fail_after(60):
        await ended.wait()
    await stream.aclose()


async def test_what_nobody_takes_is_not_read_from_the_socket(nursery: trio.Nursery) -> None:
    """Backpressure: an application that does not receive holds the client up instead of filling the memory."""
    resume = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await resume.wait()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    port = await nursery.start(partial(serve_app, app, host="127.0.0.1", port=0))
    size = 64 << 20
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        sent = 0
        piece = bytes(1 << 20)
        while True:
            with trio.move_on_after(0.5) as waiting:
                await stream.send_all(piece)
            if waiting.cancelled_caught:
                break
            sent += len(piece)
        # The sockets' own buffers and the queue, nothing like the whole.
        assert sent < size / 2
        resume.set()
        await stream.aclose()


async def test_connections_are_kept_for_more_requests(nursery: trio.Nursery, root: Path) -> None:
    (root / "huge").write_bytes(b"x")
    port = await nursery.start(partial(serve_files, root))
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(3):
            await stream.send_all(REQUEST)
            answer = b""
            while not answer.endswith(b"\r\n\r\nx"):
                answer += await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * asgi.MAX_HEAD_SIZE + b"\r\n\r\n",
        b"PUT /f HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"PUT /f HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"PUT /f HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" + b"\xff" * 100,
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + b"\xff" * 100,
    ],
)
async def test_garbage_harms_nobody_else(
    nursery: trio.Nursery, root: Path, garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # hypercorn may miss the end of a refused CONNECT; then this closes it.
    monkeypatch.setattr(asgi, "KEEP_ALIVE_TIMEOUT", 0.5)
    (root / "huge").write_bytes(b"x")
    port = await nursery.start(partial(serve_files, root))
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with suppress(trio.BrokenResourceError), trio.fail_after(60):
            await stream.send_all(garbage)
            await stream.send_eof()
            await read_to_the_end(stream)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(REQUEST)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    assert [path.name for path in root.iterdir()] == ["huge"]


async def test_a_busy_port_is_an_error(nursery: trio.Nursery, root: Path) -> None:
    port = await nursery.start(partial(serve_files, root))
    with pytest.raises(OSError, match="in use"):
        await serve_files(root, port=port)
