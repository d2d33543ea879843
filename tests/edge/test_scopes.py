from __future__ import annotations

import attrs
import trio

from connect_trio.edge.scopes import Cause, Ending, Kind, SessionScopes
from connect_trio.identity.watcher_keys import UsedKey
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


async def test_the_end_of_a_key_ends_what_is_open_by_it_in_all_sessions() -> None:
    scopes = SessionScopes()
    mine, mine_too, other, bobs, browsers = (trio.CancelScope() for _ in range(5))
    one = UsedKey(subject="alice", fingerprint="SHA256:1", username="alice", key="AAAA", session="00000001")
    same = attrs.evolve(one, session="00000002", username="Alice")
    with (
        scopes.enter(granted("00000001"), Kind.SSH, mine, key=one) as hold,
        scopes.enter(granted("00000002"), Kind.SSH, mine_too, key=same),
        scopes.enter(granted("00000001"), Kind.SSH, other, key=attrs.evolve(one, fingerprint="SHA256:2")) as untouched,
        scopes.enter(granted("00000001"), Kind.SSH, bobs, key=attrs.evolve(one, subject="bob")),
        scopes.enter(granted("00000001"), Kind.HTTP, browsers),
    ):
        assert len(scopes.keys()) == 3
        assert scopes.end_key(one, "it was removed") == 2
        assert (hold.ended, untouched.ended) == (Ending(Cause.KEY, "it was removed"), None)
        called = [scope.cancel_called for scope in (mine, mine_too, other, bobs, browsers)]
        assert called == [True, True, False, False, False]
    assert scopes.keys() == set()
