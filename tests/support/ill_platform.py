"""The development Platform behind a line that a test spoils: for some paths, answers come wrong or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

from connect_trio.asgi import serve_listeners
from connect_trio.devplatform.app import create_app
from tests.support.platform import CONNECT_URL, DEV_KEY, shared_keys

_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_WHOLE: Final = {
    "500": b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
    "503 with a page": b"HTTP/1.1 503 X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "403": b"HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\n{}",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "a redirect": b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "null": _JSON + b"Content-Length: 4\r\n\r\nnull",
    "a list": _JSON + b"Content-Length: 2\r\n\r\n[]",
    "an object": _JSON + b"Content-Length: 2\r\n\r\n{}",
    "half a document": _JSON + b'Content-Length: 9\r\n\r\n{"issuer"',
    "half an answer": _JSON + b'Content-Length: 900\r\n\r\n{"issuer":',
    "no HTTP": b"\x00\xff\x00\xff\r\n\r\n",
    "too much": _JSON + b"Content-Length: 400000\r\n\r\n" + b" " * 400_000,
    "a hang-up": b"",
}
SILENCE: Final = "silence"
ILLNESSES: Final = (*_WHOLE, SILENCE)


@attrs.define
class IllPlatform:
    """url: PLATFORM_URL. illness: one of ILLNESSES for paths that contain `part`; None for a right Platform."""

    url: str
    part: str = ""
    illness: str | None = None
    asked: int = 0

    def falls_ill(self, part: str, illness: str) -> None:
        self.part, self.illness, self.asked = part, illness, 0

    def recovers(self) -> None:
        self.illness = None

    async def handle(self, behind: int, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n" not in head:
                received = await stream.receive_some()
                if not received:
                    return
                head += received
            if self.illness is not None and self.part in head.split(b" ")[1].decode("ascii"):
                self.asked += 1
                if self.illness == SILENCE:
                    await trio.sleep_forever()
                await stream.send_all(_WHOLE[self.illness])
                return
            async with await trio.open_tcp_stream("127.0.0.1", behind) as platform, trio.open_nursery() as nursery:
                await platform.send_all(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                nursery.start_soon(_copy, stream, platform)
                await _copy(platform, stream)
                nursery.cancel_scope.cancel()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # one of the two has hung up, and the other will be


@asynccontextmanager
async def ill_platform() -> AsyncIterator[IllPlatform]:
    """One connection carries one request, so that each is judged."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"http://localhost:{listener.socket.getsockname()[1]}"
        app = await create_app(url=url, connect_url=CONNECT_URL, dev_key=DEV_KEY, keys=shared_keys())
        (behind,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_listeners, app, [behind])
        platform = IllPlatform(url)
        handle = partial(platform.handle, behind.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield platform
        nursery.cancel_scope.cancel()
