"""Pairs of transports, and the loops that a wire runs over them."""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing

from connect_trio.mux.transport import StreamTransport, Transport
from connect_trio.transport.secure import Secure
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.tunnels import accept_tunnel, dial_tunnel
from tests.support.certificates import Authority

PATIENCE = 60.0  # seconds until a test that waits in vain fails
Pair = tuple[Transport, Transport]


async def read_to_end(transport: Transport, *, size: int = 65536) -> bytes:
    """Everything until the end of the stream."""
    out = bytearray()
    while data := await read_some(transport, size=size):
        out += data
    return bytes(out)


async def read_exactly(transport: Transport, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        data = await read_some(transport, size=count - len(out))
        assert data, f"ended after {len(out)} of {count} bytes"
        out += data
    return bytes(out)


async def read_some(transport: Transport, *, size: int = 65536) -> bytes:
    """At most `size` bytes; empty at the end."""
    into = memoryview(bytearray(size))
    while True:
        count = transport.receive_now(into)
        if transport.pending:
            await transport.wait_writable()
        if count is not None:
            return bytes(into[:count])
        await transport.wait_readable()


async def write_all(transport: Transport, *parts: bytes) -> None:
    """Send all parts, together where the transport takes them together."""
    rest = [memoryview(part) for part in parts]
    while rest or transport.pending:
        count = transport.send_now(rest) if rest else 0
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if count:
            rest[0] = rest[0][count:]
        if rest or transport.pending:
            await transport.wait_writable()


def fill(transport: Transport, piece: bytes) -> int:
    """Send until nothing more is taken; how many bytes that was."""
    sent = 0
    while count := transport.send_now((piece,)):
        sent += count
        assert sent < 64 << 20, "this transport takes whatever it is given"
    return sent


async def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    await trio.lowlevel.checkpoint()
    return near, far


def reset(sock: socket.socket) -> None:
    """Cut a TCP connection, so that its other end gets an error."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@asynccontextmanager
async def socket_pair() -> AsyncIterator[Pair]:
    near, far = await tcp_pair()
    left, right = SocketTransport(Socket(near)), SocketTransport(Socket(far))
    try:
        yield left, right
    finally:
        left.close()
        right.close()


@asynccontextmanager
async def stream_pair() -> AsyncIterator[Pair]:
    near, far = await tcp_pair()
    left = StreamTransport(trio.SocketStream(trio.socket.from_stdlib_socket(near)))
    right = StreamTransport(trio.SocketStream(trio.socket.from_stdlib_socket(far)))
    try:
        yield left, right
    finally:
        await left.aclose()
        await right.aclose()


@asynccontextmanager
async def secure_pair() -> AsyncIterator[Pair]:
    """Both ends of a connection over TLS, the client first."""
    near, far = await tcp_pair()
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        right = Secure.server(far, authority.server("connect.test"))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        left = Secure.client(stream, authority.client(), "connect.test")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(right.handshake)
            await left.handshake()
        yield left, right
    finally:
        left.close()
        right.close()


@asynccontextmanager
async def tunnel_pair(*, raw: bool, dialler_first: bool = True) -> AsyncIterator[Pair]:
    """Both ends of a tunnel, the one that dialled first."""
    async with socket_pair() as (near, far):
        opened: list[Transport] = []

        async def accept() -> None:
            _, carrier = await accept_tunnel(far)
            assert not carrier.early
            opened.append(carrier.transport)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            dialled = await dial_tunnel(near, host="connect.test", target="/t", headers=[], raw=raw)
        assert not dialled.early
        yield (dialled.transport, opened[0]) if dialler_first else (opened[0], dialled.transport)


async def within(seconds: float, wait: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(seconds):
        await wait()
