"""What runs over a trusted connection, with TLS and without; and what TLS refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from connect_trio.mux.buffers import Pool
from connect_trio.transport.proofs import Purpose
from connect_trio.transport.relay import relay
from connect_trio.transport.sockets import Socket
from connect_trio.transport.trusted import PROOF_TIMEOUT, transport_of
from connect_trio.transport.tunnels import send_all
from tests.support.certificates import Authority
from tests.support.doors import HERE, complaints, dialler, door, entrance, exchange
from tests.support.trust import prove, random_key


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
        with trio.fail_after(60):
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
            with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
                await relay(visitor, hop, buffers=Pool(65536))
            for each in (hop, agent, visitor):
                each.close()


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
