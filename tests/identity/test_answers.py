"""Whatever Platform answers is read as the contract says, or refused with one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.identity import answers
from connect_trio.identity.answers import SessionState
from connect_trio.identity.client import PlatformUnavailable

ID = "23ce7967"
SESSION = {
    "id": ID,
    "name": "A Studio",
    "owner": "alice",
    "state": "running",
    "tool": "files",
    "workspace": {"id": "1", "name": "Main"},
    "ends_at": 1_700_000_000,
}
ACCESS = {"allowed": True, "reason": None, "role": "owner", "permissions": ["open", "extend"], "session": SESSION}
KEY = {**ACCESS, "subject": "user-1", "username": "alice"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def mutated(right: dict[str, Any]) -> st.SearchStrategy[object]:
    """The right answer with some members replaced, left out or of another shape."""
    names = st.sampled_from(sorted(right))
    replaced = st.dictionaries(names, JSON, max_size=3).map(lambda changes: {**right, **changes})
    return JSON | replaced | names.map(lambda name: {key: right[key] for key in right if key != name})


def read(reader: Callable[[], Any]) -> Any:
    """What it reads; None where it says that this is not the contract. Nothing else may come out."""
    try:
        return reader()
    except PlatformUnavailable as exc:
        assert "not what the contract says" in str(exc)  # noqa: PT017 - either is right
        return None


@given(mutated(SESSION))
def test_a_session_is_the_one_that_was_asked_about(document: object) -> None:
    session = read(lambda: answers.session_untrusted(document, ID))
    if session is not None:
        assert session.id == ID
        assert session.ends_at is None or 0 <= session.ends_at <= 1 << 40
        assert session.workspace is None or len(session.workspace) <= 500


@given(mutated(ACCESS) | mutated(SESSION).map(lambda session: {**ACCESS, "session": session}))
def test_only_true_lets_somebody_in(document: object) -> None:
    access = read(lambda: answers.access_untrusted(document, ID))
    if access is not None and access.allowed:
        assert isinstance(document, dict)
        assert document["allowed"] is True
        assert access.session.id == ID
        assert all(isinstance(permission, str) for permission in access.permissions)


@given(mutated(KEY))
def test_a_key_that_is_allowed_belongs_to_somebody(document: object) -> None:
    found = read(lambda: answers.key_access_untrusted(document, ID))
    if found is not None and found.access.allowed:
        assert found.subject
        assert found.subject.isprintable()


@given(mutated({ID: {"state": "running", "ends_at": None}}).map(lambda sessions: {"sessions": sessions}) | JSON)
def test_states_are_those_of_sessions_that_were_asked_about(document: object) -> None:
    states = read(lambda: answers.states_untrusted(document, [ID]))
    if states is not None:
        assert set(states) <= {ID}
        assert all(isinstance(state, SessionState) and state.state for state in states.values())


@given(st.lists(mutated(SESSION), max_size=3).map(lambda sessions: {"sessions": sessions}) | JSON)
def test_a_list_of_sessions_has_only_sessions(document: object) -> None:
    sessions = read(lambda: answers.sessions_untrusted(document))
    assert sessions is None or all(len(session.id) == 8 for session in sessions)


@given(mutated({"contract": 1, "path_routing": True}))
def test_routing_is_by_path_only_where_that_is_said(document: object) -> None:
    info = read(lambda: answers.info_untrusted(document))
    assert info is None or info.path_routing is document["path_routing"]  # type: ignore[index]


@given(mutated({"id": "1" * 32, "duplicate": False}))
def test_only_an_answer_with_its_id_means_that_a_report_was_taken(document: object) -> None:
    def taken() -> bool:
        answers.taken_untrusted(document, "1" * 32)
        return True

    assert read(taken) is None or document["id"] == "1" * 32  # type: ignore[index]


def test_the_right_answers_are_read_whole() -> None:
    access = answers.access_untrusted(ACCESS, ID)
    assert (access.role, access.permissions) == ("owner", frozenset({"open", "extend"}))
    assert (access.session.workspace, access.session.ends_at) == ("Main", 1_700_000_000)
    key = answers.key_access_untrusted(KEY, ID)
    assert (key.subject, key.username) == ("user-1", "alice")
    assert answers.sessions_untrusted({"sessions": [SESSION]}) == [access.session]


def test_a_platform_of_the_first_days_is_understood() -> None:
    old = {name: SESSION[name] for name in ("id", "name", "owner", "state", "tool")}
    access = answers.access_untrusted({"allowed": True, "reason": None, "session": old}, ID)
    assert access.allowed
    assert (access.role, access.permissions, access.session.ends_at) == (None, frozenset(), None)


@pytest.mark.parametrize("ends_at", ["soon", True, -1, 1e300, float("nan"), [], {}])
def test_a_time_that_is_none_ends_nothing(ends_at: object) -> None:
    assert answers.session_untrusted({**SESSION, "ends_at": ends_at}, ID).ends_at is None


def test_a_list_is_read_up_to_its_bound() -> None:
    sessions = [{**SESSION, "id": f"{number:08x}"} for number in range(150)]
    assert len(answers.sessions_untrusted({"sessions": sessions})) == 100
