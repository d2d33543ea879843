"""Connections that begin in the agent: announced, opened once, cut in time; whatever the proxy does."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from connect_trio import control
from connect_trio.agent import announcing
from connect_trio.agent.announcing import ACCEPTS, WAIT
from connect_trio.agent.listening import Listener
from connect_trio.control import (
    MAX_LISTENERS,
    Announce,
    Failed,
    Listen,
    Listening,
    Refuse,
    Unlisten,
    Unlistened,
    Withdraw,
)
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.transport.sockets import Socket
from tests.support.reverse import (
    REFERENCE,
    AgentBench,
    Talker,
    agent_bench,
    connect,
    encoded,
    open_stream,
)

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    with trio.fail_after(60):
        return b"".join([part async for part in stream])


async def is_cut(client: trio.SocketStream) -> bool:
    with trio.fail_after(60):
        try:
            return await client.receive_some() == b""
        except trio.BrokenResourceError:
            return True


async def is_turned_away(bench: AgentBench, address: str) -> bool:
    """Whether a connection is cut: before its client knows that it was there, or after."""
    try:
        client = await bench.connect(address)
    except OSError:
        return True
    return await is_cut(client)


async def refusal_of(stream: MuxStream) -> tuple[int, str]:
    with trio.fail_after(60), pytest.raises(StreamBroken) as caught:
        await stream.wait_accepted()
    assert caught.value.end.cause is FrameType.REJECT
    return caught.value.end.code, caught.value.end.text


# what works


async def test_a_connection_is_announced_and_its_bytes_go_both_ways() -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        address = await bench.listen(owner)
        client, told = await bench.announce_one(owner, address)
        peer = "{}:{}".format(*client.socket.getsockname())
        assert (told.kind, told.metadata) == ("tcp", {"listener": "1", "address": address, "peer": peer})
        await client.send_all(b"sent before the stream was there")
        stream = bench.announced(told.reference)
        assert await stream.receive_some() == b"sent before the stream was there"
        await stream.send_all(b"question")
        await stream.send_eof()
        assert await read_all(client) == b"question"
        await client.send_all(b"answer after the end of the other side")
        await client.send_eof()
        assert await read_all(stream) == b"answer after the end of the other side"
        await stream.aclose()


@pytest.mark.parametrize("network", ["tcp", "unix"])
async def test_many_connections_do_not_mix(network: str, tmp_path: Path) -> None:
    async with agent_bench(tmp_path / "sockets") as bench:
        owner = bench.control()
        address = await bench.listen(owner, network, "127.0.0.1:0" if network == "tcp" else "")
        clients = [await bench.announce_one(owner, address) for _ in range(20)]
        assert len({told.reference for _, told in clients}) == 20
        streams = [bench.announced(told.reference) for _, told in clients]
        for number, (client, told) in enumerate(clients):
            assert told.kind == network
            await client.send_all(b"%d" % number)
            await client.aclose()
        assert [await read_all(stream) for stream in streams] == [b"%d" % number for number in range(20)]


async def test_a_listener_closes_when_asked_and_its_waiting_connections_wait_on() -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        address = await bench.listen(owner)
        client, told = await bench.announce_one(owner, address)
        await owner.say(Unlisten("1"))
        await owner.hear(Unlistened)
        with pytest.raises(OSError, match="all attempts to connect"):
            await connect(address)
        await bench.announced(told.reference).send_all(b"still there")
        assert await client.receive_some() == b"still there"
        assert await bench.listen(owner, address=address) == address


async def test_several_owners_have_nothing_to_do_with_each_other() -> None:
    async with agent_bench() as bench:
        first, second = bench.control(), bench.control()
        ours, theirs = await bench.listen(first), await bench.listen(second)
        assert ours != theirs
        client, told = await bench.announce_one(second, theirs)
        await first.say(Refuse(told.reference, "not mine"), Unlisten("2"))
        await first.hear(Failed)
        await first.stream.aclose()
        await bench.announced(told.reference).send_all(b"not touched")
        assert await client.receive_some() == b"not touched"


# refusals


async def test_a_refused_connection_is_cut() -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        client, told = await bench.announce_one(owner, await bench.listen(owner))
        await owner.say(Refuse(told.reference, "too many"))
        assert await is_cut(client)
        assert "no connection waits" in (await refusal_of(bench.announced(told.reference)))[1]
        await owner.say(Refuse(told.reference, "again"))
        await owner.say(Refuse(REFERENCE, "never heard of"))
        assert await bench.listen(owner, name="2")


async def test_a_reference_serves_once() -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        client, told = await bench.announce_one(owner, await bench.listen(owner))
        first, second = bench.announced(told.reference), bench.announced(told.reference)
        assert await refusal_of(second) == (
            RejectCode.REFUSED,
            "no connection waits under this reference, or not any more",
        )
        await first.send_all(b"the first has it")
        assert await client.receive_some() == b"the first has it"


@pytest.mark.parametrize("metadata", [{}, {"reference": ""}, {"reference": REFERENCE}, {"other": "x"}])
async def test_an_unknown_reference_is_refused(metadata: dict[str, str]) -> None:
    async with agent_bench() as bench:
        code, text = await refusal_of(open_stream(bench.chain, control.ANNOUNCED, encoded(metadata)))
        assert (code, text) == (RejectCode.REFUSED, "no connection waits under this reference, or not any more")


@pytest.mark.parametrize("kind", [control.CONTROL, control.ANNOUNCED])
@pytest.mark.parametrize("raw", [b"[]", b"\xff", b'{"reference": 1}', b"{" * 2000])
async def test_metadata_that_is_no_object_of_texts_is_refused(kind: str, raw: bytes) -> None:
    async with agent_bench() as bench:
        code, text = await refusal_of(open_stream(bench.chain, kind, raw))
        assert code == RejectCode.REFUSED
        assert text.startswith("metadata ")


@pytest.mark.parametrize(("version", "named"), [({"version": "2"}, "not 2"), ({}, "not an untold one")])
async def test_another_version_is_refused_with_the_right_one(version: dict[str, str], named: str) -> None:
    async with agent_bench() as bench:
        code, text = await refusal_of(bench.control(version).stream)
        assert code == RejectCode.UNSUPPORTED
        assert text == f"this agent speaks version 1 of control streams, {named}"


@pytest.mark.parametrize(
    ("network", "address", "reason"),
    [
        ("tcp", "0.0.0.0:0", "the agent listens on 127.0.0.1, ::1 only, not on 0.0.0.0"),
        ("tcp", "nonsense", "not an address; write HOST:PORT, with port 0 for any free one"),
        ("unix", "x", "this agent has no directory for unix sockets"),
    ],
)
async def test_what_cannot_be_listened_on_says_why(network: str, address: str, reason: str) -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        await owner.say(Listen("1", network, address))
        assert await owner.hear(Failed) == Failed("1", reason)
        assert await bench.listen(owner), "the name is free again, and the stream goes on"


# time


async def test_a_connection_waits_so_long_and_no_longer(autojump_clock: Clock) -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        client, told = await bench.announce_one(owner, await bench.listen(owner))
        start = trio.current_time()
        assert await owner.hear(Withdraw) == Withdraw(told.reference)
        assert trio.current_time() - start >= WAIT - 1
        assert await is_cut(client)
        assert "no connection waits" in (await refusal_of(bench.announced(told.reference)))[1]
        assert not bench.announcer.waiting


# the end of the control stream


@pytest.mark.parametrize("how", ["aclose", "reset", "junk"])
async def test_the_end_of_the_control_stream_cuts_what_waits_and_only_that(how: str, tmp_path: Path) -> None:
    async with agent_bench(tmp_path / "sockets") as bench:
        owner = bench.control()
        address = await bench.listen(owner, "unix", "x")
        served, first = await bench.announce_one(owner, address)
        stream = bench.announced(first.reference)
        await stream.wait_accepted()
        waits, second = await bench.announce_one(owner, address)
        if how == "aclose":
            await owner.stream.aclose()
        elif how == "reset":
            owner.stream.reset("enough")
        else:
            await owner.stream.send_all(b"junk\n")
            assert await owner.hear_end() == "a message that is not JSON"
        assert await is_cut(waits)
        await bench.until_nothing_waits()
        assert not Path(address).exists()
        assert "no connection waits" in (await refusal_of(bench.announced(second.reference)))[1]
        await stream.send_all(b"goes on")
        assert await served.receive_some() == b"goes on"


async def test_an_agent_that_ends_leaves_no_socket(tmp_path: Path) -> None:
    async with agent_bench(tmp_path / "sockets") as bench:
        owner = bench.control()
        address = await bench.listen(owner, "unix", "x")
        client = await connect(address)
        await owner.hear(Announce)
        bench.scope.cancel()
    assert await is_cut(client)
    await client.aclose()
    assert not Path(address).exists()
    assert not bench.announcer.waiting


# limits


async def test_listeners_are_limited() -> None:
    async with agent_bench() as bench:
        owner = bench.control()
        for number in range(MAX_LISTENERS):
            await bench.listen(owner, name=str(number))
        await owner.say(Listen("more", "tcp", "127.0.0.1:0"))
        assert (await owner.hear(Failed)).reason == f"there are {MAX_LISTENERS} listeners already"
        await owner.say(Unlisten("0"), Listen("more", "tcp", "127.0.0.1:0"))
        await owner.hear(Unlistened)
        await owner.hear(Listening)


async def test_control_streams_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "MAX_CONTROLS", 3)
    async with agent_bench() as bench:
        owners = [bench.control() for _ in range(3)]
        assert await refusal_of(bench.control().stream) == (
            RejectCode.OVERLOADED,
            "there are 3 control streams already",
        )
        await owners[0].stream.aclose()
        await settled()
        await bench.control().stream.wait_accepted()


@pytest.mark.parametrize("whose", ["one stream", "the agent"])
async def test_waiting_connections_are_limited(whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control if whose == "one stream" else announcing, "MAX_WAITING", 3)
    async with agent_bench() as bench:
        owner, other = bench.control(), bench.control()
        address = await bench.listen(owner)
        clients = [await bench.announce_one(owner, address) for _ in range(3)]
        assert await is_turned_away(bench, address)
        if whose == "one stream":
            another, _ = await bench.announce_one(other, await bench.listen(other))
            await another.aclose()
        else:
            assert await is_turned_away(bench, await bench.listen(other))
        bench.announced(clients[0][1].reference)
        await settled(0.01)
        again, told = await bench.announce_one(owner, address)
        await bench.announced(told.reference).send_all(b"there is room again")
        assert await again.receive_some() == b"there is room again"


async def test_connections_are_announced_at_a_pace(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(self: Listener) -> tuple[Socket, dict[str, str]]:
        await trio.lowlevel.checkpoint()
        near, far = trio.socket.socketpair()
        far.close()
        return Socket(socket.socket(fileno=near.detach())), {"address": self.address}

    monkeypatch.setattr(Listener, "accept", accept)
    async with agent_bench() as bench:
        owner = bench.control()
        await bench.listen(owner)
        start = trio.current_time()
        for _ in range(int(3 * ACCEPTS)):
            told = await owner.hear(Announce)
            await owner.say(Refuse(told.reference, "next"))
        assert trio.current_time() - start >= 1.9, "a burst at once, then so many a second"
        owner.stream.reset("enough")
        await bench.until_nothing_waits()


async def test_a_failure_to_accept_passes(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, failures = Listener.accept, [OSError(errno.EMFILE, "Too many open files")] * 3

    async def failing(self: Listener) -> tuple[Socket, dict[str, str]]:
        if failures:
            raise failures.pop()
        return await accept(self)

    monkeypatch.setattr(Listener, "accept", failing)
    async with agent_bench() as bench:
        owner = bench.control()
        await bench.announce_one(owner, await bench.listen(owner))
        assert not failures


# hostile proxies


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\x00" * 100 + b"\n", "a message that is not JSON"),
        (b"x" * 9000, "a message of more than 8192 bytes"),
        (control.encode(Withdraw(REFERENCE)), "withdraw is not for this end to say"),
        (control.encode(Listen("1", "tcp", "127.0.0.1:0")) * 2, "listen: the listener's name is in use"),
    ],
)
async def test_a_broken_rule_is_told_and_ends_only_this_stream(said: bytes, why: str) -> None:
    async with agent_bench() as bench:
        owner, other = bench.control(), bench.control()
        await owner.stream.send_all(said)
        assert await owner.hear_end() == why
        assert await bench.listen(other)


async def test_who_asks_without_listening_to_the_answers_is_cut_off(autojump_clock: Clock) -> None:
    async with agent_bench() as bench:
        owner, other = bench.control(), bench.control()
        with trio.fail_after(600), pytest.raises(StreamBroken, match="does not read what it is sent"):
            await flood(owner, bench)
        assert await bench.listen(other)


async def flood(owner: Talker, bench: AgentBench) -> None:
    """Ask for ever, at a pace that is allowed."""
    while True:
        await owner.say(*[Unlisten("x" * control.MAX_NAME)] * 512)
        await trio.sleep(1)
