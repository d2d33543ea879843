"""Cookies: narrow, read strictly, and no circles without them."""

from __future__ import annotations

import pytest

from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.names import HostNames
from tests.support.login import (
    OWN,
    OWN_HOST,
    PRIVATE_HOST,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import SHARED, RunningPlatform
from tests.support.visitor import Browser

__all__ = ["platform", "proxy"]


async def test_cookies_are_host_only_and_hidden_from_scripts(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{SHARED_URL}/")
    page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    seen = {}
    while page.status in (302, 303):
        page = await browser.request("GET", page.location)
        for line in page.set_cookies():
            seen[line.partition("=")[0]] = line
    for name in ("connect_session", "connect_login", "connect_nonce"):
        attributes = {part.strip().lower() for part in seen[name].split(";")[1:]}
        assert {"httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(part.startswith("domain") for part in attributes)
    assert "connect_session" not in browser.cookies[OWN_HOST]
    assert "connect_login" not in browser.cookies[SHARED_HOST]


async def test_over_https_cookies_are_secure_and_prefixed(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url, proxy_url="https://connect.example") as proxy:
        names = HostNames("https://connect.example")
        browser = Browser(proxy.gate, names=names)
        page = await browser.log_in(f"https://a{SHARED}.connect.example/", "alice")
        assert page.admission is not None
        assert page.admission.strip_cookies >= {b"__Host-connect_session", b"__Host-connect_nonce"}
        assert set(browser.cookies[f"a{SHARED}.connect.example"]) == {"__Host-connect_session", "__Host-connect_nonce"}
        page = await browser.request("GET", "https://connect.example/_connect/logout")
        page = await browser.request("POST", page.url, headers={"origin": "https://connect.example"})
        assert all("Secure" in line for line in page.set_cookies())
        plain = {"connect_session": browser.cookies[f"a{SHARED}.connect.example"].pop("__Host-connect_session")}
        browser.cookies[f"a{SHARED}.connect.example"] = plain
        page = await browser.request("GET", f"https://a{SHARED}.connect.example/", html=False)
        assert page.status == 401


async def test_our_cookies_never_reach_the_tool(proxy: Proxy) -> None:
    page = await proxy.browser().log_in(f"{SHARED_URL}/", "alice")
    assert page.admission is not None
    for name in (b"connect_session", b"connect_login", b"connect_nonce", b"connect_prelogin"):
        assert name in page.admission.strip_cookies
        assert b"__Host-" + name in page.admission.strip_cookies


async def test_a_cookie_that_occurs_twice_counts_as_absent(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    browser.extra_cookies = f"connect_session={'x' * 43}"
    page = await browser.request("GET", f"{SHARED_URL}/", html=False)
    assert page.status == 401


async def test_a_cookie_of_one_studio_opens_no_other(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    stolen = browser.cookies[SHARED_HOST]["connect_session"]
    for host in (PRIVATE_HOST, OWN_HOST):
        thief = proxy.browser()
        thief.cookies[host] = {"connect_session": stolen, "connect_login": stolen}
        page = await thief.request("GET", f"http://{host}:8080/", html=False)
        assert page.admission is None
        assert "alice" not in page.text


@pytest.mark.parametrize("value", ["", "x", "x" * 42, "x" * 44, "x" * 43, "'" * 43, "é" * 43, "x" * 5000])
async def test_a_made_up_cookie_is_no_session(proxy: Proxy, value: str) -> None:
    browser = proxy.browser()
    browser.extra_cookies = f"connect_session={value}"
    assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).status == 401


async def test_a_session_id_known_before_the_login_is_worth_nothing_after_it(proxy: Proxy) -> None:
    fixed = "f" * 43
    browser, attacker = proxy.browser(), proxy.browser()
    for profile in (browser, attacker):
        profile.cookies[OWN_HOST] = {"connect_login": fixed}
        profile.cookies[SHARED_HOST] = {"connect_session": fixed}
    assert (await browser.log_in(f"{SHARED_URL}/", "alice")).admission is not None
    assert browser.cookies[SHARED_HOST]["connect_session"] != fixed
    assert browser.cookies[OWN_HOST]["connect_login"] != fixed
    assert (await attacker.request("GET", f"{SHARED_URL}/", html=False)).status == 401


async def test_secrets_are_not_in_the_store(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    assert isinstance(proxy.store, MemoryStore)
    content = repr(proxy.store._entries)
    for host in (SHARED_HOST, OWN_HOST):
        for name, value in browser.cookies[host].items():
            assert value.partition(".")[0] not in content, name


async def test_a_browser_without_cookies_is_told_so(proxy: Proxy) -> None:
    browser = proxy.browser()
    browser.refuses_cookies = {SHARED_HOST, OWN_HOST}
    page = await browser.log_in(f"{SHARED_URL}/", "alice")
    assert page.status == 400
    assert "cookies" in page.text


async def test_a_browser_without_cookies_on_the_studio_only_is_told_so(proxy: Proxy) -> None:
    browser = proxy.browser()
    browser.refuses_cookies = {SHARED_HOST}
    page = await browser.log_in(f"{SHARED_URL}/", "alice")
    assert page.status == 400
    assert "does not send Connect" in page.text


async def test_a_tossed_cookie_does_not_send_a_browser_in_circles(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{OWN}/_connect/login", "alice")
    browser.extra_cookies = f"connect_session={'t' * 43}"
    page = await browser.open(f"{SHARED_URL}/")
    assert page.status == 400
    assert "delete this site" in page.text
    browser.extra_cookies = ""
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None


async def test_tabs_that_open_together_all_come_in(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{OWN}/_connect/login", "alice")
    starts = []
    for name in "abc":  # none of them has a cookie yet
        browser.cookies.pop(SHARED_HOST, None)
        starts.append(await browser.request("GET", f"{SHARED_URL}/{name}"))
    ends = [await browser.follow(page) for page in starts]
    assert [page.url for page in ends if page.admission] == [f"{SHARED_URL}/{name}" for name in "abc"]


async def test_tabs_that_wait_at_the_login_together_all_come_in(proxy: Proxy) -> None:
    browser = proxy.browser()
    pages = [await browser.open(f"{SHARED_URL}/{name}") for name in "ab"]
    form = {"username": "alice", "password": "alice"}
    ends = [await browser.follow(await browser.request("POST", page.url, form=form)) for page in pages]
    assert [page.url for page in ends if page.admission] == [f"{SHARED_URL}/{name}" for name in "ab"]
