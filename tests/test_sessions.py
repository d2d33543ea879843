"""The server's tunnels: who is let in, who displaces whom, and what the registry is told."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from connect_trio.mux.codes import DetachCode, GoawayCode, Peer
from connect_trio.mux.stream import MuxStream
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.registry import MAX_SLOTS, RegistryUnavailable, Route
from connect_trio.sessions import LEASE, RENEW, RETRY
from tests.support.tables import ADDRESS, CONNECTOR, OTHER, SESSION, open_table

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked


def route(*, connector: str = CONNECTOR, epoch: int = 1, slot: int = 0, session: str = SESSION) -> Route:
    return Route(session=session, slot=slot, address=ADDRESS, connector=connector, epoch=epoch, since=1_800_000_000.0)


async def lost(stream: MuxStream, code: DetachCode) -> None:
    """The stream was told that its way is gone, and why."""
    with trio.fail_after(5):
        while stream.core.home is not None:
            await stream.wait_change()
    assert stream.core.lost == code
    assert stream.detached


# who is let in


async def test_a_tunnel_is_used_and_published_after_its_hello(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.tunnel(slot=2, generation=7)
        assert len(bench.table) == 0
        await settled()
        assert len(bench.table) == 1
        assert await bench.routes() == [route(slot=2, epoch=7)]
        stream = bench.open(bench.link())
        await stream.wait_accepted()
        assert len(agent.accepted) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"authorised": b"B" * 16},
        {"peer": Peer.OPENER},
        {"peer": Peer.SWITCH},
        {"slot": MAX_SLOTS},
        {"slot": 255},
    ],
)
async def test_a_hello_that_does_not_fit_the_authorisation_is_refused(
    autojump_clock: Clock, wrong: dict[str, object]
) -> None:
    async with open_table() as bench:
        agent = bench.tunnel(**wrong)  # type: ignore[arg-type]
        await agent.ended.wait()
        assert agent.wire.closing is not None
        assert agent.wire.closing.code == GoawayCode.PROTOCOL
        await settled()
        assert len(bench.table) == 0
        assert await bench.routes() == []
        assert bench.registry.calls == []


async def test_a_tunnel_that_ends_before_its_hello_is_forgotten(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.tunnel()
        agent.session.close("changed its mind")
        await agent.ended.wait()
        await settled()
        assert_nothing_is_remembered(bench.table)


async def test_an_agent_cannot_open_streams(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        victim, agent = bench.tunnel(OTHER, instance=b"V" * 16), bench.tunnel()
        await settled()
        stolen = bench.open(agent.wire, OTHER)
        await agent.ended.wait()
        assert stolen.core.home is None
        assert victim.accepted == []


# which one is found


async def test_a_stream_takes_the_lowest_slot_that_is_not_closing(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agents = [bench.tunnel(slot=slot) for slot in (1, 0, 2)]
        link = bench.link()
        await settled()
        for closing, expected in ((None, 1), (agents[1], 0), (agents[0], 2)):
            if closing is not None:
                closing.wire.goaway(GoawayCode.DRAIN)
                await settled()
            stream = bench.open(link)
            await stream.wait_accepted()
            assert [len(agent.accepted) for agent in agents][expected] == 1
        agents[2].wire.goaway(GoawayCode.DRAIN)
        await settled()
        await lost(bench.open(link), DetachCode.NO_ROUTE)


async def test_a_stream_avoids_a_tunnel_whose_agent_does_not_answer(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        silent, other = bench.tunnel(slot=0), bench.tunnel(slot=1)
        link = bench.link()
        await settled()
        await bench.open(link).wait_accepted()
        silent.server_wire.ping(b"\0" * 8)
        await bench.open(link).wait_accepted()
        assert [len(agent.accepted) for agent in (silent, other)] == [1, 1]


async def test_a_session_without_a_tunnel_has_no_route(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.tunnel()
        link = bench.link()
        await settled()
        await lost(bench.open(link, OTHER), DetachCode.NO_ROUTE)


# displacing


async def test_a_newer_tunnel_displaces_the_older_one_of_its_slot(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        old = bench.tunnel(generation=5)
        link = bench.link()
        await settled()
        stream = bench.open(link)
        await stream.wait_accepted()
        new = bench.tunnel(generation=6)
        await old.ended.wait()
        assert old.wire.closing is not None
        assert old.wire.closing.code == GoawayCode.DISPLACED
        await lost(stream, DetachCode.LOST)
        await settled()
        assert await bench.routes() == [route(epoch=6)]
        again = bench.open(link)
        await again.wait_accepted()
        assert len(new.accepted) == 1
        assert len(bench.table) == 1


async def test_an_older_tunnel_does_not_displace_a_newer_one(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        new = bench.tunnel(generation=6)
        await settled()
        late = bench.tunnel(generation=5)
        await late.ended.wait()
        assert late.wire.closing is not None
        assert late.wire.closing.code == GoawayCode.DISPLACED
        await settled()
        assert await bench.routes() == [route(epoch=6)]
        assert new.wire.closing is None


async def test_other_slots_and_other_sessions_are_left_alone(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        first = bench.tunnel(generation=5)
        bench.tunnel(generation=6, slot=1)
        bench.tunnel(OTHER, generation=7, instance=b"B" * 16)
        await settled()
        assert first.wire.closing is None
        assert len(bench.table) == 3


# routes


async def test_a_tunnel_that_ends_is_withdrawn(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.tunnel()
        await settled()
        agent.session.close("the agent ends")
        await agent.ended.wait()
        await settled()
        assert await bench.routes() == []
        assert_nothing_is_remembered(bench.table)


async def test_tunnels_that_end_while_another_is_withdrawn_are_withdrawn_too(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agents = [bench.tunnel(slot=slot) for slot in range(3)]
        await settled()
        bench.registry.delay = 0.5
        for agent in agents:
            agent.session.close("the agent ends")
            await trio.sleep(0.2)
        await trio.sleep(3)
        assert await bench.routes() == []
        assert bench.registry.count("withdraw") == 3
        assert_nothing_is_remembered(bench.table)


async def test_a_tunnel_that_ends_while_it_is_published_leaves_no_route(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.registry.delay = 0.5
        agent = bench.tunnel()
        await trio.sleep(0.1)
        assert bench.registry.count("publish") == 1
        agent.session.close("the agent ends")
        await trio.sleep(5)
        assert await bench.routes() == []


async def test_routes_outlive_their_leases_by_renewal(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.tunnel()
        await trio.sleep(10 * LEASE)
        assert await bench.routes() == [route()]
        assert bench.registry.count("publish") == 1
        assert 10 * LEASE / RENEW - 2 <= bench.registry.count("renew") <= 10 * LEASE / RENEW + 1


async def test_a_change_renews_nobody_else(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        for number in range(20):
            bench.tunnel(f"{number:08x}")
            await trio.sleep(0.01)
        assert bench.registry.count("publish") == 20
        assert bench.registry.count("renew") == 0


async def test_a_lease_that_the_registry_lost_is_set_again(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.tunnel()
        await settled()
        await MemoryRegistry.withdraw(bench.registry, route())
        await trio.sleep(RENEW + 1)
        assert await bench.routes() == [route()]


async def test_a_newer_epoch_elsewhere_closes_ours_when_it_is_renewed(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.tunnel(generation=5)
        await settled()
        elsewhere = route(connector="e1" * 16, epoch=6)
        assert await MemoryRegistry.publish(bench.registry, elsewhere, ttl=3600)
        await agent.ended.wait()
        assert trio.current_time() <= RENEW + 1
        assert agent.wire.closing is not None
        assert agent.wire.closing.code == GoawayCode.DISPLACED
        await settled()
        assert await bench.routes() == [elsewhere]
        assert_nothing_is_remembered(bench.table)


async def test_a_newer_epoch_elsewhere_closes_ours_when_it_is_published(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        elsewhere = route(connector="e1" * 16, epoch=6)
        assert await MemoryRegistry.publish(bench.registry, elsewhere, ttl=3600)
        agent = bench.tunnel(generation=5)
        await agent.ended.wait()
        assert agent.wire.closing is not None
        assert agent.wire.closing.code == GoawayCode.DISPLACED
        assert await bench.routes() == [elsewhere]


# a registry that is away


async def test_a_registry_that_is_away_is_tried_again_and_no_more_often(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_table() as bench:
        bench.registry.away = True
        bench.tunnel()
        await trio.sleep(100 * RETRY)
        assert 95 <= len(bench.registry.calls) <= 101
        bench.registry.away = False
        await trio.sleep(2 * RETRY)
        assert await bench.routes() == [route()]
    assert [record.message for record in caplog.records].count("routes cannot be kept in the registry") == 1


async def test_agents_that_come_and_go_do_not_make_it_ask_more_often(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.registry.away = True
        for number in range(200):
            agent = bench.tunnel(f"{number:08x}")
            await trio.sleep(0.05)
            agent.session.close("on and off")
        assert len(bench.registry.calls) <= 10 / RETRY + 2


async def test_published_routes_are_renewed_as_soon_as_the_registry_is_back(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.tunnel()
        await trio.sleep(RENEW - 1)
        bench.registry.away = True
        await trio.sleep(2 * LEASE)
        assert await bench.routes() == []
        bench.registry.away = False
        await trio.sleep(2 * RETRY)
        assert await bench.routes() == [route()]


async def test_what_ended_while_the_registry_was_away_is_not_remembered_for_ever(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.registry.away = True
        for number in range(50):
            agent = bench.tunnel(f"{number:08x}")
            await settled()
            agent.session.close("gone again")
            await agent.ended.wait()
        await trio.sleep(2 * LEASE)
        assert_nothing_is_remembered(bench.table)


# the end


async def test_a_stopping_server_withdraws_all_and_says_so(autojump_clock: Clock) -> None:
    async with open_table(keep_routes=False) as bench:
        keeper = trio.CancelScope()

        async def keep() -> None:
            with keeper:
                await bench.table.keep_routes()

        bench.hub.nursery.start_soon(keep)
        agents = [bench.tunnel(), bench.tunnel(OTHER, instance=b"B" * 16)]
        await settled()
        keeper.cancel()
        bench.table.close_all("the server stops")
        await bench.table.withdraw_all()
        for agent in agents:
            await agent.ended.wait()
            assert agent.wire.closing is not None
            assert (agent.wire.closing.code, agent.wire.closing.text) == (GoawayCode.SHUTDOWN, "the server stops")
        assert await bench.routes() == await bench.routes(OTHER) == []


async def test_a_stopping_server_says_when_the_registry_does_not_hear_it(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        bench.tunnel()
        await settled()
        bench.registry.away = True
        with pytest.raises(RegistryUnavailable):
            await bench.table.withdraw_all()


async def test_nothing_is_remembered_when_everything_has_ended(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        link = bench.link()
        agents = [bench.tunnel(slot=slot, generation=g) for g in (1, 2) for slot in range(MAX_SLOTS)]
        await settled()
        streams = [bench.open(link) for _ in range(10)]
        for stream in streams:
            await stream.wait_accepted()
        for agent in agents:
            agent.session.close("the agent ends")
        for stream in streams:
            await lost(stream, DetachCode.LOST)
        await trio.sleep(1)
        assert not link.ports
        assert_nothing_is_remembered(bench.table)


def assert_nothing_is_remembered(table: object) -> None:
    kept = {name: value for name, value in vars(table).items() if isinstance(value, (dict, list, set)) and value}
    assert kept == {}
