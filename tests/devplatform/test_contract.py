"""The calls that Connect makes, and the development calls."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from connect_trio.identity.tokens import import_keys, verify_agent_token
from tests.support.platform import DEV_KEY, PRIVATE, SHARED, RunningPlatform, log_in, login_code, redeem, register

BEARER = {"authorization": f"Bearer {DEV_KEY}"}


async def _subject(platform: RunningPlatform, username: str) -> str:
    async with platform.browser() as http:
        client = await register(http)
        tokens = (await redeem(http, client, await login_code(http, client, username))).json()
        answer = await http.get("/api/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"})
        subject = answer.json()["sub"]
        assert isinstance(subject, str)
        return subject


async def _access(http: httpx2.AsyncClient, client: dict[str, Any], session: str, subject: str) -> httpx2.Response:
    return await http.post(
        "/api/connect/access",
        json={"session": session, "subject": subject, "method": "http"},
        auth=(client["client_id"], client["client_secret"]),
    )


@pytest.mark.parametrize(
    ("username", "session", "allowed"),
    [("alice", SHARED, True), ("bob", SHARED, True), ("alice", PRIVATE, True), ("bob", PRIVATE, False)],
)
async def test_access_is_decided_per_session(
    platform: RunningPlatform, http: httpx2.AsyncClient, username: str, session: str, allowed: bool
) -> None:
    client = await register(http)
    answer = (await _access(http, client, session, await _subject(platform, username))).json()
    assert answer["allowed"] is allowed
    assert (answer["reason"] is None) is allowed
    assert answer["session"]["id"] == session
    assert answer["session"]["state"] == "running"


async def test_unknown_sessions_subjects_and_clients_are_told_apart(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    assert (await _access(http, client, "00000000", "somebody")).status_code == 404
    assert (await _access(http, client, SHARED, "somebody")).json()["allowed"] is False
    assert (await _access(http, {"client_id": "x", "client_secret": "y"}, SHARED, "s")).status_code == 401
    assert (await http.get(f"/api/connect/sessions/{SHARED}")).status_code == 401


async def test_an_agent_token_names_one_session(platform: RunningPlatform, http: httpx2.AsyncClient) -> None:
    token = await platform.agent_token(PRIVATE)
    keys = import_keys((await http.get("/api/.well-known/jwks.json")).json())
    claims = platform.keys.claims(token)
    assert claims is not None
    assert verify_agent_token(token, keys=keys, issuer=platform.issuer, now=claims["iat"]).session == PRIVATE


async def test_development_calls_need_the_development_key(http: httpx2.AsyncClient) -> None:
    for headers in ({}, {"authorization": "Bearer guess"}):
        for path in ("/api/dev/agent-tokens", f"/api/dev/sessions/{SHARED}/stop"):
            assert (await http.post(path, json={"session": SHARED}, headers=headers)).status_code == 401
    assert (await http.post("/api/dev/sessions/00000000/stop", headers=BEARER)).status_code == 404
    assert (await http.post("/api/dev/agent-tokens", json={"session": []}, headers=BEARER)).status_code == 404


async def test_a_session_can_be_stopped_and_started(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    auth = (client["client_id"], client["client_secret"])
    for action, state in (("stop", "stopped"), ("start", "running")):
        await http.post(f"/api/dev/sessions/{SHARED}/{action}", headers=BEARER)
        assert (await http.get(f"/api/connect/sessions/{SHARED}", auth=auth)).json()["state"] == state


async def test_the_owner_sees_the_switches_and_a_guest_does_not(
    platform: RunningPlatform, http: httpx2.AsyncClient
) -> None:
    await log_in(http, "alice")
    page = (await http.get("/")).text
    assert 'href="http://a23ce7967.connect.localhost:8080/"' in page
    assert 'href="http://a5f0c1d2e.connect.localhost:8080/"' in page
    async with platform.browser() as guest:
        await log_in(guest, "bob")
        page = (await guest.get("/")).text
        assert "a23ce7967.connect.localhost" in page
        assert "not shared with you" in page
        assert "/stop" not in page
        token = page.split('name="form_token" value="')[1].split('"')[0]
        answer = await guest.post(f"/sessions/{SHARED}/stop", data={"form_token": token})
        assert answer.status_code == 403


async def test_the_switches_work_with_the_form_token_only(http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    page = (await http.get("/")).text
    token = page.split('name="form_token" value="')[1].split('"')[0]
    assert (await http.post(f"/sessions/{SHARED}/stop", data={"form_token": "guess"})).status_code == 403
    answer = await http.post(f"/sessions/{SHARED}/stop", data={"form_token": token}, follow_redirects=True)
    assert 'class="stopped"' in answer.text
