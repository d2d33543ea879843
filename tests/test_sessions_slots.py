"""A session with several tunnels at one server: those of one agent stand side by side, those of two do not."""

from __future__ import annotations

import trio
import trio.testing

from connect_trio.mux.codes import GoawayCode
from connect_trio.routing.registry import MAX_SLOTS, Route
from tests.support.tables import ADDRESS, CONNECTOR, SESSION, open_table

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


def route(*, epoch: int, slot: int = 0) -> Route:
    return Route(session=SESSION, slot=slot, address=ADDRESS, connector=CONNECTOR, epoch=epoch, since=1_800_000_000.0)


async def test_an_agent_keeps_a_tunnel_in_each_slot(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        first = bench.tunnel(slot=0, generation=5)
        second = bench.tunnel(slot=1, generation=4)
        await settled()
        assert await bench.routes() == [route(epoch=5), route(slot=1, epoch=4)]
        link = bench.link()
        await bench.open(link).wait_accepted()
        first.session.close("lost")
        await first.ended.wait()
        await settled()
        assert await bench.routes() == [route(slot=1, epoch=4)]
        await bench.open(link).wait_accepted()
        assert (len(first.accepted), len(second.accepted)) == (1, 1)
        bench.tunnel(slot=0, generation=6)
        await settled()
        assert second.wire.closing is None
        assert await bench.routes() == [route(epoch=6), route(slot=1, epoch=4)]


async def test_a_newer_agent_displaces_the_older_one_in_every_slot(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        old = [bench.tunnel(slot=slot, generation=5 + slot) for slot in (0, 1, 2)]
        link = bench.link()
        await settled()
        await bench.open(link).wait_accepted()
        new = bench.tunnel(slot=1, generation=100, instance=b"B" * 16)
        for agent in old:
            await agent.ended.wait()
            assert agent.wire.closing is not None
            assert agent.wire.closing.code == GoawayCode.DISPLACED
        await settled()
        assert await bench.routes() == [route(slot=1, epoch=100)]
        await bench.open(link).wait_accepted()
        assert [len(agent.accepted) for agent in (*old, new)] == [1, 0, 0, 1]


async def test_an_older_agent_that_comes_back_gets_no_slot(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        new = bench.tunnel(slot=0, generation=100, instance=b"B" * 16)
        await settled()
        for slot in range(MAX_SLOTS):
            late = bench.tunnel(slot=slot, generation=50 + slot)
            await late.ended.wait()
            assert late.wire.closing is not None
            assert late.wire.closing.code == GoawayCode.DISPLACED
        await settled()
        assert await bench.routes() == [route(epoch=100)]
        assert new.wire.closing is None
        assert len(bench.table) == 1


async def test_a_route_of_an_older_agent_is_withdrawn_also_if_it_is_being_published(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.registry.delay = 0.5
        bench.tunnel(slot=1, generation=5)
        await trio.sleep(0.1)
        assert bench.registry.count("publish") == 1
        bench.tunnel(slot=0, generation=100, instance=b"B" * 16)
        await trio.sleep(5)
        assert await bench.routes() == [route(epoch=100)]


async def test_a_server_that_stops_takes_no_more_tunnels(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.table.close_all("the server stops")
        agent = bench.tunnel()
        await agent.ended.wait()
        assert agent.wire.closing is not None
        assert agent.wire.closing.code == GoawayCode.SHUTDOWN
        assert await bench.routes() == []
