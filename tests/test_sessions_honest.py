"""A route is there only while data is known to pass: proven when it begins, and given up soon after an agent's end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from connect_trio.mux.codes import GoawayCode
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.registry import Route
from connect_trio.sessions import LEASE, PROOF, RENEW, RETRY
from tests.support.tables import ADDRESS, CONNECTOR, SESSION, Bench, open_table

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked

BUSY_AT_MOST, IDLE_AT_MOST = 10.0, 90.0


def route(*, epoch: int = 1, slot: int = 0) -> Route:
    return Route(session=SESSION, slot=slot, address=ADDRESS, connector=CONNECTOR, epoch=epoch, since=1_800_000_000.0)


async def until_gone(bench: Bench) -> float:
    """Seconds until no route is left."""
    begin = trio.current_time()
    with trio.fail_after(200):
        while await bench.routes():
            await trio.sleep(0.1)
    return trio.current_time() - begin


# proof


async def test_a_tunnel_is_used_and_published_when_a_ping_was_answered(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        proof = await agent.asked()
        await trio.sleep(1)
        assert (len(bench.table), await bench.routes()) == (0, [])
        await agent.answer(proof)
        await settled()
        assert (len(bench.table), await bench.routes()) == (1, [route()])


async def test_another_answer_is_no_proof(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        proof = await agent.asked()
        await agent.answer(bytes(8))
        await agent.answer(proof[::-1])
        await settled()
        assert await bench.routes() == []
        await agent.answer(proof)
        await agent.answer(proof)
        await settled()
        assert await bench.routes() == [route()]
        assert bench.registry.count("publish") == 1


async def test_each_tunnel_is_asked_something_else(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        asked = set()
        for _ in range(10):
            agent = bench.raw_tunnel()
            await agent.say_hello()
            asked.add(await agent.asked())
        assert len(asked) == 10


async def test_an_agent_that_answers_nothing_is_left_in_time(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.asked()
        with trio.fail_after(PROOF + RENEW):
            await agent.serve_nothing()
        assert bench.registry.calls == []


async def test_a_tunnel_without_proof_takes_nobodys_place(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        old = bench.tunnel(generation=5)
        await settled()
        new = bench.raw_tunnel(instance="41" * 16)
        await new.say_hello(instance="41" * 16, epoch=6)
        proof = await new.asked()
        await settled()
        stream = bench.open(bench.link())
        await stream.wait_accepted()
        assert await bench.routes() == [route(epoch=5)]
        await new.answer(proof)
        await old.ended.wait()
        assert old.wire.closing is not None
        assert old.wire.closing.code == GoawayCode.DISPLACED
        await settled()
        assert await bench.routes() == [route(epoch=6)]


async def test_of_two_that_prove_themselves_late_the_newer_one_stays(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agents = [bench.raw_tunnel() for _ in range(2)]
        proofs = []
        for epoch, agent in enumerate(agents, 5):
            await agent.say_hello(epoch=epoch)
            proofs.append(await agent.asked())
        await agents[1].answer(proofs[1])
        await settled()
        await agents[0].answer(proofs[0])
        assert b"a newer tunnel" in await agents[0].serve()
        assert await bench.routes() == [route(epoch=6)]


# the death of agents


async def test_the_route_of_a_dead_agent_with_streams_is_gone_soon(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await trio.sleep(17)
        bench.open(bench.link())
        await settled()
        assert await until_gone(bench) <= BUSY_AT_MOST


async def test_the_route_of_a_dead_agent_that_is_idle_is_gone_in_time(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await settled()
        assert LEASE < await until_gone(bench) <= IDLE_AT_MOST


async def test_who_opens_a_stream_to_an_idle_dead_agent_finds_out_soon(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await trio.sleep(50)
        assert await bench.routes() == [route()]
        bench.open(bench.link())
        assert await until_gone(bench) <= BUSY_AT_MOST


async def test_a_registry_that_is_away_meanwhile_hears_it_when_it_is_back(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await settled()
        bench.open(bench.link())
        bench.registry.away = True
        await trio.sleep(20)
        assert await bench.routes() == [route()]
        bench.registry.away = False
        assert await until_gone(bench) <= 2 * RETRY


@pytest.mark.parametrize("proven", [True, False])
async def test_no_route_is_left_of_a_tunnel_whose_successor_died_before_it_was_published(
    autojump_clock: Clock, proven: bool
) -> None:
    async with open_table() as bench:
        bench.tunnel(generation=5, instance=b"\xab" * 16)
        await settled()
        assert await bench.routes() == [route(epoch=5)]
        bench.registry.away = True
        new = bench.raw_tunnel()
        await new.say_hello(epoch=6)
        if proven:
            await new.prove()
            await settled()
        await new.stream.aclose()
        await settled()
        bench.registry.away = False
        await trio.sleep(2 * RETRY)
        assert await bench.routes() == ([] if proven else [route(epoch=5)])


async def test_a_route_is_replaced_and_not_withdrawn_in_between(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        told: list[tuple[str | None, list[int]]] = []
        for epoch in (5, 6, 7):
            bench.tunnel(generation=epoch)
            await settled()
            told.append((SESSION, [found.epoch for found in await bench.routes()]))
        assert [epochs for _, epochs in told] == [[5], [6], [7]]
        assert bench.registry.count("withdraw") == 0


async def test_no_route_is_left_of_a_tunnel_that_ended_while_its_publication_took_longer_than_a_lease(
    autojump_clock: Clock,
) -> None:
    async with open_table() as bench:
        bench.registry.delay = LEASE + 5
        agent = bench.tunnel()
        await settled()
        agent.session.close("gone again")
        await agent.ended.wait()
        await trio.sleep(LEASE + 5)
        bench.registry.delay = 0.0
        await settled()
        await trio.sleep(RENEW)
        assert await bench.routes() == []


# a process that was paused


async def test_after_a_pause_the_registry_hears_of_no_tunnel_that_is_dead_by_now(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await trio.sleep(RENEW + 1)
        renewed = bench.registry.count("renew")
        autojump_clock.jump(61)
        await settled()
        await trio.sleep(1)
        assert bench.registry.count("renew") == renewed
        assert await MemoryRegistry.find(bench.registry, SESSION) == []


async def test_after_a_pause_the_registry_does_not_hear_of_a_tunnel_that_was_closed_meanwhile(
    autojump_clock: Clock,
) -> None:
    async with open_table() as bench:
        agent = bench.raw_tunnel()
        await agent.say_hello()
        await agent.prove()
        await trio.sleep(RENEW + 1)
        renewed = bench.registry.count("renew")
        autojump_clock.jump(40)
        agent.stream.socket.close()
        await trio.sleep(1)
        assert bench.registry.count("renew") == renewed
        assert await bench.routes() == []


async def test_after_a_short_pause_a_tunnel_goes_on(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        agent = bench.tunnel()
        await trio.sleep(RENEW + 1)
        autojump_clock.jump(40)
        await trio.sleep(1)
        assert await bench.routes() == [route()]
        assert not agent.ended.is_set()
