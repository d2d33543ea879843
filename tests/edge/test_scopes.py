from __future__ import annotations

import pytest
import trio

from connect_trio.edge.scopes import Cause, Ending, Kind, SessionScopes
from connect_trio.identity.control_plane import RUNNING, STOPPED, UNKNOWN, Decision, SessionInfo
from tests.support.grants import granted


async def test_ending_a_session_cancels_what_is_open_for_it_and_says_why() -> None:
    scopes = SessionScopes()
    mine, other = trio.CancelScope(), trio.CancelScope()
    one, two = granted("00000001"), granted("00000002")
    with mine, scopes.enter(one, Kind.HTTP, mine) as hold, scopes.enter(two, Kind.HTTP, other) as untouched:
        assert scopes.live() == {"00000001": 1, "00000002": 1}
        assert scopes.end("00000001", "stopped") == 1
        assert scopes.end("00000001", "stopped") == 0, "once is enough"
        await trio.sleep_forever()
    assert mine.cancelled_caught
    assert (hold.ended, untouched.ended) == (Ending(Cause.SESSION, "stopped"), None)
    assert not other.cancel_called
    assert scopes.live() == {}
    assert scopes.counts == {(Kind.HTTP, Cause.SESSION): 1}


async def test_what_is_over_is_not_ended_any_more() -> None:
    scopes = SessionScopes()
    scope = trio.CancelScope()
    with scopes.enter(granted("00000001"), Kind.HTTP, scope), scopes.enter(granted("00000001"), Kind.HTTP, scope):
        assert scopes.live() == {"00000001": 2}
    assert scopes.end("00000001", "stopped") == 0
    assert not scope.cancel_called


async def test_the_end_of_a_login_ends_what_is_open_of_it_in_all_sessions() -> None:
    scopes = SessionScopes()
    mine, mine_too, other, nobodys = (trio.CancelScope() for _ in range(4))
    with (
        scopes.enter(granted("00000001"), Kind.HTTP, mine, login="alice") as hold,
        scopes.enter(granted("00000002"), Kind.HTTP, mine_too, login="alice"),
        scopes.enter(granted("00000001"), Kind.HTTP, other, login="bob") as untouched,
        scopes.enter(granted("00000001"), Kind.HTTP, nobodys),
    ):
        assert scopes.logins() == {"alice", "bob"}
        assert scopes.end_login("alice", "it was ended") == 2
        assert (hold.ended, untouched.ended) == (Ending(Cause.LOGIN, "it was ended"), None)
        assert [scope.cancel_called for scope in (mine, mine_too, other, nobodys)] == [True, True, False, False]
    assert scopes.logins() == set()
    assert scopes.end_login("alice", "again") == 0


def info(state: str, ends_at: float | None = None) -> SessionInfo:
    return SessionInfo(id="00000001", name="n", owner="o", state=state, tool="t", ends_at=ends_at)


JUDGEMENTS = {
    "well": (Decision(allowed=True, reason=None, session_state=RUNNING, session=info(RUNNING)), None, 0),
    "forbidden": (Decision(allowed=False, reason="no", session_state=RUNNING), Cause.ACCESS, 1),
    "unknown": (Decision(allowed=False, reason=None, session_state=UNKNOWN), Cause.SESSION, 1),
    "stopped": (Decision(allowed=True, reason=None, session_state=STOPPED, session=info(STOPPED)), Cause.SESSION, 2),
    "forbidden and stopped": (Decision(allowed=False, reason="no", session_state=STOPPED), Cause.SESSION, 2),
    "over": (Decision(allowed=True, reason=None, session_state=STOPPED, session=info(RUNNING, 1.0)), Cause.PLANNED, 2),
    "starting": (Decision(allowed=True, reason=None, session_state="starting", session=info("starting")), None, 0),
}


@pytest.mark.parametrize("judgement", JUDGEMENTS)
async def test_a_decision_ends_what_is_not_to_be_and_nothing_else(judgement: str) -> None:
    """Of one visitor; where the session has ended, of all who visit it; never in another session."""
    decision, cause, ends = JUDGEMENTS[judgement]
    scopes = SessionScopes()
    mine, others, elsewhere = (trio.CancelScope() for _ in range(3))
    grant = granted("00000001")
    with (
        scopes.enter(grant, Kind.HTTP, mine) as hold,
        scopes.enter(granted("00000001", "sub-other"), Kind.HTTP, others),
        scopes.enter(granted("00000002"), Kind.HTTP, elsewhere),
    ):
        scopes.judge(grant, decision)
        assert [scope.cancel_called for scope in (mine, others, elsewhere)] == [ends > 0, ends > 1, False]
        assert (hold.ended.cause if hold.ended is not None else None) is cause
        assert sum(scopes.counts.values()) == ends


async def test_a_planned_end_is_known_while_something_is_open() -> None:
    scopes = SessionScopes()
    grant, scope = granted("00000001"), trio.CancelScope()

    def judge(ends_at: float | None) -> None:
        session = info(RUNNING, ends_at)
        scopes.judge(grant, Decision(allowed=True, reason=None, session_state=RUNNING, session=session, grant=grant))

    judge(5.0)
    assert scopes.planned == {}, "of what nobody has open, nothing is kept"
    with scopes.enter(grant, Kind.HTTP, scope):
        judge(5.0)
        assert scopes.planned == {"00000001": 5.0}
        judge(None)
        assert scopes.planned == {}
        judge(6.0)
    assert scopes.planned == {}
