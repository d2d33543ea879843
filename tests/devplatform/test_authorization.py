"""Authorization and login pages: who gets a code, who gets a page, and where nobody is sent."""

from __future__ import annotations

import re
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest

from tests.support.platform import (
    RunningPlatform,
    authorization_query,
    log_in,
    login_code,
    parameters,
    post_login,
    redeem,
    register,
)


async def test_the_login_form_has_the_agreed_fields_and_names_the_users(http: httpx2.AsyncClient) -> None:
    client = await register(http, client_name="<b>app</b>")
    page = await http.get("/api/authorize", params=authorization_query(client), follow_redirects=True)
    assert '<input name="username"' in page.text
    assert '<input name="password" type="password"' in page.text
    assert "<code>alice</code>" in page.text
    assert "<code>bob</code>" in page.text
    assert "&lt;b&gt;app&lt;/b&gt;" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_a_login_returns_code_state_and_issuer_to_the_registered_address(
    platform: RunningPlatform, http: httpx2.AsyncClient
) -> None:
    client = await register(http)
    answer = await log_in(http, "alice", **authorization_query(client))
    location = answer.headers["location"]
    assert location.startswith("https://app.example/cb?")
    values = parameters(location)
    assert values["state"] == "state-1"
    assert values["iss"] == platform.issuer
    assert values["code"]


async def test_who_is_logged_in_at_platform_gets_a_code_without_a_page(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    await login_code(http, client)
    answer = await http.get("/api/authorize", params=authorization_query(client, prompt="none"))
    assert "code" in parameters(answer.headers["location"])
    asked_again = await http.get("/api/authorize", params=authorization_query(client, prompt="login"))
    assert asked_again.headers["location"].startswith("/login?request=")


async def test_a_silent_login_is_for_whom_the_client_means(http: httpx2.AsyncClient) -> None:
    """OpenID Connect Core 3.1.2.1: prompt, id_token_hint, max_age."""
    client = await register(http)
    tokens = (await redeem(http, client, await login_code(http, client))).json()

    async def silently(**changes: str) -> dict[str, str]:
        answer = await http.get("/api/authorize", params=authorization_query(client, prompt="none", **changes))
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("https://app.example/cb?"), "no page, whatever comes"
        return parameters(answer.headers["location"])

    assert "code" in await silently(id_token_hint=tokens["id_token"], max_age="3600")
    assert (await silently(max_age="x"))["error"] == "invalid_request"
    assert (await silently(id_token_hint="no token"))["error"] == "login_required"
    page = await http.get("/login", follow_redirects=True)
    await post_login(http, page, "bob")
    assert (await silently(id_token_hint=tokens["id_token"]))["error"] == "login_required"
    assert "code" in await silently()


async def test_a_login_that_is_too_old_is_asked_for_again(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    await login_code(http, client)
    query = authorization_query(client, max_age="0")
    asked = await http.get("/api/authorize", params=query)
    assert asked.headers["location"].startswith("/login?request=")
    silent = await http.get("/api/authorize", params={**query, "prompt": "none"})
    assert parameters(silent.headers["location"])["error"] == "login_required"


@pytest.mark.parametrize("prompt", ["none login", "login none", "nonsense", "NONE"])
async def test_a_prompt_that_contradicts_itself_is_refused(http: httpx2.AsyncClient, prompt: str) -> None:
    client = await register(http)
    await login_code(http, client)
    answer = await http.get("/api/authorize", params=authorization_query(client, prompt=prompt))
    assert parameters(answer.headers["location"])["error"] == "invalid_request"


async def test_a_page_of_platforms_shows_a_studio_and_lets_its_login_pass(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/sessions/23ce7967")).headers["location"] == "/login"
    await log_in(http, "alice")
    page = await http.get("/sessions/23ce7967")
    assert '<iframe src="http://a23ce7967.connect.localhost:8080/"' in page.text
    policy = page.headers["content-security-policy"]
    assert "frame-src http://a23ce7967.connect.localhost:8080 http://connect.localhost:8080 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (await http.get("/sessions/00000000")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"state": "s" * 1025}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_a_wrong_request_is_answered_to_the_client(
    http: httpx2.AsyncClient, changes: dict[str, str | None], error: str
) -> None:
    client = await register(http)
    answer = await http.get("/api/authorize", params=authorization_query(client, **changes))
    assert answer.status_code == 302
    assert parameters(answer.headers["location"])["error"] == error


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://evil.example/cb",
        "https://app.example/cb/",
        "https://app.example/cb?x=1",
        "https://app.example/CB",
        "https://app.example@evil.example/cb",
        None,
    ],
)
async def test_nobody_is_sent_to_an_address_that_is_not_registered(
    http: httpx2.AsyncClient, redirect_uri: str | None
) -> None:
    client = await register(http)
    answer = await http.get("/api/authorize", params=authorization_query(client, redirect_uri=redirect_uri))
    assert answer.status_code == 400
    assert "location" not in answer.headers


