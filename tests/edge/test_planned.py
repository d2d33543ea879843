"""A session that is planned to end: its visitors can know before, and it ends in time, whatever Platform does."""

from __future__ import annotations

import logging
import time
from email.utils import parsedate_to_datetime

import pytest
import trio
from trio.testing import MockClock

from connect_trio.edge.boundaries import POLICY, close_frame
from connect_trio.edge.planned import NOTICE, PlannedEnds, sunset
from connect_trio.edge.scopes import Kind, SessionScopes
from connect_trio.identity.control_plane import RUNNING, STOPPED, Decision, SessionInfo
from tests.edge.test_drain import open_websocket
from tests.support.edge import SESSION, answer, get, open_world
from tests.support.grants import granted

ALICE = granted(SESSION)


def until(ends_at: float | None, state: str = RUNNING) -> Decision:
    info = SessionInfo(id=SESSION, name="", owner="", state=RUNNING, tool="", ends_at=ends_at)
    return Decision(allowed=True, reason=None, session_state=state, session=info)


async def test_it_is_told_before_once_and_done_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    scopes = SessionScopes()
    ends = PlannedEnds(scopes, wall_clock=trio.current_time)
    nursery.start_soon(ends.run)
    scope = trio.CancelScope()
    end = trio.current_time() + NOTICE + 100
    with scope, scopes.enter(ALICE, Kind.HTTP, scope):
        scopes.judge(ALICE, until(end))
        await trio.sleep(90)
        assert (ends.soon, caplog.messages) == (0, [])
        await trio.sleep(20)
        assert (ends.soon, caplog.messages) == (1, ["a session with visitors will end soon"])
        await trio.sleep(NOTICE - 20)
        assert not scope.cancel_called
        await trio.sleep_forever()
    assert end <= trio.current_time() <= end + 1
    assert len(caplog.messages) == 1
    await trio.sleep(1)
    assert (ends.soon, scopes.planned) == (0, {})


async def test_a_life_that_is_extended_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    scopes = SessionScopes()
    nursery.start_soon(PlannedEnds(scopes, wall_clock=trio.current_time).run)
    scope, now = trio.CancelScope(), trio.current_time()
    with scope, scopes.enter(ALICE, Kind.HTTP, scope):
        scopes.judge(ALICE, until(now + 100))
        await trio.sleep(50)
        scopes.judge(ALICE, until(now + 200))
        await trio.sleep(100)
        assert len(caplog.messages) == 2, "each plan is told of"
        scopes.judge(ALICE, until(None))
        await trio.sleep(10_000)
    assert not scope.cancel_called


async def test_a_plan_is_forgotten_with_the_last_that_is_open() -> None:
    scopes = SessionScopes()
    with scopes.enter(ALICE, Kind.HTTP, trio.CancelScope()):
        scopes.judge(ALICE, until(1.0))
        assert scopes.planned == {SESSION: 1.0}
    assert scopes.planned == {}
    scopes.judge(ALICE, until(1.0))
    assert scopes.planned == {}, "the answer came too late"


async def test_a_websocket_hears_that_the_end_was_planned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_world() as world:
        client, _ = await open_websocket(world)
        world.edge.scopes.judge(ALICE, until(time.time() - 1, STOPPED))
        assert await client.rest() == close_frame(POLICY, "the session has ended as planned")


async def test_answers_say_when_the_session_ends_if_that_is_soon() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        for left, told in ((NOTICE + 60, False), (NOTICE - 60, True)):
            await tool.head()
            ends_at = round(time.time()) + left
            world.edge.scopes.judge(ALICE, until(ends_at))
            await tool.send(answer(b"x"))
            head = (await client.head()).decode()
            assert await client.exactly(1) == b"x"
            lines = [line.partition(": ")[2] for line in head.splitlines() if line.startswith("Sunset: ")]
            assert [parsedate_to_datetime(line).timestamp() for line in lines] == ([ends_at] if told else [])
            await client.send(get())


@pytest.mark.parametrize(("left", "told"), [(None, False), (NOTICE + 1, False), (NOTICE, True), (-5.0, True)])
def test_the_header_is_there_when_it_matters(left: float | None, told: bool) -> None:
    assert bool(sunset(None if left is None else 1000 + left, 1000)) == told
