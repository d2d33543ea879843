"""What connects to a server's ports and is none of its proxies: closed, one line each, and nothing is believed."""

from __future__ import annotations

import logging

import pytest
import trio

from connect_trio.mux import frames
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.transport import trusted
from connect_trio.transport.proofs import CLIENT_HELLO_SIZE, PROOF_SIZE, SERVER_ANSWER_SIZE, Purpose, Untrusted
from tests.roles.test_server import GARBAGE, answer_to, lines, open_server, still_serves
from tests.support.dialled import ask
from tests.support.trust import client, own_keys, prove, random_key, read_exactly

HELLO = frames.encode_hello(Hello(peer=Peer.OPENER, instance=b"P" * 16))
PORTS = pytest.mark.parametrize(
    ("port", "purpose", "wish"),
    [("listener_port", Purpose.LINK, HELLO), ("tunnel_port", Purpose.TUNNEL, ask() + HELLO)],
)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the lines about strangers, which are all lines that there are."""
    assert set(lines(caplog)) <= {"not one of our proxies"}
    found = [vars(record) for record in caplog.records if "peer" in vars(record)]
    assert all(line["peer"].startswith("127.0.0.1:") for line in found)
    return [line["reason"] for line in found]


async def one_line(caplog: pytest.LogCaptureFixture) -> str:
    with trio.fail_after(60):
        while not reasons(caplog):
            await trio.sleep(0.005)
    (reason,) = reasons(caplog)
    return reason


@PORTS
@pytest.mark.parametrize("hang_up", [False, True])
@pytest.mark.parametrize("garbage", [*GARBAGE, b"\0", b"\x89CONNECT\x02", b"\x89CONNECT\x01\x07" + bytes(100)])
async def test_garbage_is_answered_with_nothing(
    port: str,
    purpose: Purpose,
    wish: bytes,
    garbage: bytes,
    hang_up: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trusted, "PROOF_TIMEOUT", 3600.0)  # nothing waits for the deadline of the handshake
    caplog.set_level(logging.INFO)
    async with open_server() as (running, registry):
        with trio.fail_after(60):
            assert await answer_to(getattr(running, port), garbage, purpose=None, hang_up=hang_up) == b""
            assert await one_line(caplog)
        await still_serves(running, registry)


@PORTS
async def test_what_was_enough_before_there_was_a_key_is_not(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, registry):
        assert await answer_to(getattr(running, port), wish, purpose=None) == b""
        assert registry.count("publish") == 0
        assert await one_line(caplog) in (
            "it does not speak the handshake",
            "it speaks HTTP instead of the handshake",
        )


@PORTS
async def test_who_leaves_without_a_word_is_a_line(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, _):
        assert await answer_to(getattr(running, port), b"", purpose=None, hang_up=True) == b""
        assert await one_line(caplog) == "it closed the connection before it said anything"


@PORTS
async def test_another_key_is_refused_and_nothing_is_said_to_it(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, registry):
        async with await trio.open_tcp_stream("127.0.0.1", getattr(running, port)) as stream:
            with pytest.raises(trio.BrokenResourceError, match=f"ended after 0 of {SERVER_ANSWER_SIZE} bytes"):
                await prove(stream, [random_key()], purpose)
        assert (await one_line(caplog)).startswith("it has another key")
        await still_serves(running, registry)


@PORTS
async def test_a_recorded_handshake_does_not_open_the_port_again(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server() as (running, registry):
        side = client(own_keys(), purpose)
        async with await trio.open_tcp_stream("127.0.0.1", getattr(running, port)) as stream:
            await stream.send_all(side.start())
            proof = side.receive(await read_exactly(stream, SERVER_ANSWER_SIZE))
            await stream.send_all(proof + wish)
            assert await stream.receive_some(), "this time it is trusted"
        with trio.fail_after(60):
            while "ended" not in str(lines(caplog)):
                await trio.sleep(0.005)
        caplog.clear()
        calls = registry.count("publish")
        recorded = side.start() + proof + wish
        assert len(await answer_to(getattr(running, port), recorded, purpose=None)) in (0, SERVER_ANSWER_SIZE)
        assert await one_line(caplog) == "its proof is wrong"
        assert registry.count("publish") == calls


@PORTS
async def test_the_servers_own_proof_does_not_open_the_port(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, _):
        async with await trio.open_tcp_stream("127.0.0.1", getattr(running, port)) as stream:
            await stream.send_all(client(own_keys(), purpose).start())
            answer = await read_exactly(stream, SERVER_ANSWER_SIZE)
            await stream.send_all(answer[-PROOF_SIZE:])
            assert await stream.receive_some() == b""
        assert await one_line(caplog) == "its proof is wrong"


@PORTS
async def test_a_proof_for_one_port_does_not_open_the_other(
    port: str, purpose: Purpose, wish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody between has a proxy prove on this port what he shows on that one."""
    other = next(each for each in Purpose if each is not purpose)
    victim = client(own_keys(), other)
    async with open_server() as (running, _):
        async with await trio.open_tcp_stream("127.0.0.1", getattr(running, port)) as stream:
            hello = bytearray(victim.start())
            hello[9] = purpose
            await stream.send_all(hello)
            answer = bytearray(await read_exactly(stream, SERVER_ANSWER_SIZE))
            answer[9] = other
            with pytest.raises(Untrusted, match="its proof is wrong"):
                victim.receive(bytes(answer))
        assert await one_line(caplog) == "it closed the connection within the handshake"


@PORTS
@pytest.mark.parametrize("length", [1, 8, 40, CLIENT_HELLO_SIZE - 1])
async def test_half_a_hello_is_a_line(
    port: str, purpose: Purpose, wish: bytes, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server() as (running, registry):
        said = client(own_keys(), purpose).start()[:length]
        assert await answer_to(getattr(running, port), said, purpose=None, hang_up=True) == b""
        assert await one_line(caplog) == "it closed the connection within the handshake"
        await still_serves(running, registry)
