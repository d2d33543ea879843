"""The watcher tells that a session has ended while it is live, and only when Platform says so."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio
from trio.testing import MockClock

from connect_trio.identity.answers import SessionState
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, NotOffered, SessionInfo
from connect_trio.identity.watcher import SessionWatcher


class States(ControlPlane):
    """Platform's answers without Platform. single: whether it cannot be asked about many at once."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.away = self.single = False
        self.asking = self.most = 0
        self.batches: list[int] = []

    async def states(self, sessions: Collection[str]) -> dict[str, SessionState]:
        await trio.sleep(0.01)
        self.batches.append(len(sessions))
        if self.single:
            raise NotOffered("unknown call")
        if self.away:
            raise PlatformUnavailable("away")
        return {session: SessionState(self.known.get(session, "unknown")) for session in sessions}

    async def session(self, session: str) -> SessionInfo | None:
        assert self.single, "there is a better way to ask"
        self.asking += 1
        self.most = max(self.most, self.asking)
        await trio.sleep(0.01)
        self.asking -= 1
        if self.away:
            raise PlatformUnavailable("away")
        state = self.known.get(session)
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


@pytest.fixture(params=[False, True], ids=["many at once", "one by one"])
async def watching(request: pytest.FixtureRequest, autojump_clock: MockClock, nursery: trio.Nursery) -> Watching:
    made = Watching()
    made.live = ["a", "b"]
    made.states.known = {"a": "running", "b": "running"}
    made.states.single = request.param
    nursery.start_soon(made.run)
    await trio.sleep(1)  # the first round is over, the second one is to come
    return made


async def test_a_stopped_session_is_told_once(autojump_clock: MockClock, watching: Watching) -> None:
    await trio.sleep(5)
    assert watching.ended == []
    watching.states.known["a"] = "stopped"
    await trio.sleep(10)
    assert watching.ended == [("a", "the session was stopped")]


async def test_a_session_that_is_gone_has_ended(autojump_clock: MockClock, watching: Watching) -> None:
    del watching.states.known["b"]
    await trio.sleep(5)
    assert watching.ended == [("b", "the session no longer exists")]


async def test_an_absent_platform_ends_nothing(autojump_clock: MockClock, watching: Watching) -> None:
    watching.states.away = True
    watching.states.known["a"] = "stopped"
    await trio.sleep(60)
    assert watching.ended == []
    watching.states.away = False
    await trio.sleep(5)
    assert len(watching.ended) == 1


async def test_whoever_comes_back_to_a_stopped_session_does_not_stay(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.states.known["a"] = "stopped"
    await trio.sleep(5)
    watching.live.append("a")
    await trio.sleep(5)
    assert [session for session, _ in watching.ended] == ["a", "a"]


async def test_a_session_that_is_starting_has_not_ended(autojump_clock: MockClock, watching: Watching) -> None:
    watching.states.known["a"] = "starting"
    await trio.sleep(5)
    assert watching.ended == []


async def test_sessions_that_are_not_live_here_are_not_asked_about(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.live = []
    watching.states.known["a"] = "stopped"
    await trio.sleep(5)
    assert watching.ended == []


async def test_many_sessions_are_asked_about_with_few_questions(autojump_clock: MockClock, watching: Watching) -> None:
    watching.live = [str(number) for number in range(1100)]
    watching.states.known = dict.fromkeys(watching.live, "running")
    watching.states.batches.clear()
    await trio.sleep(2.1)
    if watching.states.single:
        assert watching.states.most == 8
        assert watching.states.batches == []
    else:
        assert watching.states.batches == [500, 500, 100]
        assert watching.ended == []


async def test_a_platform_that_has_learnt_to_answer_about_many_is_noticed(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.states.single = True
    await trio.sleep(300)
    watching.states.single = False
    watching.states.session = _not_asked  # type: ignore[method-assign]
    watching.live = []
    await trio.sleep(400)
    watching.live = ["a"]
    watching.states.known["a"] = "stopped"
    await trio.sleep(5)
    assert watching.ended == [("a", "the session was stopped")]


async def _not_asked(session: str) -> SessionInfo | None:
    raise AssertionError(f"{session} was asked about alone")


async def test_a_session_that_an_answer_leaves_out_has_not_ended(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    class Silent(States):
        async def states(self, sessions: Collection[str]) -> dict[str, SessionState]:
            await trio.sleep(0.01)
            return {}

    watching = Watching()
    watching.states = Silent()
    watching.live = ["a"]
    nursery.start_soon(watching.run)
    await trio.sleep(10)
    assert watching.ended == []
