"""A plain TCP relay on trio, to compare with: what any proxy in this runtime costs before it does anything.

Run as `python -m benchmarks.relay FD:PORT ...`: connections to the listening socket FD go on to 127.0.0.1:PORT. It
reads into a buffer that it keeps, and sends from it; that is twice as fast as what `SocketStream` does.
"""

from __future__ import annotations

import contextlib
import socket
import sys

import trio

BUFFER = 256 * 1024


async def serve(fd: int, port: int) -> None:
    """Accept for ever."""
    listener = trio.socket.from_stdlib_socket(socket.socket(fileno=fd))
    async with trio.open_nursery() as nursery:
        while True:
            sock, _ = await listener.accept()
            nursery.start_soon(connect, sock, port)


async def connect(near: trio.socket.SocketType, port: int) -> None:
    far = trio.socket.socket()
    with near, far:
        await far.connect(("127.0.0.1", port))
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)


async def copy(source: trio.socket.SocketType, sink: trio.socket.SocketType) -> None:
    """One direction, to its end."""
    buffer = memoryview(bytearray(BUFFER))
    with contextlib.suppress(OSError):  # whoever measures has left; what it wanted it has
        while count := await source.recv_into(buffer):
            view = buffer[:count]
            while view:
                view = view[await sink.send(view) :]
        sink.shutdown(socket.SHUT_WR)


async def main(pairs: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            fd, _, port = pair.partition(":")
            nursery.start_soon(serve, int(fd), int(port))


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
