"""What is remembered of ended streams, for how long, and of how many."""

from __future__ import annotations

import pytest

from connect_trio.mux.frames import FrameType
from connect_trio.mux.streams import StreamEnd
from connect_trio.mux.timers import Timers
from connect_trio.mux.tombstones import MAX_TOMBSTONES, SHORT_LINGER, Tombstones

LINGER = 1000.0
DONE = StreamEnd(FrameType.DONE, by_peer=False)
RESET = StreamEnd(FrameType.RESET, 1, "enough", by_peer=False)


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def stones(timers: Timers) -> Tombstones:
    return Tombstones(timers, linger=LINGER, limit=3)


def token(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_an_ended_stream_is_remembered_for_a_while(timers: Timers, stones: Tombstones) -> None:
    stones.bury(token(1), 4, RESET)
    timers.run(0.0)
    stone = stones.get(token(1))
    assert stone is not None
    assert (stone.attempt, stone.end) == (4, RESET)
    assert stones.get(token(2)) is None
    timers.run(LINGER - 1)
    assert len(stones) == 1
    timers.run(LINGER)
    assert not stones
    assert not timers


def test_one_that_was_asked_for_once_is_forgotten_as_soon_as_the_opener_knows(
    timers: Timers, stones: Tombstones
) -> None:
    stones.bury(token(1), 1, DONE)
    stones.confirmed(token(1))
    assert not stones
    assert not timers


def test_one_that_was_asked_for_again_is_kept_until_no_earlier_question_can_come(
    timers: Timers, stones: Tombstones
) -> None:
    stones.bury(token(1), 2, DONE)
    timers.run(0.0)
    stones.confirmed(token(1))
    timers.run(10.0)
    timers.run(10.0 + SHORT_LINGER - 1)
    assert len(stones) == 1
    timers.run(10.0 + SHORT_LINGER)
    assert not stones


def test_a_confirmation_never_makes_it_live_longer() -> None:
    timers = Timers()
    stones = Tombstones(timers, linger=5.0)
    stones.bury(token(1), 2, DONE)
    stones.confirmed(token(1))
    timers.run(0.0)
    timers.run(5.0)
    assert not stones


def test_a_later_question_renews_it(timers: Timers, stones: Tombstones) -> None:
    stones.bury(token(1), 2, RESET)
    timers.run(0.0)
    timers.run(LINGER - 1)
    stones.bury(token(1), 3, RESET)
    timers.run(LINGER - 1)
    timers.run(LINGER + 1)
    stone = stones.get(token(1))
    assert stone is not None
    assert stone.attempt == 3


def test_there_are_never_more_than_the_limit_and_the_oldest_go_first(timers: Timers, stones: Tombstones) -> None:
    for number in (1, 2, 3, 1, 4):
        stones.bury(token(number), 2, DONE)
    assert [number for number in range(6) if stones.get(token(number)) is not None] == [1, 3, 4]
    assert len(timers) == len(stones) == 3


def test_a_confirmation_of_what_is_not_remembered_is_nothing(timers: Timers, stones: Tombstones) -> None:
    stones.confirmed(token(9))
    assert not stones
    assert not timers


def test_an_agent_remembers_no_more_than_it_can_afford() -> None:
    stones = Tombstones(Timers(), linger=LINGER)
    for number in range(MAX_TOMBSTONES + 10):
        stones.bury(token(number), 1, DONE)
    assert len(stones) == MAX_TOMBSTONES
    assert stones.get(token(9)) is None
