"""Ports are had, or refused with a line that says how to mend it; one bad connection is nobody else's problem."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from connect_trio.roles.listeners import CannotListen, accept_forever, listen, port_of

VARIABLE = "CONNECT_HTTP_PORT"


class Refusing(socket.socket):
    """A listener whose next calls of `accept` fail."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


def refusing(*errors: int) -> Refusing:
    sock = Refusing()
    sock.errors = list(errors)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    return sock


async def greet(sock: socket.socket) -> None:
    sock.send(b"hello")
    await trio.lowlevel.checkpoint()


async def greeting_of(port: int) -> bytes:
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            return bytes(await stream.receive_some())


def test_port_0_is_any_free_port() -> None:
    with listen("127.0.0.1", 0, variable=VARIABLE) as first, listen("127.0.0.1", 0, variable=VARIABLE) as second:
        assert port_of(first) != port_of(second)
        assert not first.getblocking()


async def test_every_address_is_one_of_ipv4_too() -> None:
    with listen("::", 0, variable=VARIABLE) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, sock, greet, nursery, "test")
            assert await greeting_of(port_of(sock)) == b"hello"
            nursery.cancel_scope.cancel()


async def test_every_address_is_that_of_ipv4_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *arguments)

    monkeypatch.setattr("connect_trio.roles.listeners.socket.socket", without_ipv6)
    with listen("::", 0, variable=VARIABLE) as sock:
        assert sock.getsockname()[0] == "0.0.0.0"


def test_a_port_that_is_in_use_is_named_with_its_variable() -> None:
    with listen("127.0.0.1", 0, variable=VARIABLE) as first:
        port = port_of(first)
        with pytest.raises(CannotListen) as caught:
            listen("127.0.0.1", port, variable=VARIABLE)
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use: stop what listens there, or choose another with {VARIABLE}"
    )


def test_a_port_can_be_shared_where_both_say_so() -> None:
    with (
        listen("127.0.0.1", 0, variable=VARIABLE, reuse_port=True) as first,
        listen("127.0.0.1", port_of(first), variable=VARIABLE, reuse_port=True) as second,
    ):
        assert port_of(first) == port_of(second)


def test_a_port_is_free_again_at_once() -> None:
    with listen("127.0.0.1", 0, variable=VARIABLE) as first:
        port = port_of(first)
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = first.accept()
        accepted.close()
        client.close()
    listen("127.0.0.1", port, variable=VARIABLE).close()


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EACCES, f"port 80 needs more rights than this process has: choose one above 1023 with {VARIABLE}"),
        (errno.EPERM, f"port 80 needs more rights than this process has: choose one above 1023 with {VARIABLE}"),
        (errno.EADDRNOTAVAIL, f"127.0.0.1 is no address of this machine: see {VARIABLE}"),
        (errno.ENOBUFS, f"cannot listen on 127.0.0.1:80 (No buffer space available): see {VARIABLE}"),
    ],
)
def test_every_refusal_of_the_kernel_is_one_line(monkeypatch: pytest.MonkeyPatch, number: int, line: str) -> None:
    class Unbindable(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("connect_trio.roles.listeners.socket.socket", Unbindable)
    with pytest.raises(CannotListen) as caught:
        listen("127.0.0.1", 80, variable=VARIABLE)
    assert str(caught.value) == line


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_one_line(host: str) -> None:
    with pytest.raises(CannotListen, match=f"{host}.*: see {VARIABLE}"):
        listen(host, 0, variable=VARIABLE)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "256.0.0.1", "a" * 300])
def test_a_name_that_is_no_address_is_one_line(host: str) -> None:
    with pytest.raises(CannotListen, match=f": see {VARIABLE}") as caught:
        listen(host, 0, variable=VARIABLE)
    assert "Unknown error" not in str(caught.value)


# accepting


async def test_each_connection_has_a_task_of_its_own(nursery: trio.Nursery) -> None:
    with listen("127.0.0.1", 0, variable=VARIABLE) as sock:
        nursery.start_soon(accept_forever, sock, greet, nursery, "test")
        assert [await greeting_of(port_of(sock)) for _ in range(3)] == [b"hello"] * 3
        nursery.cancel_scope.cancel()


async def test_a_bug_in_one_connection_is_one_loud_line(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    handlers: list[Callable[[socket.socket], Awaitable[None]]] = [greet]

    async def fail(sock: socket.socket) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    handlers.append(fail)
    with listen("127.0.0.1", 0, variable=VARIABLE) as sock:
        nursery.start_soon(accept_forever, sock, lambda sock: handlers.pop()(sock), nursery, "test")
        assert await greeting_of(port_of(sock)) == b""
        assert await greeting_of(port_of(sock)) == b"hello"
        nursery.cancel_scope.cancel()
    assert [record.message for record in caplog.records] == ["a connection failed: this is a bug"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_files_to_spare_it_waits_and_says_so_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock, number: int
) -> None:
    with refusing(*[number] * 30) as sock:
        nursery.start_soon(accept_forever, sock, greet, nursery, "link")
        assert await greeting_of(port_of(sock)) == b"hello"
        assert trio.current_time() == pytest.approx(3)
        nursery.cancel_scope.cancel()
    assert [(record.message, record.levelno) for record in caplog.records] == [
        ("cannot accept connections", logging.ERROR)
    ]


async def test_peers_that_left_before_they_were_accepted_are_passed_over(nursery: trio.Nursery) -> None:
    with refusing(errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN) as sock:
        nursery.start_soon(accept_forever, sock, greet, nursery, "test")
        assert await greeting_of(port_of(sock)) == b"hello"
        nursery.cancel_scope.cancel()


async def test_a_peer_that_always_left_does_not_stop_the_world() -> None:
    with refusing(*[errno.ECONNABORTED] * 1_000_000) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_forever, sock, greet, nursery, "test")
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_a_listener_that_is_broken_is_an_error() -> None:
    sock = listen("127.0.0.1", 0, variable=VARIABLE)
    sock.close()
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await accept_forever(sock, greet, nursery, "test")


async def test_connections_are_closed_when_their_handler_ends_or_is_cancelled(nursery: trio.Nursery) -> None:
    served: list[socket.socket] = []

    async def wait(sock: socket.socket) -> None:
        served.append(sock)
        await trio.sleep_forever()

    with listen("127.0.0.1", 0, variable=VARIABLE) as sock:
        async with trio.open_nursery() as inner:
            inner.start_soon(accept_forever, sock, wait, inner, "test")
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(sock))
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        assert [each.fileno() for each in served] == [-1]
        await stream.aclose()
