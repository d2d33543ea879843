"""Two agents of one session: the one with the newer token stays, with the same token the one that started later."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux.codes import GoawayCode
from connect_trio.routing.registry import MAX_ISSUED, epoch_of
from connect_trio.sessions import RENEW
from tests.support.tables import OTHER, AgentSide, Bench, FlakyRegistry, open_table

Clock = trio.testing.MockClock
settled = trio.testing.wait_all_tasks_blocked
A, B = b"A" * 16, b"B" * 16
ISSUED, STARTED = 1_800_000_000, 100

PLACES = pytest.mark.parametrize("apart", [False, True], ids=["one server", "two servers"])
RANKS = st.tuples(st.integers(0, MAX_ISSUED), st.integers(0, 2**64 - 1))


@asynccontextmanager
async def benches(apart: bool) -> AsyncIterator[tuple[Bench, Bench]]:
    """Where each of two agents dials in: at one server, or at two that share a registry."""
    registry = FlakyRegistry()
    async with open_table(registry=registry) as first:
        if not apart:
            yield first, first
            return
        async with open_table(registry=registry, connector="e1" * 16) as second:
            yield first, second


def refusal(agent: AgentSide) -> str:
    """What it was told at its end."""
    closing = agent.wire.closing
    assert closing is not None
    assert closing.code == GoawayCode.DISPLACED
    return closing.text


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, str]]]:
    """Which agent made way for which, as the log tells."""
    names = ("session", "instance", "replaced", "newer")
    return [
        (record.message, {name: vars(record)[name] for name in names if name in vars(record)})
        for record in caplog.records
        if "replaced" in vars(record) or "newer" in vars(record)
    ]


@given(RANKS, RANKS)
def test_an_epoch_orders_by_the_token_and_then_by_the_start(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (epoch_of(*one) < epoch_of(*other)) == (one < other)


@PLACES
@pytest.mark.parametrize("start", [-1, 1], ids=["started earlier", "started later"])
@pytest.mark.parametrize("token", [-1, 0, 1], ids=["older token", "same token", "newer token"])
async def test_the_newer_token_stays_and_of_one_token_the_later_start(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, token: int, start: int, apart: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with benches(apart) as (here, there):
        first = here.tunnel(issued=ISSUED, generation=STARTED, instance=A)
        await settled()
        second = there.tunnel(issued=ISSUED + token, generation=STARTED + start, instance=B)
        loser, winner = (first, B) if (token, start) > (0, 0) else (second, A)
        with trio.fail_after(2 * RENEW):
            await loser.ended.wait()
        await settled()
        assert f"(instance {winner.hex()[:8]})" in refusal(loser)
        assert await here.owners() == {0: winner.hex()}
        ((_, who),) = said(caplog)
        assert who["session"] == "23ce7967"
        assert {who["instance"], who.get("replaced", who.get("newer"))} == {A.hex(), B.hex()}
        assert (first if loser is second else second).wire.closing is None


@PLACES
async def test_a_newer_agent_is_found_out_in_whichever_order_its_tunnels_come(
    autojump_clock: Clock, apart: bool
) -> None:
    async with benches(apart) as (here, there):
        old = [here.tunnel(slot=slot, issued=ISSUED, generation=STARTED + slot, instance=A) for slot in (0, 1)]
        await settled()
        for slot in (1, 0):
            there.tunnel(slot=slot, issued=ISSUED + 1, generation=slot, instance=B)
            await settled()
        for agent in old:
            await agent.ended.wait()
        assert await here.owners() == {0: B.hex(), 1: B.hex()}


@PLACES
async def test_a_renewed_token_locks_no_tunnel_of_the_same_agent_out(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, apart: bool
) -> None:
    """Tunnels from before and after the renewal are one agent's, in whichever order they end and come again."""
    caplog.set_level(logging.INFO)
    async with benches(apart) as (here, there):
        first = here.tunnel(slot=0, issued=ISSUED, generation=STARTED, instance=A)
        second = there.tunnel(slot=1, issued=ISSUED + 9, generation=STARTED + 1, instance=A)
        third = here.tunnel(slot=2, issued=ISSUED, generation=STARTED + 2, instance=A)
        again = there.tunnel(slot=0, issued=ISSUED + 9, generation=STARTED + 3, instance=A)
        await first.ended.wait()
        await trio.sleep(2 * RENEW)
        assert [agent.wire.closing for agent in (second, third, again)] == [None] * 3
        assert await here.owners() == {slot: A.hex() for slot in (0, 1, 2)}
        assert said(caplog) == []


async def test_an_agent_whose_token_file_went_back_replaces_its_own_tunnel(autojump_clock: Clock) -> None:
    async with open_table() as bench:
        old = bench.tunnel(issued=ISSUED, generation=STARTED, instance=A)
        await settled()
        new = bench.tunnel(issued=ISSUED - 9, generation=STARTED + 1, instance=A)
        await old.ended.wait()
        await settled()
        assert new.wire.closing is None
        assert await bench.owners() == {0: A.hex()}


@PLACES
async def test_an_agent_that_yields_displaces_nobody_and_serves_where_nobody_is(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, apart: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with benches(apart) as (here, there):
        first = here.tunnel(issued=1, generation=1, instance=A)
        await settled()
        yielding = there.tunnel(issued=0, generation=2**63, instance=B)
        await yielding.ended.wait()
        assert f"(instance {A.hex()[:8]})" in refusal(yielding)
        assert said(caplog) == [], "it asks now and then, and the log need not say so each time"
        first.session.close("the container ends")
        await first.ended.wait()
        await settled()
        there.tunnel(issued=0, generation=2**63 + 1, instance=B)
        await settled()
        assert await here.owners() == {0: B.hex()}
        here.tunnel(issued=1, generation=1, instance=A)
        await trio.sleep(2 * RENEW)
        assert await here.owners() == {0: A.hex()}


@PLACES
async def test_agents_of_different_sessions_do_not_meet(autojump_clock: Clock, apart: bool) -> None:
    async with benches(apart) as (here, there):
        agents = [
            here.tunnel(issued=ISSUED, instance=A),
            there.tunnel(OTHER, issued=ISSUED + 1, instance=B),
        ]
        await trio.sleep(2 * RENEW)
        assert [agent.wire.closing for agent in agents] == [None, None]


async def test_without_the_registry_it_is_only_not_said_who_it_was(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with benches(apart=True) as (here, there):
        first = here.tunnel(issued=ISSUED, instance=A)
        await settled()
        there.tunnel(issued=ISSUED + 1, instance=B)
        await trio.sleep(RENEW / 2)
        here.registry.away_for = {"find"}
        await first.ended.wait()
        assert refusal(first) == "a newer tunnel of the same session took its place"
        assert said(caplog) == []
