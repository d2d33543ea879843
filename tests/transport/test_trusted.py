"""Doors and diallers on real sockets: who is trusted, and one line for each peer that is not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from connect_trio.transport import trusted
from connect_trio.transport.complaints import BURST
from connect_trio.transport.keyring import Key
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.trusted import PROOF_TIMEOUT, connect_plain
from tests.support.doors import HERE, complaints, dialler, door, entrance
from tests.support.tools import listener_on
from tests.support.trust import let_prove, random_key

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
        assert BURST <= len(complaints(caplog)) < 50


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


async def test_a_plain_connection_asks_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with impostor(lambda stream: stream.send_all(b"hello")) as port:
        connection = await connect_plain(HERE, port)
        assert await connection.receive_some() == b"hello"
        connection.close()
