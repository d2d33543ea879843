"""Sockets are tried first, waited for when the kernel says so, and their errors are trio's."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from connect_trio.transport.sockets import NOTSENT_LOWAT, TCP_NOTSENT_LOWAT, Socket, SocketTransport
from tests.support.transports import reset, tcp_pair


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Socket, Socket]]:
    near, far = await tcp_pair()
    left, right = Socket(near), Socket(far)
    yield left, right
    left.close()
    right.close()


async def test_what_succeeds_at_once_takes_no_checkpoint(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    with trio.testing.assert_no_checkpoints():
        await left.send_all(b"hello")
        assert await right.receive_some() == b"hello"


async def test_send_all_waits_until_the_kernel_took_everything(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    data = bytes(range(256)) * 100_000
    got = bytearray()

    async def receive() -> None:
        while part := await right.receive_some():
            got.extend(part)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await left.send_all(data)
        left.send_eof_now()
    assert got == data


async def test_receiving_waits_for_the_first_byte(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    assert right.receive_into_now(memoryview(bytearray(10))) is None
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await right.receive_some(3))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        left.send_now(b"abcd")
    assert got == [b"abc"]


async def test_pieces_are_gathered_and_scattered_in_order(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    assert left.send_parts_now([b"ab", bytearray(b"c"), memoryview(b"def")]) == 6
    into = [memoryview(bytearray(4)), memoryview(bytearray(4))]
    assert right.receive_parts_now(into) == 6
    assert bytes(into[0]) + bytes(into[1][:2]) == b"abcdef"
    assert right.receive_parts_now(into) is None


async def test_a_half_close_is_the_peers_end_and_bytes_still_come_back(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    left.send_now(b"request")
    left.send_eof_now()
    assert await right.receive_some() == b"request"
    assert await right.receive_some() == b""
    right.send_now(b"answer")
    assert await left.receive_some() == b"answer"


async def test_aborting_resets_the_connection(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    left.abort()
    left.abort()
    with pytest.raises(trio.BrokenResourceError, match="connection lost: Connection reset"):
        await right.receive_some()


async def test_closing_is_an_orderly_end(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    left.send_now(b"all of it")
    left.close()
    assert left.closed
    assert await right.receive_some() == b"all of it"
    assert await right.receive_some() == b""


async def test_a_lost_connection_is_broken_in_every_method() -> None:
    into = memoryview(bytearray(10))
    near, far = await tcp_pair()
    left = Socket(near)
    reset(far)
    with pytest.raises(trio.BrokenResourceError):
        left.receive_into_now(into)
    attempts: list[Callable[[], int]] = [lambda: left.send_now(b"x"), lambda: left.send_parts_now([b"x", b"y"])]
    for attempt in attempts:
        with pytest.raises(trio.BrokenResourceError, match="connection lost: Broken pipe"):
            attempt()
    left.send_eof_now()  # nobody is there to be told
    left.close()


async def test_a_closed_socket_refuses_every_method(pair: tuple[Socket, Socket]) -> None:
    left, _ = pair
    into = memoryview(bytearray(10))
    left.close()
    left.close()
    attempts: list[Callable[[], int | None]] = [
        lambda: left.send_now(b"x"),
        lambda: left.send_parts_now([b"x"]),
        lambda: left.receive_into_now(into),
        lambda: left.receive_parts_now([into]),
    ]
    for attempt in attempts:
        with pytest.raises(trio.ClosedResourceError):
            attempt()
    for wait in (left.wait_readable, left.wait_writable, left.receive_some):
        with pytest.raises(trio.ClosedResourceError):
            await wait()
    await left.aclose()


async def test_closing_wakes_who_receives(pair: tuple[Socket, Socket]) -> None:
    left, _ = pair

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        left.close()


async def test_closing_wakes_who_sends(pair: tuple[Socket, Socket]) -> None:
    left, _ = pair

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.send_all(bytes(64 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        left.close()


async def test_an_adopted_stream_has_one_owner() -> None:
    near, far = await tcp_pair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    adopted = Socket.adopt(stream)
    assert stream.socket.fileno() < 0
    adopted.send_now(b"mine now")
    assert far.recv(100) == b"mine now"
    adopted.close()
    far.close()


async def test_a_transport_keeps_the_kernels_queue_short(pair: tuple[Socket, Socket]) -> None:
    left, _ = pair
    SocketTransport(left)
    assert left.sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == NOTSENT_LOWAT
    assert left.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_transport_runs_over_sockets_that_are_not_tcp() -> None:
    near, far = socket.socketpair()
    left, right = SocketTransport(Socket(near)), SocketTransport(Socket(far))
    into = memoryview(bytearray(10))
    assert left.send_now((b"ab", b"cd")) == 4
    assert right.receive_now(into) == 4
    assert bytes(into[:4]) == b"abcd"
    left.close()
    assert right.receive_now(into) == 0
    right.close()
