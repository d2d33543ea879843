"""Tokens: what is believed, and everything that is not."""

from __future__ import annotations

import base64
import hmac
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey

from connect_trio.identity.tokens import (
    KeysInvalid,
    TokenInvalid,
    UnknownKey,
    import_keys,
    readable_name,
    verify_agent_token,
    verify_id_token,
)

ISSUER = "https://platform.example/api"
NOW = 1_800_000_000


@cache
def rsa_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "rsa"})


@cache
def ec_key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": "ec"})


@cache
def keys() -> KeySet:
    return import_keys({"keys": [key.as_dict(private=False) for key in (rsa_key(), ec_key())]})


def id_claims(**changes: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER,
        "aud": "client",
        "sub": "user-1",
        "preferred_username": "alice",
        "nonce": "n",
        "iat": NOW,
        "exp": NOW + 60,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def agent_claims(**changes: Any) -> dict[str, Any]:
    return id_claims(**{"aud": "connect-agent", "sub": "23ce7967", "jti": "1", "nonce": ..., **changes})


def sign(claims: dict[str, Any], *, key: Key | None = None, **header: Any) -> str:
    key = key or rsa_key()
    algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
    return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, claims, key, algorithms=["RS256", "ES256", "HS256"])


def check(token: str, now: float = NOW) -> str:
    return verify_id_token(token, keys=keys(), issuer=ISSUER, client_id="client", nonce="n", now=now).subject


def check_agent(token: str, now: float = NOW) -> str:
    return verify_agent_token(token, keys=keys(), issuer=ISSUER, now=now).session


@pytest.mark.parametrize("key", [rsa_key, ec_key], ids=["RS256", "ES256"])
def test_a_right_token_is_believed(key: Any) -> None:
    token = sign(id_claims(), key=key())
    identity = verify_id_token(token, keys=keys(), issuer=ISSUER, client_id="client", nonce="n", now=NOW)
    assert (identity.subject, identity.username, identity.expires) == ("user-1", "alice", NOW + 60)
    assert check_agent(sign(agent_claims(), key=key())) == "23ce7967"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example/api"}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"aud": "another"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["client", "another"]}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"exp": NOW - 31}, "expired"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": 10**30}, "exp"),
        ({"exp": ...}, "exp"),
        ({"iat": NOW + 31}, "future"),
        ({"iat": ...}, "iat"),
        ({"iat": float("nan")}, "iat"),
        ({"exp": float("nan")}, "exp"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"nonce": "other"}, "nonce"),
        ({"nonce": ...}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"sub": ...}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "a\r\nX-Connect-Sub: b"}, "sub"),
        ({"sub": "s" * 256}, "sub"),
    ],
)
def test_a_wrong_claim_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        check(sign(id_claims(**changes)))


def test_clocks_may_differ_by_30_seconds() -> None:
    assert check(sign(id_claims(exp=NOW - 29))) == "user-1"
    assert check(sign(id_claims(iat=NOW + 30, nbf=NOW + 30))) == "user-1"


def test_an_audience_of_one_in_a_list_is_right() -> None:
    assert check(sign(id_claims(aud=["client"]))) == "user-1"
    assert check(sign(id_claims(aud=["client", "another"], azp="client"))) == "user-1"


@pytest.mark.parametrize("username", [..., 7, "", "  ", "\x00\x1f"])
def test_without_a_username_the_subject_serves(username: object) -> None:
    token = sign(id_claims(preferred_username=username))
    identity = verify_id_token(token, keys=keys(), issuer=ISSUER, client_id="client", nonce="n", now=NOW)
    assert identity.username == "user-1"


def test_half_a_character_is_left_out_of_a_name() -> None:
    """JSON can escape it, and no encoding has it."""
    assert readable_name("\ud800", otherwise="user-1") == "user-1"
    assert readable_name("al\udfffice", otherwise="user-1") == "alice"


def test_a_username_cannot_break_a_line() -> None:
    token = sign(id_claims(preferred_username="al\r\nice"))
    identity = verify_id_token(token, keys=keys(), issuer=ISSUER, client_id="client", nonce="n", now=NOW)
    assert identity.username == "alice"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sub": "a23ce7967"}, "8 hex"),
        ({"sub": "23CE7967"}, "8 hex"),
        ({"sub": "23ce7967\n"}, "sub"),
        ({"aud": "client"}, "audience"),
        ({"aud": ["connect-agent", "client"]}, "aud"),
        ({"jti": ...}, "jti"),
        ({"jti": 1}, "jti"),
        ({"iat": 0}, "iat"),
        ({"iat": -1}, "iat"),
        ({"iat": "1"}, "iat"),
        ({"exp": NOW - 31}, "expired"),
    ],
)
def test_an_agent_token_grants_one_session_or_nothing(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TokenInvalid, match=reason):
        check_agent(sign(agent_claims(**changes)))


