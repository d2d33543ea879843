from __future__ import annotations

import trio

from connect_trio.edge.scopes import SessionScopes


async def test_ending_a_session_cancels_what_is_open_for_it_and_says_why() -> None:
    scopes = SessionScopes()
    mine, other = trio.CancelScope(), trio.CancelScope()
    with mine, scopes.enter("one", mine) as hold, scopes.enter("two", other) as untouched:
        assert scopes.live() == {"one": 1, "two": 1}
        assert scopes.end("one", "stopped") == 1
        await trio.sleep_forever()
    assert mine.cancelled_caught
    assert hold.ended == "stopped"
    assert untouched.ended is None
    assert not other.cancel_called
    assert scopes.live() == {}


async def test_what_is_over_is_not_ended_any_more() -> None:
    scopes = SessionScopes()
    scope = trio.CancelScope()
    with scopes.enter("one", scope), scopes.enter("one", scope):
        assert scopes.live() == {"one": 2}
    assert scopes.end("one", "stopped") == 0
    assert not scope.cancel_called
