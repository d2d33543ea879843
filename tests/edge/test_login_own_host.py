"""Callbacks, return targets and the pages of Connect itself."""

from __future__ import annotations

import pytest

from connect_trio.edge.gate import Reply
from tests.support.login import (
    NAMES,
    OWN,
    OWN_HOST,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    error_code,
    logged_in,
    platform,
    proxy,
)
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, parameters
from tests.support.visitor import HTML, Browser, visitor_request

__all__ = ["platform", "proxy"]


async def test_a_callback_works_once(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{OWN}/_connect/login")
    page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    jar = dict(browser.cookies[OWN_HOST])
    callback = page.location
    await browser.open(callback)
    browser.cookies[OWN_HOST] = jar
    assert (await browser.request("GET", callback)).status == 400


async def test_a_state_works_once_whatever_came_of_it(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{OWN}/_connect/login")
    page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    state = parameters(page.location)["state"]
    refused = await browser.request("GET", f"{OWN}/_connect/callback?state={state}&error=access_denied")
    assert refused.status == 400
    assert (await browser.request("GET", page.location)).status == 400, "though its code is good"
    assert "connect_login" not in browser.cookies[OWN_HOST]


async def test_a_scope_that_platform_refuses_costs_its_login_one_more_redirect(proxy: Proxy) -> None:
    browser = proxy.browser()
    begun = await browser.request("GET", f"{OWN}/_connect/login?to=a{SHARED}")
    asked = parameters(begun.location)
    assert "offline_access" in asked["scope"]
    refusal = f"{OWN}/_connect/callback?error=invalid_scope&state="
    again = await browser.request("GET", refusal + asked["state"])
    asked = parameters(again.location)
    assert asked["scope"] == "openid profile"
    stopped = await browser.request("GET", refusal + asked["state"])
    assert (stopped.status, "invalid_scope" in stopped.text) == (400, True), "and it does not go round"


async def test_a_refused_scope_is_nobody_elses_business(proxy: Proxy) -> None:
    """Anybody can write a refusal into the address of a login of their own."""
    stranger = proxy.browser()
    begun = await stranger.request("GET", f"{OWN}/_connect/login")
    state = parameters(begun.location)["state"]
    await stranger.request("GET", f"{OWN}/_connect/callback?error=invalid_scope&state={state}")
    page = await proxy.browser().request("GET", f"{OWN}/_connect/login")
    assert "offline_access" in parameters(page.location)["scope"]


@pytest.mark.parametrize(
    "change",
    [
        ("code=", "code=x"),
        ("state=", "state=x"),
        ("state=", "s="),
        ("code=", "c="),
        ("iss=", "iss=x"),
        ("iss=", "i="),
        ("&", "&code=second&"),
    ],
    ids=["wrong code", "wrong state", "no state", "no code", "wrong issuer", "no issuer", "two codes"],
)
async def test_a_changed_callback_logs_nobody_in(proxy: Proxy, change: tuple[str, str]) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{OWN}/_connect/login")
    page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    page = await browser.request("GET", page.location.replace(*change, 1))
    assert page.status == 400
    assert "connect_login" not in browser.cookies[OWN_HOST]


async def test_platforms_refusal_is_shown_as_text(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.request("GET", f"{OWN}/_connect/login?to=a{SHARED}")
    state = parameters(page.location)["state"]
    page = await browser.request(
        "GET", f"{OWN}/_connect/callback?state={state}&error=access_denied&error_description=%3Cb%3E" + "x" * 999
    )
    assert page.status == 400
    assert "access_denied" in page.text
    assert "<b>" not in page.text
    assert "x" * 300 not in page.text


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/lab?x=1&y=%2F", "/lab?x=1&y=%2F"),
        ("/a//b", "/a//b"),
        ("//evil.example/", "/"),
        ("///evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("/lab\\..", "/"),
        ("/\t/evil.example", "/"),
        ("/\x00", "/"),
        ("/%2F%2Fevil.example", "/%2F%2Fevil.example"),
        ("/%5Cevil.example", "/%5Cevil.example"),
        ("/@evil.example", "/@evil.example"),
        ("/é", "/"),
        ("/_connect/logout", "/"),
        ("/" + "x" * 3000, "/"),
    ],
)
async def test_a_login_returns_to_the_same_host_only(proxy: Proxy, target: str, path: str) -> None:
    browser = await logged_in(proxy)
    answer = await proxy.gate.admit(visitor_request(NAMES, f"{SHARED_HOST}:8080", target, headers=HTML))
    assert isinstance(answer, Reply)
    (location,) = (value.decode() for name, value in answer.headers if name == b"Location")
    assert location.startswith(f"{OWN}/_connect/login?to=a{SHARED}&ticket=")
    (cookie,) = (value.decode() for name, value in answer.headers if name == b"Set-Cookie")
    browser.cookies[SHARED_HOST] = dict([cookie.split(";")[0].split("=", 1)])
    page = await browser.open(location)
    assert page.url == SHARED_URL + path


@pytest.mark.parametrize(
    "to",
    ["evil.example", "//evil.example", "a23ce7967.evil.example", "a23ce7967@evil.example", "A23CE7967", "a23ce7967%0a"],
)
async def test_a_login_leads_to_studios_only(proxy: Proxy, to: str) -> None:
    browser = await logged_in(proxy)
    page = await browser.request("GET", f"{OWN}/_connect/login?to={to}")
    assert page.location == f"{OWN}/"


async def test_a_ticket_of_one_studio_does_not_lead_into_another(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    page = await browser.request("GET", page.location.replace(SHARED, PRIVATE))
    assert page.location == f"{PRIVATE_URL}/"


async def test_the_front_page_says_who_is_there(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{OWN}/")
    assert "not logged in" in page.text
    assert f'href="{platform.url}/"' in page.text
    page = await browser.log_in(f"{OWN}/_connect/login", "alice")
    assert page.url == f"{OWN}/"
    assert "logged in as alice" in page.text


async def test_pages_run_no_scripts_and_fit_in_no_frame(proxy: Proxy) -> None:
    page = await proxy.browser().open(f"{OWN}/")
    policy = page.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.header("cache-control") == "no-store"


async def test_what_is_no_page_of_connect_is_left_to_the_edge(proxy: Proxy) -> None:
    for authority, target in (
        (f"{SHARED_HOST}:8080", "/_connect/callback?code=1&state=2"),
        (f"{SHARED_HOST}:8080", "/_connect/login"),
        (f"{SHARED_HOST}:8080", "/_connect/"),
        ("connect.localhost:8080", "/_connect/transfer"),
        ("connect.localhost:8080", "/lab"),
    ):
        assert await proxy.gate.own_page(visitor_request(NAMES, authority, target)) is None


@pytest.mark.parametrize(("method", "target"), [("POST", "/_connect/callback"), ("HEAD", "/_connect/login")])
async def test_pages_that_do_something_answer_to_their_method_only(proxy: Proxy, method: str, target: str) -> None:
    answer = await proxy.gate.own_page(visitor_request(NAMES, "connect.localhost:8080", target, method=method))
    assert answer is not None
    assert answer.status == 405
    assert (b"Allow", b"GET") in answer.headers


async def test_logins_without_end_are_refused_per_address(proxy: Proxy) -> None:
    browser = proxy.browser()
    statuses = {(await browser.request("GET", f"{SHARED_URL}/")).status for _ in range(310)}
    assert statuses == {302, 429}
    neighbour = Browser(proxy.gate, names=NAMES, client="192.0.2.2")
    assert (await neighbour.request("GET", f"{SHARED_URL}/")).status == 302
    proxy.clock.offset += 10
    assert (await browser.request("GET", f"{SHARED_URL}/")).status == 302


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_a_sibling_studio_cannot_change_anything_with_a_visitors_cookie(proxy: Proxy, site: str) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    headers = {"sec-fetch-site": site}
    page = await browser.request("POST", f"{SHARED_URL}/api", headers=headers, html=False)
    assert (page.status, error_code(page)) == (403, "foreign_page")
    for method, ours in (("GET", headers), ("POST", {"sec-fetch-site": "same-origin"}), ("POST", {})):
        page = await browser.request(method, f"{SHARED_URL}/api", headers=ours, html=False)
        assert page.admission is not None
