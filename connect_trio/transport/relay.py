"""Two connections joined: what comes in at one goes out at the other, until both directions have ended.

This is on the bulk path of every tunnel. Each direction tries first and waits only when the kernel says so; an idle
direction holds no buffer.
"""

from __future__ import annotations

import trio
from trio.lowlevel import checkpoint

from connect_trio.mux.buffers import Pool
from connect_trio.transport.sockets import Connection

SHORT_READ = 64 * 1024


async def relay(left: Connection, right: Connection, *, buffers: Pool) -> None:
    """Pass bytes both ways; the end of one direction passes through as a half-close.

    Returns when both directions have ended. An error in either one aborts both sockets, so that each peer sees a
    reset and not a short but seemingly whole stream; then trio.BrokenResourceError is raised. Cancelled, it leaves
    the sockets to their owner.
    """
    failures: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_direction, left, right, buffers, failures)
        await _direction(right, left, buffers, failures)
    if failures:
        raise trio.BrokenResourceError("one of two joined connections was lost") from failures[0]


async def _direction(source: Connection, sink: Connection, buffers: Pool, failures: list[BaseException]) -> None:
    try:
        count: int | None = None
        while count != 0:
            buffer = buffers.take()
            try:
                count = source.receive_into_now(buffer.view)
                if count:
                    await sink.send_all(buffer.view[:count])
            finally:
                buffer.drop()
            if count is None or 0 < count < SHORT_READ:
                await source.wait_readable()  # a short read has most likely emptied the socket
            else:
                await checkpoint()
        sink.send_eof_now()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        # The other direction learns of it by its own sockets, which are gone now.
        failures.append(exc)
        source.abort()
        sink.abort()
