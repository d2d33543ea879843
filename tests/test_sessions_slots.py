"""A session with several tunnels at one server: those of one agent stand side by side, those of two do not."""

from __future__ import annotations

import trio
import trio.testing

from connect_trio.mux.codes import DetachCode, GoawayCode
from connect_trio.mux.stream import MuxStream
from connect_trio.routing.registry import MAX_SLOTS, Route, epoch_of
from connect_trio.sessions import LEASE, RETRY
from tests.support.tables import ADDRESS, CONNECTOR, SESSION, open_table

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


async def no_route(stream: MuxStream) -> None:
    with trio.fail_after(5):
        while stream.core.home is not None:
            await stream.wait_change()
    assert stream.core.lost == DetachCode.NO_ROUTE


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


async def test_visitors_whom_a_newer_tunnels_lease_leads_here_do_not_get_an_older_one(autojump_clock: Clock) -> None:
    """The registry cannot be told that the newer one has ended, and somebody else may have one that is newer, too."""
    async with open_table() as bench:
        newer = bench.tunnel(generation=5, issued=2)
        await settled()
        bench.registry.away = True
        newer.session.close("lost")
        await newer.ended.wait()
        bench.tunnel(generation=9, issued=1, instance=b"B" * 16)
        link = bench.link()
        await settled()
        assert [route.epoch for route in await bench.routes()] == [epoch_of(2, 5)]
        await no_route(bench.open(link))
        bench.registry.away = False
        await trio.sleep(2 * RETRY)
        assert [route.epoch for route in await bench.routes()] == [epoch_of(1, 9)]
        await bench.open(link).wait_accepted()


async def test_that_lasts_no_longer_than_the_lease(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        newer = bench.tunnel(generation=5)
        await settled()
        bench.registry.away = True
        newer.session.close("lost")
        await newer.ended.wait()
        bench.tunnel(generation=4)
        link = bench.link()
        await trio.sleep(LEASE)
        await bench.open(link).wait_accepted()


async def test_a_newer_tunnel_is_used_before_the_registry_knows_it(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        older = bench.tunnel(generation=5)
        await settled()
        bench.registry.away = True
        older.session.close("lost")
        await older.ended.wait()
        bench.tunnel(generation=6)
        link = bench.link()
        await settled()
        await bench.open(link).wait_accepted()
