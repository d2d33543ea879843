"""Files that leave: whole or in part, straight from the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio
from starlette.responses import Response

from connect_trio.agent.files.content import Version, content_disposition, media_type
from connect_trio.agent.files.exchange import BLOCK_SIZE, Exchange
from connect_trio.agent.files.paths import Folder
from connect_trio.agent.files.ranges import UnsatisfiableRange, select_range


async def send_file(exchange: Exchange, folder: Folder, parts: Sequence[bytes]) -> None:
    """Answer with the file at `parts`: 200, 206, 304 or 416. Raises OSError and Problem before anything is sent."""
    descriptor, status = await trio.to_thread.run_sync(_open, folder, parts)
    try:
        await _answer(exchange, descriptor, status, parts[-1])
    finally:
        os.close(descriptor)


def _open(folder: Folder, parts: Sequence[bytes]) -> tuple[int, os.stat_result]:
    with folder.locate(parts) as place:
        return place.open_file()


async def _answer(exchange: Exchange, descriptor: int, status: os.stat_result, name: bytes) -> None:
    asked = exchange.request.headers
    version = Version.of(status)
    headers = _headers(name, version, attachment="download" in exchange.request.query_params)
    if version.is_known(asked.get("if-none-match"), asked.get("if-modified-since")):
        await exchange.answer(Response(status_code=304, headers=headers))
        return
    size = status.st_size
    # Range is defined for GET alone (RFC 9110 section 14.2).
    wanted = exchange.request.method == "GET" and version.allows_range(asked.get("if-range"))
    try:
        part = select_range(asked.get("range") if wanted else None, size)
    except UnsatisfiableRange:
        refusal = {"content-range": f"bytes */{size}", "accept-ranges": "bytes"}
        await exchange.answer(Response(status_code=416, headers=refusal))
        return
    start, stop = part or (0, size)
    headers["content-type"] = media_type(name)
    headers["content-length"] = str(stop - start)
    if part:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    await exchange.start(206 if part else 200, headers)
    if exchange.request.method == "HEAD":
        await exchange.send_block(b"", more=False)
    else:
        await _stream(exchange, descriptor, start, stop)


def _headers(name: bytes, version: Version, *, attachment: bool) -> dict[str, str]:
    headers = {
        "etag": version.etag,
        "last-modified": version.last_modified,
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": content_disposition("attachment" if attachment else "inline", name),
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }
    # A stored page gets an origin of its own and no scripts, or it could act as the visitor in this Studio. Browsers
    # do not show PDF in a sandbox; they run its scripts, if at all, outside of any site's origin.
    if media_type(name) != "application/pdf":
        headers["content-security-policy"] = "sandbox"
    return headers


async def _stream(exchange: Exchange, descriptor: int, start: int, stop: int) -> None:
    """Send the bytes from `start` to `stop`, until the client goes away.

    A send to a client that is gone raises nothing under ASGI; without the watcher the rest of the file would be read
    for nobody.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, exchange, nursery.cancel_scope)
        position = start
        while position < stop:
            block = await trio.to_thread.run_sync(os.pread, descriptor, min(BLOCK_SIZE, stop - position), position)
            if not block:
                # The file was cut short meanwhile: the announced length cannot be kept, and the client must notice.
                await exchange.abort()
            position += len(block)
            await exchange.send_block(block, more=True)
        await exchange.send_block(b"", more=False)
        nursery.cancel_scope.cancel()


async def _cancel_when_gone(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.wait_disconnected()
    scope.cancel()