@pytest.mark.parametrize("iat", [NOW - 5, NOW - 5 + 0.75])
def test_an_agent_token_says_when_it_was_issued(iat: float) -> None:
    token = verify_agent_token(sign(agent_claims(iat=iat)), keys=keys(), issuer=ISSUER, now=NOW)
    assert token.issued == NOW - 5


def test_an_id_token_opens_no_tunnel_and_an_agent_token_logs_nobody_in() -> None:
    with pytest.raises(TokenInvalid, match="audience"):
        check_agent(sign(id_claims(sub="23ce7967", jti="1")))
    with pytest.raises(TokenInvalid, match="audience"):
        check(sign(agent_claims(nonce="n")))


def _unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def test_the_token_does_not_choose_the_algorithm() -> None:
    for header in ({"alg": "none"}, {"alg": "None", "kid": "rsa"}, {"kid": "rsa"}):
        with pytest.raises(TokenInvalid):
            check(_unsigned(id_claims(), header))
    for secret in (rsa_key().as_pem(private=False), json.dumps(rsa_key().as_dict(private=False)).encode()):
        # The public key as an HMAC secret: what a verifier that follows the header would accept.
        signed = _unsigned(id_claims(), {"alg": "HS256", "kid": "rsa"}).rstrip(".")
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
        with pytest.raises(TokenInvalid):
            check(f"{signed}.{mac}")


def test_a_key_inside_the_token_is_not_used() -> None:
    forger = RSAKey.generate_key(2048, {"kid": "rsa"})
    with pytest.raises(TokenInvalid):
        check(sign(id_claims(), key=forger, jwk=forger.as_dict(private=False)))
    with pytest.raises(TokenInvalid):
        check(sign(id_claims(), key=forger, jku="https://evil.example/jwks.json"))


def test_an_unknown_key_is_told_apart_from_a_wrong_signature() -> None:
    other = RSAKey.generate_key(2048, {"kid": "newer"})
    with pytest.raises(UnknownKey):
        check(sign(id_claims(), key=other))
    with pytest.raises(TokenInvalid) as caught:
        check(sign(id_claims(), key=other, kid="rsa"))
    assert not isinstance(caught.value, UnknownKey)


def test_a_changed_token_is_not_believed() -> None:
    head, body, signature = sign(id_claims()).split(".")
    forged = base64.urlsafe_b64encode(json.dumps(id_claims(sub="user-2")).encode()).rstrip(b"=").decode()
    with pytest.raises(TokenInvalid):
        check(f"{head}.{forged}.{signature}")
    with pytest.raises(TokenInvalid):
        check(f"{head}.{body}.{signature[::-1]}")


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "é.é.é", "[" * 9000, "e30.e30.e30", "W10.W10.W10", "bnVsbA.bnVsbA.bnVsbA", "\0"],
)
def test_garbage_is_an_invalid_token(token: str) -> None:
    with pytest.raises(TokenInvalid) as caught:
        check(token)
    assert not token or token not in str(caught.value) or len(token) < 4


@given(st.text(max_size=200))
def test_any_text_is_an_invalid_token(token: str) -> None:
    with pytest.raises(TokenInvalid):
        check(token)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_header_and_body_are_an_invalid_token(header: bytes, body: bytes) -> None:
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, body, b"x" * 64))
    with pytest.raises(TokenInvalid):
        check(".".join(parts))


def test_only_public_key_algorithms_are_imported() -> None:
    usable = rsa_key().as_dict(private=False)
    others: list[object] = [
        OctKey.generate_key(256).as_dict(private=True),
        ECKey.generate_key("P-384").as_dict(private=False),
        {**usable, "use": "enc"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": 2},
        "no key",
        None,
    ]
    assert [key.kid for key in import_keys({"keys": [*others, usable]})] == ["rsa"]
    with pytest.raises(KeysInvalid):
        import_keys({"keys": others})


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": []}, "keys"])
def test_a_document_without_keys_is_no_key_set(document: object) -> None:
    with pytest.raises(KeysInvalid):
        import_keys(document)
