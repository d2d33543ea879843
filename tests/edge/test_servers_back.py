from __future__ import annotations

import random

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from connect_trio.edge.servers_back import ARRIVALS, FIRST, TRIES, ServersBack

MANY = 2000


async def test_one_that_waits_alone_tries_again_soon(autojump_clock: MockClock) -> None:
    await ServersBack(chance=lambda: 0.5).pause(100.0)
    assert trio.current_time() == FIRST


async def test_nobody_waits_longer_than_asked_for(autojump_clock: MockClock) -> None:
    await ServersBack(chance=lambda: 0.5).pause(0.1)
    assert trio.current_time() == 0.1


async def test_many_try_no_more_often_together_than_a_few(autojump_clock: MockClock) -> None:
    back, tries = ServersBack(chance=random.Random(1).random), 0

    async def wait() -> None:
        nonlocal tries
        while trio.current_time() < 60:
            await back.pause(1000.0)
            tries += 1

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(wait)
    assert tries / 60 < 1.5 * TRIES
    assert back.waiting == 0


async def test_those_who_are_woken_arrive_one_after_the_other(autojump_clock: MockClock) -> None:
    back, arrived = ServersBack(chance=random.Random(1).random), []

    async def wait() -> None:
        await back.pause(1000.0)
        arrived.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert back.waiting == MANY
        back.notice()
    assert max(arrived) <= MANY / ARRIVALS
    seconds = [int(each) for each in arrived]
    assert max(map(seconds.count, set(seconds))) < 3 * ARRIVALS