async def test_an_unknown_client_gets_a_page_not_a_redirect(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/api/authorize", params=authorization_query({"client_id": "nobody"}))
    assert answer.status_code == 400
    assert "location" not in answer.headers


async def test_a_repeated_parameter_is_refused(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    query = urlencode(authorization_query(client)) + "&redirect_uri=https://evil.example/"
    assert (await http.get(f"/api/authorize?{query}")).status_code == 400


async def test_a_wrong_password_shows_the_form_again_and_ten_of_them_end_the_login(http: httpx2.AsyncClient) -> None:
    page = await http.get("/login", follow_redirects=True)
    for _ in range(10):
        answer = await http.post(page.url, data={"username": "alice", "password": "<guess>"})
        assert answer.status_code == 401
        assert "Wrong user name or password." in answer.text
    assert (await post_login(http, page, "alice")).status_code == 400


async def test_a_login_form_that_another_browser_fetched_is_refused(
    platform: RunningPlatform, http: httpx2.AsyncClient
) -> None:
    page = await http.get("/login", follow_redirects=True)
    async with platform.browser() as victim:
        answer = await post_login(victim, page, "alice")
        assert answer.status_code == 400
        assert "devplatform_session" not in victim.cookies


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}]
)
async def test_a_login_form_from_elsewhere_is_refused(http: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    page = await http.get("/login", follow_redirects=True)
    answer = await http.post(page.url, data={"username": "alice", "password": "alice"}, headers=headers)
    assert answer.status_code == 400


async def test_the_cookie_changes_at_login(http: httpx2.AsyncClient) -> None:
    await log_in(http, "alice")
    first = http.cookies["devplatform_session"]
    page = await http.get("/login", follow_redirects=True)
    answer = await post_login(http, page, "bob")
    assert http.cookies["devplatform_session"] != first
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "domain=" not in cookie


async def test_a_request_for_a_host_that_is_not_ours_is_refused(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/login", headers={"host": "rebound.example"})).status_code == 400


async def test_a_client_that_knows_its_user_logs_the_user_out_at_once(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    tokens = (await redeem(http, client, await login_code(http, client))).json()
    query = {
        "id_token_hint": tokens["id_token"],
        "post_logout_redirect_uri": "https://app.example/bye",
        "state": "s",
    }
    answer = await http.get("/api/end-session", params=query)
    assert answer.headers["location"] == "https://app.example/bye?state=s"
    assert (await http.get("/")).headers["location"] == "/login"


async def test_a_logout_that_proves_nothing_asks_first(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    await login_code(http, client)
    query = {"client_id": client["client_id"], "post_logout_redirect_uri": "https://app.example/bye", "state": "s"}
    page = await http.get("/api/end-session", params=query)
    assert "Log out?" in page.text
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    forged = await http.post("/logout", data={**fields, "form_token": "guess"})
    assert forged.status_code == 403
    answer = await http.post("/logout", data=fields)
    assert answer.headers["location"] == "https://app.example/bye?state=s"
    assert (await http.get("/")).headers["location"] == "/login"


async def test_a_logout_sends_nobody_to_an_unregistered_address(http: httpx2.AsyncClient) -> None:
    client = await register(http)
    query = {"client_id": client["client_id"], "post_logout_redirect_uri": "https://evil.example/"}
    answer = await http.get("/api/end-session", params=query)
    assert "location" not in answer.headers
    assert "You are logged out" in answer.text


async def test_parked_logins_are_bounded(http: httpx2.AsyncClient) -> None:
    first = await http.get("/login", follow_redirects=True)
    for _ in range(1000):
        await http.get("/login")
    assert (await http.get(urlsplit(str(first.url)).path + "?" + first.url.query.decode())).status_code == 400
