"""Tunnels that are to be left: superseded elsewhere, or sent away with their proxy or with their server."""

from __future__ import annotations

import trio
import trio.testing

from connect_trio.mux.codes import DetachCode, GoawayCode
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.sessions import LINGER, RENEW
from tests.support.tables import SESSION, AgentSide, Bench, open_table
from tests.test_sessions import lost, route, settled

Clock = trio.testing.MockClock
VIA = "aa" * 16


async def superseded(bench: Bench) -> None:
    """A newer tunnel of the slot is at another server, and this one has noticed."""
    elsewhere = route(connector="e1" * 16, epoch=6)
    assert await MemoryRegistry.publish(bench.registry, elsewhere, ttl=3600)
    await trio.sleep(RENEW + 1)


def told(agent: AgentSide) -> GoawayCode | None:
    closing = agent.wire.closing
    return None if closing is None else GoawayCode(closing.code)


async def test_a_superseded_tunnel_carries_on_until_its_last_stream_is_gone(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        link, agent = bench.link(), bench.tunnel(generation=5)
        await settled()
        stream = bench.open(link)
        await stream.wait_accepted()
        await superseded(bench)
        await stream.send_all(b"as before")
        assert not agent.ended.is_set()
        late = bench.open(link)
        await lost(late, DetachCode.NO_ROUTE)
        assert len(bench.table) == 1
        stream.reset("the visitor leaves")
        with trio.fail_after(5):
            await agent.ended.wait()
        assert told(agent) is GoawayCode.DISPLACED
        assert dict(bench.table.counts.ended) == {"superseded": 1}


async def test_a_superseded_tunnel_does_not_linger_for_ever(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        link, agent = bench.link(), bench.tunnel(generation=5)
        await settled()
        stream = bench.open(link)
        await stream.wait_accepted()
        await superseded(bench)
        since = trio.current_time()
        await agent.ended.wait()
        assert trio.current_time() - since <= LINGER
        await lost(stream, DetachCode.LOST)


async def test_agents_behind_a_proxy_that_stops_are_asked_to_come_another_way(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        link, other = bench.link(), bench.tunnel(slot=1)
        agent = bench.tunnel(via=VIA)
        await settled()
        stream = bench.open(link)
        await stream.wait_accepted()
        assert bench.table.send_away(VIA, 30) == 1
        assert bench.table.send_away(VIA, 30) == 0, "once is enough"
        await settled()
        assert (told(agent), told(other)) == (GoawayCode.DRAIN, None)
        await stream.send_all(b"nothing is cut before there is another way")
        await trio.sleep(60)
        assert not agent.ended.is_set()

        agent.wire.goaway(GoawayCode.DISPLACED, "another tunnel has taken its place")
        await agent.ended.wait()
        await lost(stream, DetachCode.LOST)
        assert dict(bench.table.counts.ended) == {"proxy_drained": 1}
        again = bench.open(link)
        await again.wait_accepted()
        assert other.accepted, "by the way that is left"


async def test_a_server_that_is_drained_sends_everybody_elsewhere_and_cuts_nothing(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        link, agent = bench.link(), bench.tunnel()
        await settled()
        stream = bench.open(link)
        await stream.wait_accepted()
        assert len(await bench.routes(SESSION)) == 1
        bench.table.drain(30)
        await trio.sleep(2 * RENEW)
        assert await bench.routes(SESSION) == []
        assert told(agent) is GoawayCode.DRAIN
        assert agent.wire.closing is not None
        assert agent.wire.closing.grace == 30_000
        await stream.send_all(b"goes on")
        assert not agent.ended.is_set()
        await lost(bench.open(link), DetachCode.DRAINING)
        late = bench.tunnel(slot=1, generation=2)
        await late.ended.wait()
        assert told(late) is GoawayCode.SHUTDOWN
