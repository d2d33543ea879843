"""A client's connection that comes through a balancer, whose PROXY header is taken off on the way."""

from __future__ import annotations

from collections.abc import Callable

import trio

from connect_trio.ssh.proxy_header import HeaderError, HeaderParser


class BehindProxy(trio.abc.HalfCloseableStream):
    """A stream like `stream`, but without a PROXY header at the beginning of what is received.

    We speak first in SSH, so nobody waits for the header: it is found when the client's own first bytes are.
    on_source: called with the client's address and port once a header has told them.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream, on_source: Callable[[tuple[str, int]], object]) -> None:
        self._stream = stream
        self._on_source = on_source
        self._parser: HeaderParser | None = HeaderParser()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Raises trio.BrokenResourceError also where the header is wrong."""
        while self._parser is not None:
            data = await self._stream.receive_some(max_bytes)
            try:
                found = self._parser.feed(bytes(data)) if data else self._parser.end()
            except HeaderError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc
            if found is None:
                continue
            self._parser = None
            if found.source is not None:
                self._on_source(found.source)
            if found.rest or not data:
                return found.rest
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
