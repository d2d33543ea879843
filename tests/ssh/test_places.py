"""Places for channels: fair, bounded, given back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from connect_trio.ssh.client import ChannelRefused
from connect_trio.ssh.places import WAIT, Counts, Places


async def test_one_too_many_waits_a_while_and_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    counts = Counts()
    places = Places(2, counts)
    await places.take()
    await places.take()
    began = trio.current_time()
    with pytest.raises(ChannelRefused, match=r"too many channels on this connection \(the limit is 2\)") as caught:
        await places.take()
    assert caught.value.shortage
    assert trio.current_time() - began == pytest.approx(WAIT)
    assert (counts.open, counts.channels, counts.channels_refused) == (2, 2, 1)


async def test_places_go_to_those_who_wait_in_their_order(autojump_clock: trio.testing.MockClock) -> None:
    places = Places(3, Counts())
    for _ in range(3):
        await places.take()
    order: list[int] = []

    async def take(number: int) -> None:
        await places.take()
        order.append(number)
        await trio.sleep(WAIT / 4)
        places.release()

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(take, number)
            await trio.sleep(WAIT / 100)
        await trio.sleep(WAIT / 4)
        places.release()
    assert order == [0, 1, 2]


async def test_who_wants_far_too_many_does_not_even_wait(autojump_clock: trio.testing.MockClock) -> None:
    places = Places(2, Counts())
    refused = 0

    async def take() -> None:
        nonlocal refused
        try:
            await places.take()
        except ChannelRefused:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(take)
        with trio.move_on_after(WAIT / 2):
            await trio.sleep_forever()
        assert refused == 96
    assert refused == 98


async def test_the_end_of_a_connection_gives_all_its_places_back() -> None:
    counts = Counts()
    places = Places(3, counts)
    await places.take()
    await places.take()
    places.release()
    places.abandon()
    places.release()  # a channel that ends only now
    assert counts.open == 0
