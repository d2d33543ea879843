"""Doors and diallers on real sockets: proofs, TLS round them, and one line for each peer that is not trusted."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from connect_trio.mux.buffers import Pool
from connect_trio.transport import trusted
from connect_trio.transport.complaints import BURST
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.relay import relay
from connect_trio.transport.sockets import Connection, Socket
from connect_trio.transport.trusted import PROOF_TIMEOUT, Dialler, Door, connect_plain, transport_of
from connect_trio.transport.tunnels import send_all
from tests.support.certificates import Authority
from tests.support.tools import listener_on
from tests.support.trust import let_prove, prove, random_key

HERE = "127.0.0.1"


@attrs.define
class Entrance:
    """A door with a listener before it. admitted: the connections that came through."""

    port: int
    nursery: trio.Nursery
    admitted: list[Connection] = attrs.field(factory=list)
    turned_away: int = 0

    async def reach(self, *, admitted: int = 0, turned_away: int = 0) -> None:
        with trio.fail_after(10):
            while (len(self.admitted), self.turned_away) != (admitted, turned_away):
                await trio.sleep(0.005)


@asynccontextmanager
async def entrance(door: Door) -> AsyncIterator[Entrance]:
    listener = listener_on()
    made: Entrance

    async def admit(stream: trio.SocketStream) -> None:
        connection = await door.admit(Socket.adopt(stream).sock)
        if connection is None:
            made.turned_away += 1
        else:
            made.admitted.append(connection)

    async def accept() -> None:
        while True:
            made.nursery.start_soon(admit, await listener.accept())

    with listener.socket:
        async with trio.open_nursery() as nursery:
            made = Entrance(listener.socket.getsockname()[1], nursery)
            nursery.start_soon(accept)
            yield made
            nursery.cancel_scope.cancel()
            for connection in made.admitted:
                connection.close()


def door(key: Key, *, purpose: Purpose = Purpose.LINK, tls: ssl.SSLContext | None = None) -> Door:
    return Door(Keyring([key]), purpose, instance=b"S" * 16, tls=tls)


def dialler(*keys: Key, tls: ssl.SSLContext | None = None) -> Dialler:
    return Dialler(Keyring(keys), instance=b"P" * 16, tls=tls)


def complaints(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """(port, reason) of the lines about strangers."""
    found = [vars(record) for record in caplog.records if record.message == "not one of our proxies"]
    assert all(line["peer"].startswith(f"{HERE}:") for line in found)
    return [(line["port"], line["reason"]) for line in found]


async def exchange(near: Connection, far: Connection) -> None:
    """Bytes pass both ways, more than fit into any buffer, and so do both ends."""
    data = bytes(range(256)) * 8192

    async def send(side: Connection) -> None:
        await side.send_all(data)
        side.send_eof_now()

    async def receive(side: Connection) -> None:
        found = bytearray()
        while piece := await side.receive_some():
            found += piece
        assert found == data

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for side in (near, far):
                nursery.start_soon(send, side)
                nursery.start_soon(receive, side)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("secure", [False, True])
async def test_who_has_proven_the_key_has_a_connection(
    secure: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    key = random_key()
    tls, verify = (authority.server(HERE), authority.client()) if secure else (None, None)
    async with entrance(door(key, tls=tls)) as way:
        near = await dialler(random_key(), key, tls=verify).link(HERE, way.port)
        await way.reach(admitted=1)
        await exchange(near, way.admitted[0])
        near.close()
    assert complaints(caplog) == []


@pytest.mark.parametrize("secure", [False, True])
async def test_what_follows_the_proof_at_once_is_not_lost(secure: bool, authority: Authority) -> None:
    key = random_key()
    tls = authority.server(HERE) if secure else None
    async with entrance(door(key, tls=tls)) as way:
        stream: trio.abc.Stream = await trio.open_tcp_stream(HERE, way.port)
        if secure:
            stream = trio.SSLStream(stream, authority.client(), server_hostname=HERE, https_compatible=True)
        with_more = _Joined(stream)
        await prove(with_more, [key], Purpose.LINK)
        await with_more.flush(b"and more")
        await way.reach(admitted=1)
        with trio.fail_after(5):
            assert await way.admitted[0].receive_some() == b"and more"
            await send_all(transport_of(way.admitted[0]), b"an answer")
            assert await stream.receive_some() == b"an answer"
        await trio.aclose_forcefully(stream)


class _Joined(trio.abc.Stream):
    """Keeps back the last message, so that the next bytes come in one piece with it."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._sent = 0
        self._kept = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += 1
        if self._sent == 1:
            await self._inner.send_all(data)
        else:
            self._kept += bytes(data)

    async def flush(self, data: bytes) -> None:
        await self._inner.send_all(self._kept + data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._inner.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_relay_runs_over_it(secure: bool, authority: Authority) -> None:
    key = random_key()
    tls, verify = (authority.server(HERE), authority.client()) if secure else (None, None)
    left, right = socket.socketpair()
    agent, visitor = Socket(left), Socket(right)
    async with entrance(door(key, purpose=Purpose.TUNNEL, tls=tls)) as way:
        hop = await dialler(key, tls=verify).tunnel(HERE, way.port)
        await way.reach(admitted=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: relay(visitor, hop, buffers=Pool(65536)))
            await exchange(agent, way.admitted[0])
        for each in (hop, agent, visitor):
            each.close()


@pytest.mark.parametrize("secure", [False, True])
async def test_a_relay_over_it_ends_with_a_reset_of_either_side(secure: bool, authority: Authority) -> None:
    key = random_key()
    tls, verify = (authority.server(HERE), authority.client()) if secure else (None, None)
    for loser in ("agent", "server"):
        left, right = socket.socketpair()
        agent, visitor = Socket(left), Socket(right)
        async with entrance(door(key, purpose=Purpose.TUNNEL, tls=tls)) as way:
            hop = await dialler(key, tls=verify).tunnel(HERE, way.port)
            await way.reach(admitted=1)
            if loser == "agent":
                visitor.abort()
            else:
                way.admitted[0].abort()
            with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
                await relay(visitor, hop, buffers=Pool(65536))
            for each in (hop, agent, visitor):
                each.close()


# proxies that are not trusted


async def test_another_key_is_one_line_on_each_side(caplog: pytest.LogCaptureFixture) -> None:
    async with entrance(door(random_key())) as way:
        with pytest.raises(OSError, match=r"^it is not trusted: it closed the connection: is CONNECT_CLUSTER_KEY"):
            await dialler(random_key()).link(HERE, way.port)
        await way.reach(turned_away=1)
    assert complaints(caplog) == [("link", "it has another key: is CONNECT_CLUSTER_KEY, or Redis, the same for both?")]


async def test_the_other_port_is_named(caplog: pytest.LogCaptureFixture) -> None:
    key = random_key()
    async with entrance(door(key, purpose=Purpose.TUNNEL)) as way:
        with pytest.raises(OSError, match="it is not trusted"):
            await dialler(key).link(HERE, way.port)
        await way.reach(turned_away=1)
    assert complaints(caplog) == [("tunnel", "it is on the wrong port: this one is for a tunnel, not a link")]


async def test_who_dribbles_bytes_has_no_more_time_than_others(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    key = random_key()
    async with entrance(door(key)) as way:
        stream = await trio.open_tcp_stream(HERE, way.port)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            for byte in b"\x89CONNECT\x01\x01" + bytes(80):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.5)
        assert trio.current_time() == pytest.approx(PROOF_TIMEOUT, abs=1.1)
        await stream.aclose()
    assert complaints(caplog) == [("link", "it has proven nothing within 5 s")]


async def test_too_many_strangers_are_turned_away_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trusted, "MAX_STRANGERS", 3)
    key = random_key()
    async with entrance(door(key)) as way:
        silent = [await trio.open_tcp_stream(HERE, way.port) for _ in range(4)]
        await way.reach(turned_away=1)
        assert complaints(caplog) == [("link", "3 others have not proven anything yet either")]
        for stream in silent:
            await stream.aclose()
        await way.reach(turned_away=4)
        connection = await dialler(key).link(HERE, way.port)
        await way.reach(admitted=1, turned_away=4)
        connection.close()


