"""What Connect asks of a Platform, docs/platform-api.md: the development Platform keeps it, and a real one must too.

With CONNECT_TEST_PLATFORM these tests are put to another Platform (tests/support/contract.py).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from connect_trio.identity.tokens import import_keys, verify_agent_token
from tests.support.contract import UNKNOWN, Caller, Facts, calling, platform_under_test, specification, visit

METHODS = ("http", "websocket", "ssh")


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with platform_under_test() as facts, calling(facts) as made:
        yield made


@pytest.fixture
def facts(caller: Caller) -> Facts:
    return caller.facts


def given(value: str | None) -> str:
    """A fact that a Platform need not have."""
    if value is None:
        pytest.skip("this Platform's description does not say")
    return value


async def access(caller: Caller, session: str, subject: str, method: str = "http", **options: Any) -> Any:
    wish = {"session": session, "subject": subject, "method": method}
    return await caller.call("POST", "/connect/access", document=wish, **options)


def test_the_document_is_openapi_3_1() -> None:
    assert str(specification()["openapi"]).startswith("3.1")
    OpenAPIV31SpecValidator(dict(specification())).validate()


async def test_it_tells_which_contract_it_keeps_and_how_studios_are_addressed(caller: Caller, facts: Facts) -> None:
    info = await caller.call("GET", "/connect/info")
    assert (info["contract"], info["path_routing"]) == (1, facts.path_routing)


OPERATIONS: list[tuple[str, str, object]] = [
    ("GET", "/connect/info", None),
    ("POST", "/connect/access", {"session": UNKNOWN, "subject": "x", "method": "http"}),
    ("GET", "/connect/sessions", None),
    ("POST", "/connect/sessions/states", {"sessions": []}),
    ("GET", "/connect/sessions/{id}", None),
    ("POST", "/connect/sessions/{id}/extend", {"subject": "x"}),
    ("POST", "/connect/ssh-keys/removed", {"keys": []}),
    ("POST", "/connect/activity", {"id": "1" * 32, "reporter": "2" * 32, "visits": []}),
]


@pytest.mark.parametrize(("method", "path", "document"), OPERATIONS, ids=[path for _, path, _ in OPERATIONS])
async def test_nobody_but_connects_client_is_answered(
    caller: Caller, facts: Facts, method: str, path: str, document: object
) -> None:
    values: dict[str, Any] = {"id": facts.session} if "{id}" in path else {}
    await caller.call(method, path, document=document, status=401, authenticated=False, **values)
    for auth in ((facts.client_id, "wrong"), ("nobody", facts.client_secret)):
        await caller.call(method, path, document=document, status=401, auth=auth, **values)


@pytest.mark.parametrize("method", METHODS)
async def test_whoever_may_open_a_session_may_by_every_method(caller: Caller, facts: Facts, method: str) -> None:
    answer = await access(caller, facts.session, facts.subject, method)
    assert (answer["allowed"], answer["session"]["id"]) == (True, facts.session)
    assert answer["session"]["state"] == "running"
    assert "open" in answer["permissions"]
    assert answer["role"] in ("owner", "admin", "maintain", "launch", "connect")


@pytest.mark.parametrize("method", METHODS)
async def test_a_stranger_may_not_by_any_method_and_is_told_why(caller: Caller, facts: Facts, method: str) -> None:
    for subject in (facts.stranger, "no-such-subject"):
        answer = await access(caller, facts.session, subject, method)
        assert not answer["allowed"]
        assert "open" not in answer["permissions"]


async def test_a_private_session_is_closed_to_others_of_its_workspace(caller: Caller, facts: Facts) -> None:
    private, other = given(facts.private), given(facts.other)
    assert (await access(caller, facts.session, other))["allowed"]
    assert (await access(caller, private, facts.subject))["allowed"]
    assert not (await access(caller, private, other))["allowed"]


async def test_the_role_view_opens_nothing(caller: Caller, facts: Facts) -> None:
    viewer = given(facts.viewer)
    answer = await access(caller, facts.session, viewer)
    assert (answer["allowed"], answer["role"]) == (False, "view")


async def test_a_workspace_without_studios_lets_nobody_in(caller: Caller, facts: Facts) -> None:
    closed = given(facts.closed)
    for method in METHODS:
        assert not (await access(caller, closed, facts.subject, method))["allowed"]
    assert not (await access(caller, closed, closed, "tunnel"))["allowed"]


async def test_an_agent_serves_the_session_that_its_token_names(caller: Caller, facts: Facts) -> None:
    assert (await access(caller, facts.session, facts.session, "tunnel"))["allowed"]
    for subject in (UNKNOWN, facts.subject):
        assert not (await access(caller, facts.session, subject, "tunnel"))["allowed"]
    assert not (await access(caller, facts.session, facts.session, "http"))["allowed"]


async def test_what_is_not_there_and_what_makes_no_sense_are_told_apart(caller: Caller, facts: Facts) -> None:
    await access(caller, UNKNOWN, facts.subject, status=404)
    await access(caller, facts.session, facts.subject, "telnet", proper=False, status=400)
    wishes: list[object] = [{}, [], {"session": facts.session}, {"session": 1, "subject": "x", "method": "http"}]
    for wish in wishes:
        await caller.call("POST", "/connect/access", document=wish, proper=False, status=400)


async def test_a_session_is_described(caller: Caller, facts: Facts) -> None:
    session = await caller.call("GET", "/connect/sessions/{id}", id=facts.session)
    assert session == (await access(caller, facts.session, facts.subject))["session"]
    await caller.call("GET", "/connect/sessions/{id}", id=UNKNOWN, status=404)


async def test_states_of_many_sessions_come_in_one_answer(caller: Caller, facts: Facts) -> None:
    session = await caller.call("GET", "/connect/sessions/{id}", id=facts.session)
    ids = [facts.session, UNKNOWN, *(f"f{number:07x}" for number in range(498))]
    answer = await caller.call("POST", "/connect/sessions/states", document={"sessions": ids})
    assert set(answer["sessions"]) == set(ids)
    assert answer["sessions"][facts.session] == {"state": "running", "ends_at": session["ends_at"]}
    assert answer["sessions"][UNKNOWN]["state"] == "unknown"
    empty = await caller.call("POST", "/connect/sessions/states", document={"sessions": []})
    assert empty["sessions"] == {}


@pytest.mark.parametrize(
    "wish", [{}, {"sessions": "23ce7967"}, {"sessions": ["x"]}, {"sessions": [None]}, {"sessions": [UNKNOWN] * 501}]
)
async def test_too_many_sessions_or_none_at_all_are_refused(caller: Caller, wish: dict[str, object]) -> None:
    await caller.call("POST", "/connect/sessions/states", document=wish, proper=False, status=400)


async def test_a_subjects_sessions_are_those_that_they_may_open(caller: Caller, facts: Facts) -> None:
    listed = await caller.call("GET", "/connect/sessions", subject=facts.subject)
    ids = [session["id"] for session in listed["sessions"]]
    assert facts.session in ids
    assert len(ids) == len(set(ids))
    for session in listed["sessions"]:
        assert (await access(caller, session["id"], facts.subject))["allowed"]
    for subject in (facts.stranger, "no-such-subject"):
        others = await caller.call("GET", "/connect/sessions", subject=subject)
        assert facts.session not in [session["id"] for session in others["sessions"]]
    await caller.call("GET", "/connect/sessions", status=400)


async def test_a_session_is_extended_in_the_name_of_a_subject(caller: Caller, facts: Facts) -> None:
    path = "/connect/sessions/{id}/extend"
    now = time.time()
    answer = await caller.call(
        "POST", path, id=facts.session, document={"subject": facts.subject, "seconds": 20 * 3600}
    )
    assert answer["allowed"]
    assert answer["session"]["ends_at"] >= now + 20 * 3600 - 60
    again = await caller.call("POST", path, id=facts.session, document={"subject": facts.subject, "seconds": 1})
    assert again["session"]["ends_at"] >= answer["session"]["ends_at"]
    usual = await caller.call("POST", path, id=facts.session, document={"subject": facts.subject})
    assert usual["allowed"]


async def test_nobody_extends_what_they_may_not(caller: Caller, facts: Facts) -> None:
    path = "/connect/sessions/{id}/extend"
    before = await caller.call("GET", "/connect/sessions/{id}", id=facts.session)
    for subject in (facts.stranger, "no-such-subject"):
        answer = await caller.call("POST", path, id=facts.session, document={"subject": subject, "seconds": 400_000})
        assert not answer["allowed"]
        assert answer["session"]["ends_at"] == before["ends_at"]
    await caller.call("POST", path, id=UNKNOWN, document={"subject": facts.subject}, status=404)
    for seconds in (0, -1, 10**9, "60", True, 1.5):
        wish = {"subject": facts.subject, "seconds": seconds}
        await caller.call("POST", path, id=facts.session, document=wish, proper=False, status=400)


async def check_key(caller: Caller, facts: Facts, **changes: str) -> Any:
    key = given(facts.ssh_key).split()[1]
    wish = {"session": facts.session, "username": given(facts.username), "key": key, "fingerprint": FINGERPRINT}
    status = int(changes.pop("status", "200"))
    return await caller.call("POST", "/connect/ssh-keys/check", document=wish | changes, status=status)


FINGERPRINT = "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"  # of SSH_KEY, by ssh-keygen -l
OTHER_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
OTHER_FINGERPRINT = "SHA256:mKqU+0K8OhKmA8bBQi9Rz0Q5l7/g160hIP+rJYSTNj4"


async def test_a_key_tells_its_owner(caller: Caller, facts: Facts) -> None:
    answer = await check_key(caller, facts)
    assert (answer["allowed"], answer["subject"], answer["username"]) == (True, facts.subject, facts.username)


async def test_a_key_that_platform_does_not_have_is_refused_with_what_mends_it(caller: Caller, facts: Facts) -> None:
    for changes in ({"username": "nobody"}, {"key": OTHER_KEY, "fingerprint": OTHER_FINGERPRINT}):
        answer = await check_key(caller, facts, **changes)
        assert (answer["allowed"], answer["subject"], answer["username"]) == (False, None, None)
        assert changes.get("fingerprint", FINGERPRINT) in answer["reason"]


async def test_a_key_and_a_fingerprint_that_do_not_belong_together_are_refused(caller: Caller, facts: Facts) -> None:
    await check_key(caller, facts, fingerprint=OTHER_FINGERPRINT, status="400")
    await check_key(caller, facts, key="!", status="400")
    await check_key(caller, facts, session=UNKNOWN, status="404")


async def test_keys_that_were_removed_are_named_and_others_are_not(caller: Caller, facts: Facts) -> None:
    given(facts.ssh_key)
    here = {"subject": facts.subject, "fingerprint": FINGERPRINT}
    gone = [
        {"subject": facts.subject, "fingerprint": OTHER_FINGERPRINT},
        {"subject": facts.stranger, "fingerprint": FINGERPRINT},
        *({"subject": f"no-such-subject-{number}", "fingerprint": FINGERPRINT} for number in range(247)),
    ]
    answer = await caller.call("POST", "/connect/ssh-keys/removed", document={"keys": [here, *gone]})
    assert here not in answer["removed"]
    assert all(key in answer["removed"] for key in gone)
    none = await caller.call("POST", "/connect/ssh-keys/removed", document={"keys": []})
    assert none == {"removed": []}


@pytest.mark.parametrize(
    "keys",
    [
        None,
        "many",
        [1],
        [{}],
        [{"subject": "x"}],
        [{"subject": "x", "fingerprint": 1}],
        [{"subject": "x", "fingerprint": FINGERPRINT}] * 251,
    ],
)
async def test_too_many_keys_or_what_names_none_are_refused(caller: Caller, keys: object) -> None:
    await caller.call("POST", "/connect/ssh-keys/removed", document={"keys": keys}, proper=False, status=400)


async def test_a_report_counts_once(caller: Caller, facts: Facts) -> None:
    report = {"id": secrets.token_hex(16), "reporter": secrets.token_hex(16), "visits": [visit(facts)]}
    assert await caller.call("POST", "/connect/activity", document=report) == {"id": report["id"], "duplicate": False}
    assert await caller.call("POST", "/connect/activity", document=report) == {"id": report["id"], "duplicate": True}


async def test_a_report_may_be_large_and_name_what_is_gone(caller: Caller, facts: Facts) -> None:
    visits = [visit(facts, session=UNKNOWN, subject=f"{number:0>255}") for number in range(499)]
    visits.append(visit(facts, disconnected_at=time.time()))
    report = {"id": secrets.token_hex(16), "reporter": secrets.token_hex(16), "visits": visits}
    assert not (await caller.call("POST", "/connect/activity", document=report))["duplicate"]


@pytest.mark.parametrize("visits", [None, [{}], [1], "many"])
async def test_what_is_no_report_is_refused_whole(caller: Caller, facts: Facts, visits: object) -> None:
    report = {"id": secrets.token_hex(16), "reporter": "1" * 32, "visits": visits}
    await caller.call("POST", "/connect/activity", document=report, proper=False, status=400)
    mended = {**report, "visits": []}
    assert not (await caller.call("POST", "/connect/activity", document=mended))["duplicate"]


async def test_agents_tokens_can_be_verified(caller: Caller, facts: Facts) -> None:
    token = given(facts.agent_token)
    document = await caller.call("GET", "/.well-known/jwks.json", authenticated=False)
    agent = verify_agent_token(token, keys=import_keys(document), issuer=given(facts.issuer), now=time.time())
    assert agent.session == facts.session
