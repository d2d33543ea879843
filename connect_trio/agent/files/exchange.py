"""One request and its answer, on top of ASGI, with every wait bounded and no body left half-read.

A server under ASGI stops reading a connection whose body nobody takes, and its close looks to the client like a reset
that swallows the answer. So an answer given before the whole body was read (a refused upload) is sent at once, but its
end is held back while the rest of the body is read and thrown away, for a bounded time; then the connection is cut.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

import trio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from connect_trio.agent.files.problems import Problem

BLOCK_SIZE = 1 << 20
"""Bytes that are taken from a body, or from the disk, in one piece: one hand-over to a thread each."""
BODY_IDLE_TIMEOUT = 15 * 60
"""Seconds that an upload may stand still. As long as a laptop sleeps, a stream is resumed after, and some more."""
LINGER_TIMEOUT = 30
"""Seconds for which the rest of a refused body is read away."""


class Disconnected(Exception):
    """The client has gone; nobody is left to answer."""


class Abortable(Protocol):
    """The connection below, which the server puts into the scope's state as "connection"."""

    def abort(self) -> None:
        """Cut the connection at once, so that an unfinished answer does not look like a finished one."""


class RequestBody:
    """A request's body, streamed."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self.length = int(headers["content-length"]) if "content-length" in headers else None
        """The announced length in bytes, if there is one."""
        self.finished = not self.length and "transfer-encoding" not in headers

    async def read_block(self) -> bytearray:
        """The next BLOCK_SIZE bytes or a piece more, fewer only at the end; empty after the end.

        Raises Disconnected, and Problem (408) when nothing comes any more.
        """
        block = bytearray()
        while len(block) < BLOCK_SIZE and not self.finished:
            block += await self._piece()
        return block

    async def read(self, limit: int) -> bytes:
        """The whole of a small body. Raises as `read_block`, and Problem (413)."""
        collected = bytearray()
        while not self.finished:
            collected += await self._piece()
            if len(collected) > limit:
                raise Problem(413, f"This form is too large: the limit is {limit:,} bytes.")
        return bytes(collected)

    async def discard(self) -> bool:
        """Read the rest away; False if it took too long. Raises Disconnected."""
        with trio.move_on_after(LINGER_TIMEOUT):
            while not self.finished:
                self._take(await self._receive())
        return self.finished

    async def _piece(self) -> bytes:
        with trio.move_on_after(BODY_IDLE_TIMEOUT):
            return self._take(await self._receive())
        raise Problem(408, f"The upload stood still for {BODY_IDLE_TIMEOUT // 60} minutes and was given up.")

    def _take(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise Disconnected
        self.finished = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


class Exchange:
    """A request to be answered once, by `answer` or by `start` and `send_block`s."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = Request(scope, receive)
        self.body = RequestBody(self.request.headers, receive)
        self.started = False
        self._scope = scope
        self._receive = receive
        self._send = send

    @property
    def raw_path(self) -> bytes:
        """The path as it came, still escaped."""
        path: bytes = self._scope["raw_path"]
        return path

    @property
    def wants_page(self) -> bool:
        """Whether a person is reading, who gets a page; programs get JSON."""
        return "text/html" in self.request.headers.get("accept", "")

    async def answer(self, response: Response) -> None:
        """Send a complete small answer. Raises Disconnected."""
        self.started = True
        await response(self._scope, self._receive, self._hold_end_back)

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Begin a streamed answer; `headers` has its Content-Length."""
        self.started = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send_block(self, block: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": block, "more_body": more})

    async def discard_body(self) -> None:
        """Read what is left of the body; cuts the connection if there is too much. Raises Disconnected."""
        if not await self.body.discard():
            await self.abort()

    async def wait_disconnected(self) -> None:
        """Return when the client has gone. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def abort(self) -> NoReturn:
        """Cut the connection, and with it this task: never returns but by trio.Cancelled."""
        connection: Abortable = self._scope["state"]["connection"]
        connection.abort()
        await trio.sleep_forever()

    async def _hold_end_back(self, message: Message) -> None:
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not ends or self.body.finished:
            await self._send(message)
            return
        await self.send_block(message.get("body", b""), more=True)
        await self.discard_body()
        await self.send_block(b"", more=False)
