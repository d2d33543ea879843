"""An agent may say anything: what it says is bounded, and ends its control stream with one clear error."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from connect_trio import control
from connect_trio.control import Listen, Listening, Message, Unlisten, Unlistened
from connect_trio.dial import DialError
from connect_trio.mux.stream import StreamBroken
from connect_trio.reverse import Listener
from tests.support.reverse import Owner, announce, fresh, owner_of, proxy_bench


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\xff" * 10 + b"\n", "a message that is not JSON"),
        (b"x" * 9000, "a message of more than 8192 bytes"),
        (b"[" * 8000 + b"\n", "a message that is not JSON"),
        (control.encode(Listen("1", "tcp", "127.0.0.1:0")), "listen is not for this end to say"),
        (control.encode(announce()) * 2, "announce: the reference is in use"),
        (
            b'{"type": "announce", "reference": "../x", "kind": "tcp", "metadata": {}}\n',
            "reference is not 32 hex digits",
        ),
    ],
)
async def test_a_broken_rule_is_one_clear_error(said: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner:
        theirs, connection = await owner.connect()
        await owner.agent.stream.send_all(said)
        failure = await owner.reverse.wait_ended()
        assert failure.text.startswith("the agent breaks the control protocol: ")
        assert why in failure.text
        assert why in await owner.agent.hear_end()
        await theirs.send_all(b"goes on")
        assert await connection.stream.receive_some() == b"goes on"
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.parametrize(("asked", "answer"), [(Listen, Unlistened("1")), (Unlisten, Listening("1", "x"))])
async def test_the_answer_to_another_question_is_a_broken_rule(asked: type[Message], answer: Message) -> None:
    async with proxy_bench() as bench, owner_of(bench) as owner, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(DialError, match="answers no such question"):
                await owner.reverse.listen("tcp", "127.0.0.1:0")

        async def close(listener: Listener) -> None:
            with pytest.raises(DialError, match="answers no such question"):
                await listener.aclose()

        if asked is Listen:
            nursery.start_soon(ask)
        else:
            nursery.start_soon(close, (await owner.listen())[0])
        await owner.agent.hear(asked)
        await owner.agent.say(answer)


async def flood(owner: Owner, *, at_once: int, pause: float) -> None:
    """Announce for ever, and read no refusals."""
    while True:
        await owner.agent.say(*[announce(fresh()) for _ in range(at_once)])
        await trio.sleep(pause)


@pytest.mark.parametrize(("at_once", "pause"), [(100, 0), (500, 1)], ids=["at once", "at a pace that is allowed"])
async def test_a_flood_of_announcements_is_bounded_and_ends_the_stream(
    at_once: int, pause: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with proxy_bench() as bench, owner_of(bench, max_connections=3) as owner:
        with pytest.raises(StreamBroken, match=r"messages a second|does not read what it is sent"):
            await flood(owner, at_once=at_once, pause=pause)
        failure = await owner.reverse.wait_ended()
        assert failure.text.startswith("the agent breaks the control protocol: ")
        assert len(bench.dialer.dialled) <= 1 + 3
        assert owner.reverse.connections <= 3
