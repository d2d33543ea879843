"""Logging out: everywhere, and by nobody but the visitor."""

from __future__ import annotations

import pytest

from connect_trio.routing.memory import MemoryStore
from tests.support.login import (
    OWN,
    PRIVATE_HOST,
    PRIVATE_URL,
    SHARED_URL,
    Proxy,
    logged_in,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import RunningPlatform

__all__ = ["platform", "proxy"]


async def test_a_logout_ends_every_session_and_the_login_at_platform(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    await browser.open(f"{SHARED_URL}/")
    await browser.open(f"{PRIVATE_URL}/")
    stolen = dict(browser.cookies[PRIVATE_HOST])
    assert "Log out?" in (await browser.open(f"{SHARED_URL}/_connect/logout")).text
    page = await browser.log_out(f"{SHARED_URL}/_connect/logout")
    assert page.url == f"{OWN}/"
    assert "not logged in" in page.text
    proxy.clock.offset += 3
    browser.cookies[PRIVATE_HOST] = stolen
    assert (await browser.request("GET", f"{PRIVATE_URL}/", html=False)).status == 401
    assert 'name="password"' in (await browser.open(f"{SHARED_URL}/")).text


async def test_a_logout_is_noticed_by_the_other_proxy_within_seconds(platform: RunningPlatform) -> None:
    store = MemoryStore()
    async with open_proxy(platform.url, store=store) as first, open_proxy(platform.url, store=store) as second:
        browser = first.browser()
        await browser.log_in(f"{SHARED_URL}/", "alice")
        browser.gate = second.gate
        assert (await browser.open(f"{SHARED_URL}/")).admission is not None
        jar = {host: dict(cookies) for host, cookies in browser.cookies.items()}
        browser.gate = first.gate
        await browser.log_out(f"{OWN}/_connect/logout")
        browser.gate, browser.cookies = second.gate, jar
        second.clock.offset += 3
        assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).status == 401


@pytest.mark.parametrize("url", [OWN, SHARED_URL])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": PRIVATE_URL},
        {"origin": "http://evil.example"},
        {"origin": "https://connect.localhost:8080"},
        {"sec-fetch-site": "same-site", "origin": OWN},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_no_other_page_logs_anybody_out(proxy: Proxy, url: str, headers: dict[str, str]) -> None:
    browser = await logged_in(proxy)
    await browser.open(f"{SHARED_URL}/")
    page = await browser.request("POST", f"{url}/_connect/logout", headers=headers)
    assert page.status == 403
    await browser.request("GET", f"{url}/_connect/logout", headers={"sec-fetch-dest": "image"})
    proxy.clock.offset += 3
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None


async def test_a_logout_works_while_platform_is_away(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = await logged_in(proxy)
    await browser.open(f"{SHARED_URL}/")
    await platform.stop()
    proxy.clock.offset += 4000
    page = await browser.request("POST", f"{SHARED_URL}/_connect/logout", headers={"origin": SHARED_URL})
    assert page.status == 303
    assert page.location.startswith(platform.url)
    assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).status == 401


async def test_who_is_not_logged_in_may_log_out(proxy: Proxy) -> None:
    browser = proxy.browser()
    for url in (OWN, SHARED_URL):
        assert "You are logged out" in (await browser.open(f"{url}/_connect/logout")).text
        assert "You are logged out" in (await browser.log_out(f"{url}/_connect/logout")).text