async def test_a_port_scan_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with entrance(door(random_key())) as way:
        for _ in range(100):
            async with await trio.open_tcp_stream(HERE, way.port) as stream:
                await stream.send_all(b"\0")
        await way.reach(turned_away=100)
        assert BURST <= len(complaints(caplog)) <= BURST + 5


@pytest.mark.parametrize("checkpoints", range(12))
async def test_a_dial_that_is_given_up_leaves_nothing(checkpoints: int) -> None:
    key = random_key()
    async with entrance(door(key)) as way:

        async def dial() -> None:
            (await dialler(key).link(HERE, way.port)).close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await dial()


# servers that are not trusted


@asynccontextmanager
async def impostor(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """What listens where a server should."""
    listener = listener_on()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await serve(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_server_that_makes_up_a_proof_hears_nothing_but_a_hello() -> None:
    key = random_key()
    heard = []

    async def serve(stream: trio.SocketStream) -> None:
        forged = Key(key.id, bytes(32))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await let_prove(stream, [forged], Purpose.LINK)
        heard.append(str(caught.value))

    async with impostor(serve) as port:
        with pytest.raises(OSError, match=r"^it is not trusted: its proof is wrong$"):
            await dialler(key).link(HERE, port)
        while not heard:
            await trio.sleep(0.005)
    assert heard == ["it ended after 0 of 32 bytes"]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP instead of the handshake"),
        (b"\0" * 100, "it does not speak the handshake"),
        (b"\x89CONNECT\x02", "it speaks version 2"),
        (b"\x89CON", "it closed the connection within the handshake"),
        (b"", "it closed the connection: is CONNECT_CLUSTER_KEY"),
    ],
)
async def test_what_is_no_server_is_named(says: bytes, reason: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(says)

    async with impostor(serve) as port:
        with pytest.raises(OSError, match=f"^it is not trusted: {reason}"):
            await dialler(random_key()).link(HERE, port)


async def test_a_server_that_is_silent_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with impostor(serve) as port:
        with pytest.raises(OSError, match="it has proven nothing within 5 s"):
            await dialler(random_key()).link(HERE, port)
        assert trio.current_time() == PROOF_TIMEOUT


# TLS


async def test_a_certificate_of_another_authority_is_one_line_on_each_side(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = random_key()
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    async with entrance(door(key, tls=authority.server(HERE))) as way:
        with pytest.raises(OSError, match=r"^it is not trusted: TLS: .*certificate"):
            await dialler(key, tls=stranger.client()).link(HERE, way.port)
        await way.reach(turned_away=1)
    ((port, reason),) = complaints(caplog)
    assert port == "link"
    assert reason.startswith("TLS: ")


async def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    key = random_key()
    async with entrance(door(key, tls=authority.server("server-0.connect"))) as way:
        with pytest.raises(OSError, match=r"^it is not trusted: TLS: IP address mismatch"):
            await dialler(key, tls=authority.client()).link(HERE, way.port)
        await way.reach(turned_away=1)


async def test_the_key_has_to_be_proven_over_tls_too(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with entrance(door(random_key(), tls=authority.server(HERE))) as way:
        with pytest.raises(OSError, match="it is not trusted: it closed the connection"):
            await dialler(random_key(), tls=authority.client()).link(HERE, way.port)
        await way.reach(turned_away=1)
    assert [reason.partition(":")[0] for _, reason in complaints(caplog)] == ["it has another key"]


async def test_tls_on_one_side_only_is_named_on_both(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    key = random_key()
    async with entrance(door(key)) as way:
        with pytest.raises(OSError, match=r"^it is not trusted: .+"):
            await dialler(key, tls=authority.client()).link(HERE, way.port)
        await way.reach(turned_away=1)
    assert complaints(caplog) == [("link", "it speaks TLS, which is not configured here")]
    caplog.clear()
    async with entrance(door(key, tls=authority.server(HERE))) as way:
        with pytest.raises(OSError, match=r"^it is not trusted: .+"):
            await dialler(key).link(HERE, way.port)
        await way.reach(turned_away=1)
    assert [reason[:5] for _, reason in complaints(caplog)] == ["TLS: "]


async def test_who_is_silent_before_tls_is_left_in_time(
    autojump_clock: trio.testing.MockClock, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        entrance(door(random_key(), tls=authority.server(HERE))) as way,
        await trio.open_tcp_stream(HERE, way.port) as stream,
    ):
        assert await stream.receive_some() == b""
        assert trio.current_time() == PROOF_TIMEOUT
    assert complaints(caplog) == [("link", "it has proven nothing within 5 s")]


async def test_a_plain_connection_asks_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with impostor(lambda stream: stream.send_all(b"hello")) as port:
        connection = await connect_plain(HERE, port)
        assert await connection.receive_some() == b"hello"
        connection.close()
