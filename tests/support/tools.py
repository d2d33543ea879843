"""Tools for an agent to serve: listeners on loopback ports."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from connect_trio.ports import free_ports

Serve = Callable[[trio.SocketStream], Awaitable[None]]


def listener_on(port: int = 0) -> trio.SocketListener:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def dead_port() -> int:
    """A port where nobody listens, and nobody will who takes any free one."""
    (port,) = free_ports(1)
    return port


async def echo(stream: trio.SocketStream) -> None:
    """What came goes back, and the end too."""
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def listening_tool(serve: Serve = echo, *, port: int = 0) -> AsyncIterator[int]:
    """A tool that serves each connection by `serve`, for the length of the block; gives its port."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await serve(stream)
            except trio.BrokenResourceError:
                return

    listener = listener_on(port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        try:
            yield listener.socket.getsockname()[1]
        finally:
            nursery.cancel_scope.cancel()
