"""The watcher tells that a session has ended while it is live, and only when Platform says so."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, SessionInfo
from connect_trio.identity.watcher import SessionWatcher


class States(ControlPlane):
    """Platform's answers without Platform."""

    def __init__(self) -> None:
        self.states: dict[str, str | None] = {}
        self.away = False
        self.asking = self.most = 0

    async def session(self, session: str) -> SessionInfo | None:
        self.asking += 1
        self.most = max(self.most, self.asking)
        await trio.sleep(0.01)
        self.asking -= 1
        if self.away:
            raise PlatformUnavailable("away")
        state = self.states.get(session)
        return SessionInfo(id=session, name="", owner="", state=state, tool="") if state is not None else None


class Watching:
    def __init__(self) -> None:
        self.states = States()
        self.live: list[str] = []
        self.ended: list[tuple[str, str]] = []

    async def run(self) -> None:
        await SessionWatcher(self.states).run(lambda: self.live, self._end)

    def _end(self, session: str, why: str) -> None:
        self.ended.append((session, why))
        self.live.remove(session)


@pytest.fixture
async def watching(autojump_clock: MockClock, nursery: trio.Nursery) -> Watching:
    made = Watching()
    made.live = ["a", "b"]
    made.states.states = {"a": "running", "b": "running"}
    nursery.start_soon(made.run)
    await trio.sleep(1)  # the first round is over, the second one is to come
    return made


async def test_a_stopped_session_is_told_once(autojump_clock: MockClock, watching: Watching) -> None:
    await trio.sleep(5)
    assert watching.ended == []
    watching.states.states["a"] = "stopped"
    await trio.sleep(10)
    assert watching.ended == [("a", "the session was stopped")]


async def test_a_session_that_is_gone_has_ended(autojump_clock: MockClock, watching: Watching) -> None:
    del watching.states.states["b"]
    await trio.sleep(5)
    assert watching.ended == [("b", "the session no longer exists")]


async def test_an_absent_platform_ends_nothing(autojump_clock: MockClock, watching: Watching) -> None:
    watching.states.away = True
    watching.states.states["a"] = "stopped"
    await trio.sleep(60)
    assert watching.ended == []
    watching.states.away = False
    await trio.sleep(5)
    assert len(watching.ended) == 1


async def test_whoever_comes_back_to_a_stopped_session_does_not_stay(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.states.states["a"] = "stopped"
    await trio.sleep(5)
    watching.live.append("a")
    await trio.sleep(5)
    assert [session for session, _ in watching.ended] == ["a", "a"]


async def test_a_session_that_is_starting_has_not_ended(autojump_clock: MockClock, watching: Watching) -> None:
    watching.states.states["a"] = "starting"
    await trio.sleep(5)
    assert watching.ended == []


async def test_sessions_that_are_not_live_here_are_not_asked_about(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.live = []
    watching.states.states["a"] = "stopped"
    await trio.sleep(5)
    assert watching.ended == []


async def test_few_questions_are_asked_at_once(autojump_clock: MockClock, watching: Watching) -> None:
    watching.live = [str(number) for number in range(100)]
    await trio.sleep(5)
    assert watching.states.most == 8
