"""Client registration."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.support.platform import register, running_platform


async def test_a_registration_answers_with_credentials(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    assert client["client_secret_expires_at"] == 0
    assert client["redirect_uris"] == ["https://app.example/cb"]
    assert client["token_endpoint_auth_method"] == "client_secret_basic"


@pytest.mark.parametrize(
    "metadata",
    [
        {"redirect_uris": []},
        {"redirect_uris": "https://app.example/cb"},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": ["https://app.example/cb#here"]},
        {"redirect_uris": ["https://user@app.example/cb"]},
        {"redirect_uris": ["https://app.example\\@evil.example/"]},
        {"redirect_uris": ["https://a.example/"] * 11},
        {"redirect_uris": ["http://[broken/"]},
        {"grant_types": ["password"]},
        {"response_types": ["token"]},
        {"token_endpoint_auth_method": "none"},
        {"client_name": 7},
    ],
)
async def test_unusable_metadata_is_refused(http: httpx2.AsyncClient, metadata: dict[str, Any]) -> None:
    answer = await http.post("/api/register", json={"redirect_uris": ["https://app.example/cb"], **metadata})
    assert answer.status_code == 400
    assert answer.json()["error"] in ("invalid_redirect_uri", "invalid_client_metadata")


async def test_registration_asks_for_the_initial_access_token_where_there_is_one() -> None:
    document = {"redirect_uris": ["https://app.example/cb"]}
    async with running_platform(registration_token="initial") as platform, platform.browser() as http:
        for header in ({}, {"authorization": "Bearer guess"}, {"authorization": "initial"}):
            answer = await http.post("/api/register", json=document, headers=header)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        answer = await http.post("/api/register", json=document, headers={"authorization": "Bearer initial"})
        assert answer.status_code == 201


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 10_000, b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(http: httpx2.AsyncClient, body: bytes) -> None:
    answer = await http.post("/api/register", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
