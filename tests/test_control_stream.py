"""A control stream between two ends: in order, in bounds, and with one reason for its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from connect_trio import control, control_stream
from connect_trio.control import (
    FROM_AGENT,
    FROM_PROXY,
    MAX_MESSAGE,
    ControlError,
    Failed,
    Listen,
    Listening,
    Message,
    Unlisten,
    Withdraw,
)
from connect_trio.control_stream import BURST, MAX_UNSENT, RATE, ROOM, ControlStream

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked
SHORT = control.encode(Unlisten("1"))


Far = trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]


@attrs.define
class End:
    """A running control stream, what it heard, how it reset its stream, and why it ended ("": in order)."""

    stream: ControlStream
    heard: list[Message] = attrs.field(factory=list)
    resets: list[str] = attrs.field(factory=list)
    over: trio.Event = attrs.field(factory=trio.Event)
    cause: Exception | None = None

    async def run(self, handle: Callable[[Message], None] | None = None) -> None:
        self.cause = await self.stream.run(handle or self.heard.append)
        self.over.set()


@asynccontextmanager
async def one_end(handle: Callable[[Message], None] | None = None) -> AsyncIterator[tuple[End, Far]]:
    """An agent's end, and the bytes of the other one, which nothing buffers."""
    near, far = trio.testing.lockstep_stream_pair()
    resets: list[str] = []
    end = End(ControlStream(near, FROM_PROXY, reset=resets.append), resets=resets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.run, handle)
        with trio.fail_after(600):
            yield end, far
        nursery.cancel_scope.cancel()


async def test_messages_go_both_ways_in_their_order() -> None:
    async with one_end() as (end, far):
        messages: list[Message] = [Listen(str(i), "tcp", "127.0.0.1:0") for i in range(50)]
        await far.send_all(b"".join(map(control.encode, messages)))
        await settled()
        assert end.heard == messages
        answers: list[Message] = [Listening(str(i), "127.0.0.1:1") for i in range(50)]
        for answer in answers:
            end.stream.post(answer)
        wanted = b"".join(map(control.encode, answers))
        got = bytearray()
        while len(got) < len(wanted):
            got += await far.receive_some(100)
        assert got == wanted


async def test_an_orderly_end_has_no_cause() -> None:
    async with one_end() as (end, far):
        await far.send_all(SHORT)
        await far.aclose()
        await end.over.wait()
        assert (end.cause, end.resets, len(end.heard)) == (None, [], 1)
        end.stream.post(Withdraw("0" * 32))  # nothing happens any more


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x00\xff junk\n", "a message that is not JSON"),
        (b"x" * (MAX_MESSAGE + 1), "a message of more than 8192 bytes"),
        (control.encode(Withdraw("0" * 32)), "withdraw is not for this end to say"),
    ],
)
async def test_a_broken_rule_ends_the_stream_and_is_told(data: bytes, why: str) -> None:
    async with one_end() as (end, far):
        await far.send_all(SHORT + data)
        await end.over.wait()
        assert isinstance(end.cause, ControlError)
        assert (str(end.cause), end.resets, len(end.heard)) == (why, [why], 1)


async def test_an_end_in_the_middle_of_a_message_is_one() -> None:
    async with one_end() as (end, far):
        await far.send_all(SHORT[:-1])
        await far.aclose()
        await end.over.wait()
        assert end.resets == ["the end in the middle of a message"]


async def test_a_rule_that_the_handler_knows_counts_too() -> None:
    def handle(message: Message) -> None:
        raise ControlError("I never asked")

    async with one_end(handle) as (end, far):
        await far.send_all(SHORT * 2)
        await end.over.wait()
        assert end.resets == ["I never asked"]


async def test_a_stream_that_breaks_is_a_cause_and_no_reset() -> None:
    async with one_end() as (end, far):
        await trio.aclose_forcefully(far.receive_stream)
        end.stream.post(Listening("1", "x"))
        await end.over.wait()
        assert isinstance(end.cause, trio.BrokenResourceError)
        assert end.resets == []


async def test_who_does_not_read_is_cut_off_at_the_bound() -> None:
    async with one_end() as (end, _):
        failed = Failed("1", "x" * control.MAX_TEXT)
        size = len(control.encode(failed))
        end.stream.post(failed)
        await settled()  # it is on its way, and not in the queue any more
        for _ in range(MAX_UNSENT // size):
            end.stream.post(failed)
        await settled()
        assert not end.over.is_set()
        end.stream.post(failed)
        await end.over.wait()
        assert end.resets == ["the other end does not read what it is sent"]


async def test_who_can_wait_for_room_does() -> None:
    async with one_end() as (end, far):
        with trio.fail_after(1):
            await end.stream.wait_room()
        failed = Failed("1", "x" * control.MAX_TEXT)
        end.stream.post(failed)
        await settled()
        for _ in range(ROOM // len(control.encode(failed)) + 1):
            end.stream.post(failed)
        waited = trio.Event()

        async def wait() -> None:
            await end.stream.wait_room()
            waited.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settled()
            assert not waited.is_set()
            await far.receive_some(ROOM)
            await waited.wait()


async def test_the_end_wakes_who_waits_for_room() -> None:
    async with one_end() as (end, far), trio.open_nursery() as nursery:
        for _ in range(ROOM // len(control.encode(Failed("1", "x" * 500))) + 1):
            end.stream.post(Failed("1", "x" * 500))
        nursery.start_soon(end.stream.wait_room)
        await far.send_all(b"junk\n")


async def test_a_flood_of_messages_ends_the_stream(autojump_clock: Clock) -> None:
    async with one_end() as (end, far):
        await far.send_all(SHORT * BURST)
        await settled()
        assert len(end.heard) == BURST
        await trio.sleep(1)
        await far.send_all(SHORT * int(RATE))
        await settled()
        assert not end.over.is_set()
        await far.send_all(SHORT * 100)
        await end.over.wait()
        assert end.resets == [f"more than {RATE:g} messages a second"]
        assert len(end.heard) <= BURST + RATE + 1


async def test_cancelling_closes_the_stream() -> None:
    near, far = trio.testing.memory_stream_pair()
    stream = ControlStream(near, FROM_AGENT, reset=lambda text: None)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(stream.run, lambda message: None))
            await settled()
            scope.cancel()
    assert await far.receive_some() == b""


def test_what_fits_into_a_message_fits_into_the_queue() -> None:
    assert MAX_MESSAGE < ROOM < MAX_UNSENT
    assert control_stream.RATE > 2 * 256, "an agent may announce and withdraw 256 connections a second"
