"""The owner's end of a control stream: listeners and connections, and an agent that may say anything."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from connect_trio.control import (
    Failed,
    Listen,
    Listening,
    Refuse,
    Unlisten,
    Unlistened,
    Withdraw,
)
from connect_trio.dial import DialError
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import StreamBroken
from connect_trio.reverse import ANSWER, OPENING, Connection, ListenError, open_reverse
from tests.support.grants import granted
from tests.support.reverse import REFERENCE, Talker, announce, encoded, fresh, owner_of, proxy_bench
from tests.support.tables import SESSION

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


# what works


async def test_a_control_stream_is_opened_and_ends_with_the_block() -> None:
    async with proxy_bench() as bench:
        async with owner_of(bench) as owner:
            (target,) = bench.dialer.dialled
            assert (target.session, target.kind, target.metadata) == (SESSION, "control", {"version": "1"})
            assert owner.reverse.connections == 0
        assert await owner.agent.hear_end() == ""


async def test_a_listener_is_asked_for_and_closed_once() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        listener, name = await owner.listen()
        assert (listener.network, listener.address) == ("tcp", "127.0.0.1:40000")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.aclose)
            assert await owner.agent.hear(Unlisten) == Unlisten(name)
            await owner.agent.say(Unlistened(name))
        await listener.aclose()
        second, other = await owner.listen()
        assert other != name
        assert second is not listener


async def test_a_connection_reaches_the_handler_with_its_listener() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        listener, name = await owner.listen()
        theirs, connection = await owner.connect(listener=name, peer="127.0.0.1:50000")
        assert bench.dialer.dialled[-1].kind == "announced"
        assert theirs.core.ask.metadata == encoded(bench.dialer.dialled[-1].metadata)
        assert connection.listener is listener
        assert (connection.kind, connection.metadata["peer"]) == ("tcp", "127.0.0.1:50000")
        await theirs.send_all(b"from the agent")
        assert await connection.stream.receive_some() == b"from the agent"
        await connection.stream.send_all(b"to the agent")
        assert await theirs.receive_some() == b"to the agent"


async def test_a_connection_announced_with_the_answer_itself_has_its_listener() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner, trio.open_nursery() as nursery:
        nursery.start_soon(owner.reverse.listen, "unix", "")
        name = (await owner.agent.hear(Listen)).listener
        await owner.agent.say(Listening(name, "/run/x"), announce(listener=name))
        await bench.accept()
        await settled()
        assert owner.connections[0].listener is not None
        assert owner.connections[0].listener.address == "/run/x"


async def test_a_connection_of_no_known_listener_says_so() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        assert (await owner.connect(listener="99"))[1].listener is None
        assert (await owner.connect())[1].listener is None


async def test_a_handler_that_returns_closes_its_stream() -> None:
    async def answer(connection: Connection) -> None:
        await connection.stream.send_all(b"that is all")

    async with proxy_bench() as bench, trio.open_nursery() as nursery:
        agents: list[Talker] = []

        async def accept() -> None:
            agents.append(await bench.accept_control())

        nursery.start_soon(accept)
        async with open_reverse(bench.dialer, granted(SESSION), answer) as reverse:
            await agents[0].say(announce())
            theirs = await bench.accept()
            assert b"".join([part async for part in theirs]) == b"that is all"
            assert reverse.connections == 0


# errors of one connection


async def test_an_error_of_the_handler_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with proxy_bench() as bench, owner_of(bench, served=False) as owner:
        for _ in range(3):
            await owner.agent.say(announce(fresh()))
            theirs = await bench.accept()
            with pytest.raises(StreamBroken, match="the connection's other end is gone"):
                await theirs.receive_some()
        assert owner.reverse.connections == 0
        await owner.listen()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == ["a connection could not be served"] * 3


async def test_a_lost_connection_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def read(connection: Connection) -> None:
        async with trio.open_nursery():  # errors come out of it in a group
            await connection.stream.receive_some()

    async with proxy_bench() as bench, trio.open_nursery() as nursery:
        agents: list[Talker] = []

        async def accept() -> None:
            agents.append(await bench.accept_control())

        nursery.start_soon(accept)
        async with open_reverse(bench.dialer, granted(SESSION), read) as reverse:
            await agents[0].say(announce())
            (await bench.accept()).reset("the client is gone")
            await settled(0.01)
            assert reverse.connections == 0
            assert reverse.failure is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_stream_that_the_agent_rejects_is_refused_in_its_words() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        await owner.agent.say(announce())
        (await bench.chain.accepted.receive()).reject(RejectCode.REFUSED, "no connection waits")
        assert await owner.agent.hear(Refuse) == Refuse(REFERENCE, "no connection waits")
        assert owner.reverse.connections == 0
        await owner.connect()


async def test_a_stream_that_does_not_come_in_time_is_refused(autojump_clock: Clock) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        await owner.agent.say(announce())
        await bench.chain.accepted.receive()  # and no answer
        refused = await owner.agent.hear(Refuse)
        assert refused.reference == REFERENCE
        assert f"within {OPENING:g} s" in refused.reason
        assert owner.reverse.connections == 0


async def test_a_connection_that_is_withdrawn_is_not_opened() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        await owner.agent.say(announce())
        core = await bench.chain.accepted.receive()
        await owner.agent.say(Withdraw(REFERENCE), Withdraw(REFERENCE), Withdraw(fresh()))
        await settled(0.01)
        assert core.end is not None
        assert owner.reverse.connections == 0
        await owner.connect()
        await owner.agent.say(announce())  # a reference that is not in use may be announced
        await bench.accept()


async def test_a_connection_that_is_open_is_not_withdrawn() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        theirs, connection = await owner.connect()
        await owner.agent.say(Withdraw(bench.dialer.dialled[-1].metadata["reference"]))
        await theirs.send_all(b"still open")
        assert await connection.stream.receive_some() == b"still open"


async def test_connections_beyond_the_limit_are_refused() -> None:
    async with proxy_bench() as bench, owner_of(bench, max_connections=2) as owner:
        await owner.connect()
        await owner.connect()
        await owner.agent.say(announce())
        assert await owner.agent.hear(Refuse) == Refuse(REFERENCE, "there are 2 connections already")
        assert owner.reverse.connections == 2


# listeners that are not granted


async def test_a_refusal_to_listen_is_told() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ListenError, match=r"^the port is in use$"):
                await owner.reverse.listen("tcp", "127.0.0.1:80")

        nursery.start_soon(ask)
        await owner.agent.say(Failed((await owner.agent.hear(Listen)).listener, "the port is in use"))


async def test_an_agent_that_does_not_answer_is_told_to_forget_it(autojump_clock: Clock) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        with pytest.raises(ListenError, match="does not answer"):
            await owner.reverse.listen("tcp", "127.0.0.1:0")
        assert trio.current_time() >= ANSWER
        name = (await owner.agent.hear(Listen)).listener
        assert await owner.agent.hear(Unlisten) == Unlisten(name)
        await owner.agent.say(Listening(name, "late"), Unlistened(name))
        await settled()
        assert owner.reverse.failure is None


async def test_a_cancelled_listen_leaves_no_listener() -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.reverse.listen, "tcp", "127.0.0.1:0")
            name = (await owner.agent.hear(Listen)).listener
            nursery.cancel_scope.cancel()
        assert await owner.agent.hear(Unlisten) == Unlisten(name)


async def test_a_closing_that_is_not_answered_ends_in_time(autojump_clock: Clock) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        listener, _ = await owner.listen()
        start = trio.current_time()
        await listener.aclose()
        assert trio.current_time() - start >= ANSWER


@pytest.mark.parametrize(("network", "address"), [("udp", "x"), ("tcp", "x\ny"), ("tcp", "x" * 600)])
async def test_what_cannot_be_asked_is_an_error_at_once(network: str, address: str) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        with pytest.raises(ListenError, match="this cannot be asked for"):
            await owner.reverse.listen(network, address)


# the end of the control stream


async def test_an_agent_that_serves_no_control_streams_is_an_error_before_the_block() -> None:
    async with proxy_bench() as bench, trio.open_nursery() as nursery:

        async def reject() -> None:
            (await bench.chain.accepted.receive()).reject(RejectCode.UNSUPPORTED, "no such kind")

        nursery.start_soon(reject)
        with pytest.raises(DialError, match="no such kind"):
            async with open_reverse(bench.dialer, granted(SESSION), lambda connection: trio.sleep(0)):
                raise AssertionError("the block has begun")


@pytest.mark.parametrize("how", ["aclose", "reset"])
async def test_a_lost_control_stream_ends_listeners_but_no_connections(how: str) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        listener, _ = await owner.listen()
        theirs, connection = await owner.connect()
        await owner.agent.say(announce())
        opening = await bench.chain.accepted.receive()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(DialError):
                    await owner.reverse.listen("tcp", "127.0.0.1:0")

            nursery.start_soon(ask)
            await owner.agent.hear(Listen)
            if how == "aclose":
                await owner.agent.stream.aclose()
            else:
                owner.agent.stream.reset("the agent stops")
        failure = await owner.reverse.wait_ended()
        assert failure.part == "agent"
        wanted = {"aclose": "has ended the control stream", "reset": "the agent stops"}
        assert wanted[how] in failure.text
        with pytest.raises(DialError) as caught:
            await owner.reverse.listen("tcp", "127.0.0.1:0")
        assert caught.value.failure == failure
        await listener.aclose()
        await settled(0.01)
        assert opening.end is not None, "what was being opened was cut in the agent"
        await theirs.send_all(b"goes on")
        assert await connection.stream.receive_some() == b"goes on"


async def test_the_end_of_the_block_ends_the_connections() -> None:
    async with proxy_bench() as bench:
        async with owner_of(bench) as owner:
            theirs, _ = await owner.connect()
        with pytest.raises(StreamBroken, match="the connection's other end is gone"):
            await theirs.receive_some()
