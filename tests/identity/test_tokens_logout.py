"""Logout tokens: which are believed, and everything that is not one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt

from connect_trio.identity.tokens import SKEW, TokenInvalid
from connect_trio.identity.tokens_logout import EVENT, MAX_AGE, LogoutToken, verify_logout_token
from tests.identity.test_tokens import ISSUER, NOW, id_claims, keys, rsa_key

NO_EVENTS: list[Any] = [..., {}, [EVENT], EVENT, {EVENT: None}, {EVENT: []}, {"x": {}}]


def claims(**changes: Any) -> dict[str, Any]:
    right = {
        "iss": ISSUER,
        "aud": "client",
        "sub": "user-1",
        "sid": "session-1",
        "jti": "once",
        "iat": NOW,
        "exp": NOW + 120,
        "events": {EVENT: {}},
    }
    return {name: value for name, value in {**right, **changes}.items() if value is not ...}


def signed(document: dict[str, Any], *, kind: str | None = "logout+jwt", algorithm: str = "RS256") -> str:
    header = {"alg": algorithm, "kid": "rsa"} | ({"typ": kind} if kind is not None else {})
    return jwt.encode(header, document, rsa_key(), algorithms=[algorithm])


def check(token: str, now: float = NOW) -> LogoutToken:
    return verify_logout_token(token, keys=keys(), issuer=ISSUER, now=now)


@pytest.mark.parametrize("kind", ["logout+jwt", "LOGOUT+JWT", "application/logout+jwt"])
def test_a_right_token_says_who_is_out(kind: str) -> None:
    told = check(signed(claims(), kind=kind))
    assert (told.subject, told.sid, told.audience, told.token_id) == ("user-1", "session-1", ("client",), "once")
    assert told.usable_until == NOW + 120 + SKEW


@pytest.mark.parametrize(
    ("left_out", "whom"), [("sid", ("user-1", None)), ("sub", (None, "session-1"))], ids=["all sessions", "one session"]
)
def test_a_subject_or_a_session_is_enough(left_out: str, whom: tuple[str | None, str | None]) -> None:
    told = check(signed(claims(**{left_out: ...})))
    assert (told.subject, told.sid) == whom


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({"iss": iss}, "issuer") for iss in ("https://evil.example/api", ISSUER + "/", [ISSUER])),
        ({"iss": ...}, "iss"),
        *(({"aud": aud}, "aud") for aud in ("", [], [7], ["a"] * 9, {"client": 1})),
        ({"aud": ...}, "aud"),
        *(({"exp": exp}, "exp") for exp in (NOW - SKEW - 1, "soon", 10**30, math.nan, ...)),
        *(({"iat": iat}, "iat") for iat in (NOW + SKEW + 1, NOW - MAX_AGE - SKEW - 1, "now", 10**400, math.nan, ...)),
        *(({"jti": jti}, "jti") for jti in ("", 7, "x" * 256, ...)),
        *(({"nonce": nonce}, "nonce") for nonce in ("n", "", None)),
        *(({"events": events}, "events") for events in NO_EVENTS),
        ({"sub": ..., "sid": ...}, "names nobody"),
        *(({"sub": sub}, "sub") for sub in ("", "ü", "x" * 256, 7, None)),
        *(({"sid": sid}, "sid") for sid in ("", "a\nb", "x" * 256, 7, None)),
        ({"nbf": NOW + SKEW + 1}, "nbf"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        check(signed(claims(**changes)))


@pytest.mark.parametrize("kind", [None, "JWT", "at+jwt", "logout", "secevent+jwt"])
def test_a_token_of_another_type_is_no_logout(kind: str | None) -> None:
    with pytest.raises(TokenInvalid, match="typ"):
        check(signed(claims(), kind=kind))


def test_an_id_token_logs_nobody_out() -> None:
    for document in (id_claims(), id_claims(nonce=...), id_claims(nonce=..., sid="session-1", jti="once")):
        with pytest.raises(TokenInvalid):
            check(signed(document, kind="JWT"))
        with pytest.raises(TokenInvalid):
            check(signed(document))


@pytest.mark.parametrize("algorithm", ["RS384", "PS256"])
def test_the_token_does_not_choose_the_algorithm(algorithm: str) -> None:
    with pytest.raises(TokenInvalid, match="not signed"):
        check(signed(claims(), algorithm=algorithm))


def test_a_changed_token_is_not_believed() -> None:
    head, body, signature = signed(claims()).split(".")
    other = signed(claims(sub="user-2")).split(".")[1]
    for token in (f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}", f".{body}.{signature}"):
        with pytest.raises(TokenInvalid):
            check(token)


@given(st.text())
def test_any_text_is_no_logout(token: str) -> None:
    with pytest.raises(TokenInvalid):
        check(token)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*claims(), "nonce", "nbf"]), VALUES, max_size=4))
def test_whatever_a_signed_token_says_it_is_right_or_refused(changes: dict[str, Any]) -> None:
    token = signed(json.loads(json.dumps({**claims(), **changes})))
    try:
        told = check(token)
    except TokenInvalid:
        return
    assert told.subject is not None or told.sid is not None
    assert NOW - MAX_AGE - SKEW <= told.issued <= NOW + SKEW
    assert NOW <= told.usable_until <= NOW + MAX_AGE + 2 * SKEW + 1
    assert "nonce" not in changes
