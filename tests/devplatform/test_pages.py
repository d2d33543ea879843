"""Platform's page, by hand: who sees which switch, and what it does."""

from __future__ import annotations

import re

import httpx2
import pytest

from connect_trio.devplatform.studios import StudioPolicy
from tests.devplatform.test_ssh_keys import line
from tests.support.platform import DEV_KEY, PRIVATE, SHARED, RunningPlatform, log_in, register, running_platform

BEARER = {"authorization": f"Bearer {DEV_KEY}"}
RESEARCH = "7be1d004"


async def press(http: httpx2.AsyncClient, path: str, *, page: str = "/", **fields: str) -> httpx2.Response:
    """Send a form of the page."""
    shown = (await http.get(page)).text
    token = shown.split('name="form_token" value="')[1].split('"')[0]
    return await http.post(path, data={"form_token": token, **fields}, follow_redirects=True)


def row(page: str, session: str) -> str:
    return next(part for part in page.split("<tr>") if f"a{session}" in part)


@pytest.mark.parametrize(
    ("username", "session", "sees"),
    [
        ("alice", PRIVATE, {"Open", "Stop", "Extend", "Share"}),
        ("bob", SHARED, {"Open"}),
        ("bob", PRIVATE, {"not shared with you"}),
        ("bob", RESEARCH, {"not shared with you"}),
        ("carol", SHARED, {"not shared with you"}),
        ("dave", RESEARCH, {"Start", "Share"}),
        ("erin", PRIVATE, {"not shared with you", "Stop", "Extend"}),
        ("erin", SHARED, {"Open", "Stop", "Extend"}),
    ],
)
async def test_everybody_sees_what_they_may_do(
    http: httpx2.AsyncClient, username: str, session: str, sees: set[str]
) -> None:
    await log_in(http, username)
    part = row((await http.get("/")).text, session)
    every = {"Open", "Start", "Stop", "Extend", "Share", "not shared with you"}
    assert {text for text in every if f">{text}<" in part} == sees


async def test_a_session_is_shared_with_one_more_user_and_taken_back(
    platform: RunningPlatform, http: httpx2.AsyncClient
) -> None:
    await log_in(http, "alice")
    async with platform.browser() as guest:
        await log_in(guest, "bob")
        await press(http, f"/sessions/{PRIVATE}/share", private="yes", guest="bob")
        assert ">Open<" in row((await guest.get("/")).text, PRIVATE)
        page = await press(http, f"/sessions/{PRIVATE}/share", private="yes", guest="")
        assert "alice" in row(page.text, PRIVATE)
        assert ">Open<" not in row((await guest.get("/")).text, PRIVATE)
        assert (await press(guest, f"/sessions/{PRIVATE}/share", private="no")).status_code == 403


@pytest.mark.parametrize("fields", [{}, {"private": "perhaps"}, {"private": "yes", "guest": "nobody"}])
async def test_a_share_that_says_nothing_changes_nothing(http: httpx2.AsyncClient, fields: dict[str, str]) -> None:
    await log_in(http, "alice")
    assert (await press(http, f"/sessions/{PRIVATE}/share", **fields)).status_code == 400


async def test_a_session_is_extended_by_whoever_may(platform: RunningPlatform, http: httpx2.AsyncClient) -> None:
    await http.post(f"/api/dev/sessions/{SHARED}", json={"ends_in": 1805}, headers=BEARER)
    await log_in(http, "alice")
    assert "for 30 min" in row((await http.get("/")).text, SHARED)
    page = await press(http, f"/sessions/{SHARED}/extend")
    assert re.search(r"for (8 h 0|7 h 59) min", row(page.text, SHARED))
    async with platform.browser() as guest:
        await log_in(guest, "bob")
        assert (await press(guest, f"/sessions/{SHARED}/extend")).status_code == 403


