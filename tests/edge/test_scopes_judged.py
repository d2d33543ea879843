"""What a decision about somebody ends of what is open: theirs, or all of a session that is over."""

from __future__ import annotations

import pytest
import trio

from connect_trio.edge.scopes import Cause, Kind, SessionScopes
from connect_trio.identity.control_plane import RUNNING, STOPPED, UNKNOWN, Decision, SessionInfo
from tests.support.grants import granted


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
