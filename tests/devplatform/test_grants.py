"""The token endpoint: what a code is worth, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.platform import RunningPlatform, login_code, redeem, register


async def _claims(http: httpx2.AsyncClient, token: str) -> Mapping[str, Any]:
    keys = KeySet.import_key_set((await http.get("/api/.well-known/jwks.json")).json())
    return jwt.decode(token, keys, algorithms=["RS256"]).claims


async def test_a_code_becomes_tokens_that_the_published_keys_verify(
    platform: RunningPlatform, http: httpx2.AsyncClient
) -> None:
    client = await register(http)
    answer = await redeem(http, client, await login_code(http, client))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    claims = await _claims(http, tokens["id_token"])
    assert claims["iss"] == platform.issuer
    assert claims["aud"] == client["client_id"]
    assert claims["nonce"] == "nonce-1"
    assert claims["preferred_username"] == "alice"
    profile = await http.get("/api/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"})
    assert profile.json()["sub"] == claims["sub"]


async def test_published_keys_have_no_private_part(http: httpx2.AsyncClient) -> None:
    (key,) = (await http.get("/api/.well-known/jwks.json")).json()["keys"]
    assert set(key) == {"kty", "kid", "use", "alg", "n", "e"}


async def test_a_code_works_once_and_its_second_use_revokes_the_refresh_token(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    code = await login_code(http, client)
    tokens = (await redeem(http, client, code)).json()
    again = await redeem(http, client, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    refreshed = await _refresh(http, client, tokens["refresh_token"])
    assert (refreshed.status_code, refreshed.json()["error"]) == (400, "invalid_grant")


async def test_a_refresh_token_works_once(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    tokens = (await redeem(http, client, await login_code(http, client))).json()
    first = await _refresh(http, client, tokens["refresh_token"])
    assert first.status_code == 200
    assert (await _claims(http, first.json()["id_token"]))["preferred_username"] == "alice"
    assert (await _refresh(http, client, tokens["refresh_token"])).status_code == 400
    assert (await _refresh(http, client, first.json()["refresh_token"])).status_code == 200


async def _refresh(http: httpx2.AsyncClient, client: dict[str, Any], token: str) -> httpx2.Response:
    data = {"grant_type": "refresh_token", "refresh_token": token}
    return await http.post("/api/token", data=data, auth=(client["client_id"], client["client_secret"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": None},
        {"redirect_uri": "https://app.example/other"},
        {"redirect_uri": None},
        {"code": "guessed"},
    ],
    ids=["wrong verifier", "no verifier", "other address", "no address", "unknown code"],
)
async def test_a_code_needs_its_verifier_and_its_address(
    http: httpx2.AsyncClient, changes: dict[str, str | None]
) -> None:
    client = await register(http)
    code = await login_code(http, client)
    answer = await redeem(http, client, code, **changes)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


async def test_a_failed_attempt_burns_the_code(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    code = await login_code(http, client)
    await redeem(http, client, code, code_verifier="w" * 43)
    assert (await redeem(http, client, code)).json()["error"] == "invalid_grant"


async def test_a_code_is_of_no_use_to_another_client(http: httpx2.AsyncClient) -> None:
    client, other = await register(http), await register(http)
    code = await login_code(http, client)
    assert (await redeem(http, other, code)).json()["error"] == "invalid_grant"
    assert (await redeem(http, client, code)).status_code == 200


async def test_clients_authenticate_in_the_way_they_registered(http: httpx2.AsyncClient) -> None:
    client = await register(http, token_endpoint_auth_method="client_secret_post")
    code = await login_code(http, client)
    by_header = await redeem(http, client, code)
    assert (by_header.status_code, by_header.json()["error"]) == (401, "invalid_client")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "https://app.example/cb",
        "code_verifier": "v" * 43,
        "client_id": client["client_id"],
        "client_secret": client["client_secret"],
    }
    assert (await http.post("/api/token", data=form)).status_code == 200


async def test_a_wrong_secret_is_answered_with_401(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    answer = await redeem(http, {**client, "client_secret": "guess"}, "code")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"] == "Basic"


async def test_one_sort_of_token_does_not_pass_for_another(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    tokens = (await redeem(http, client, await login_code(http, client))).json()
    for name in ("id_token", "refresh_token"):
        answer = await http.get("/api/userinfo", headers={"authorization": f"Bearer {tokens[name]}"})
        assert answer.status_code == 401
    assert (await _refresh(http, client, tokens["access_token"])).status_code == 400


async def test_repeated_fields_and_long_bodies_are_refused(http: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    twice = await http.post("/api/token", content=b"grant_type=a&grant_type=b", headers=headers)
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    long = await http.post("/api/token", content=b"x" * 20_000, headers=headers)
    assert long.status_code == 413
