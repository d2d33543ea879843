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


async def test_the_end_of_a_login_ends_what_is_open_of_it_in_all_sessions() -> None:
    scopes = SessionScopes()
    mine, mine_too, other, nobodys = (trio.CancelScope() for _ in range(4))
    with (
        scopes.enter("one", mine, login="alice") as hold,
        scopes.enter("two", mine_too, login="alice"),
        scopes.enter("one", other, login="bob") as untouched,
        scopes.enter("one", nobodys),
    ):
        assert scopes.logins() == {"alice", "bob"}
        assert scopes.end_login("alice", "it was ended") == 2
        assert (hold.logged_out, hold.ended, untouched.logged_out) == ("it was ended", None, None)
        assert [scope.cancel_called for scope in (mine, mine_too, other, nobodys)] == [True, True, False, False]
    assert scopes.logins() == set()
    assert scopes.end_login("alice", "again") == 0