async def test_who_is_connected_is_shown_by_name(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    visit = {"session": SHARED, "connected_at": 1, "last_active": 1, "disconnected_at": None}
    report = {"id": "1" * 32, "reporter": "2" * 32, "visits": [{**visit, "subject": "user-c27e83b4"}]}
    auth = (client["client_id"], client["client_secret"])
    assert (await http.post("/api/connect/activity", json=report, auth=auth)).json()["duplicate"] is False
    await log_in(http, "alice")
    page = (await http.get("/")).text
    assert re.search(r"bob <small>\d+ h \d+ min ago", row(page, SHARED))
    assert "bob <small>" not in row(page, PRIVATE)


async def test_forms_without_their_token_change_nothing(http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    for path in (f"/sessions/{SHARED}/extend", f"/sessions/{SHARED}/share", "/ssh-keys", "/ssh-keys/remove"):
        assert (await http.post(path, data={"form_token": "guess"})).status_code == 403


async def test_ssh_keys_are_added_and_removed(platform: RunningPlatform, http: httpx2.AsyncClient) -> None:
    await log_in(http, "bob")
    page = (await press(http, "/ssh-keys", page="/ssh-keys", key=line(comment="bob's <laptop>"))).text
    assert "bob&#39;s &lt;laptop&gt;" in page
    fingerprint = page.split("<code>")[1].split("</code>")[0]
    assert fingerprint.startswith("SHA256:")
    wrong = await press(http, "/ssh-keys", page="/ssh-keys", key="none")
    assert (wrong.status_code, "one line of a file" in wrong.text) == (400, True)
    page = (await press(http, "/ssh-keys/remove", page="/ssh-keys", fingerprint=fingerprint)).text
    assert fingerprint not in page
    async with platform.browser() as stranger:
        assert (await stranger.get("/ssh-keys")).status_code == 302


async def test_studios_have_paths_where_that_is_switched_on_and_xpra_is_not_started() -> None:
    policy = StudioPolicy(path_routing=True)
    async with running_platform(policy=policy, tool="xpra") as platform, platform.browser() as http:
        await log_in(http, "alice")
        assert "a23ce7967.connect" not in (await http.get("/")).text
        page = await press(http, f"/sessions/{SHARED}/start")
        assert page.status_code == 409
        assert "Xpra does not work under a path" in page.text
    async with running_platform(policy=policy) as platform, platform.browser() as http:
        await log_in(http, "alice")
        assert 'href="http://connect.localhost:8080/_studio/a23ce7967/"' in (await http.get("/")).text


async def test_the_development_calls_change_what_the_page_does(http: httpx2.AsyncClient) -> None:
    await log_in(http, "carol")
    assert ">Open<" not in (await http.get("/")).text
    answer = await http.post(
        "/api/dev/workspaces/1/members", json={"username": "carol", "role": "connect"}, headers=BEARER
    )
    assert answer.json()["members"]["carol"] == "connect"
    assert ">Open<" in row((await http.get("/")).text, SHARED)
    await http.post(f"/api/dev/sessions/{SHARED}", json={"private": True, "guest": "bob"}, headers=BEARER)
    assert ">Open<" not in (await http.get("/")).text
    gone = await http.post("/api/dev/workspaces/1/members", json={"username": "carol", "role": None}, headers=BEARER)
    assert "carol" not in gone.json()["members"]


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        ("workspaces/9/members", {"username": "bob", "role": "view"}, 404),
        ("workspaces/1/members", {"username": "nobody", "role": "view"}, 400),
        ("workspaces/1/members", {"username": "bob", "role": "king"}, 400),
        ("workspaces/1/members", {"username": ["bob"], "role": "view"}, 400),
        (f"sessions/{SHARED}", {"private": "yes"}, 400),
        (f"sessions/{SHARED}", {"guest": "nobody"}, 400),
        (f"sessions/{SHARED}", {"guest": ["bob"]}, 400),
        (f"sessions/{SHARED}", {"ends_in": "soon"}, 400),
        ("sessions/00000000", {}, 404),
        ("users/nobody/ssh-keys", {"key": line()}, 404),
        ("users/bob/ssh-keys", {"key": 1}, 400),
    ],
)
async def test_development_calls_refuse_what_makes_no_sense(
    http: httpx2.AsyncClient, path: str, document: dict[str, object], status: int
) -> None:
    assert (await http.post(f"/api/dev/{path}", json=document, headers=BEARER)).status_code == status
    assert (await http.post(f"/api/dev/{path}", json=document)).status_code == 401
