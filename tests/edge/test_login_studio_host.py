"""Transfers: how a login on Connect's own host becomes a session on a Studio's."""

from __future__ import annotations

import trio

from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.names import HostNames
from tests.support.login import (
    OWN,
    OWN_HOST,
    PRIVATE_HOST,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    logged_in,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import PRIVATE, SHARED, RunningPlatform
from tests.support.visitor import Browser

__all__ = ["platform", "proxy"]


async def _transfer(browser: Browser) -> str:
    """The address of a transfer that is about to be visited, for a browser that is logged in."""
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    page = await browser.request("GET", page.location)
    assert "/_connect/transfer?code=" in page.location
    return page.location


async def test_a_transfer_works_once(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    url = await _transfer(browser)
    nonce = browser.cookies[SHARED_HOST]["connect_nonce"]
    assert (await browser.open(url)).admission is not None
    browser.cookies[SHARED_HOST] = {"connect_nonce": nonce}
    page = await browser.request("GET", url)
    assert page.status == 400
    assert not page.set_cookies()


async def test_a_transfer_lasts_half_a_minute(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    url = await _transfer(browser)
    assert isinstance(proxy.store, MemoryStore)
    proxy.store._clock = lambda: trio.current_time() + 31
    assert (await browser.request("GET", url)).status == 400


async def test_a_transfer_is_of_no_use_to_another_browser_or_host(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    thief = proxy.browser()
    await thief.request("GET", f"{SHARED_URL}/lab")
    page = await thief.request("GET", await _transfer(browser))
    assert not any(line.startswith("connect_session=") for line in page.set_cookies())
    url = (await _transfer(browser)).replace(SHARED, PRIVATE)
    browser.cookies[PRIVATE_HOST] = browser.cookies[SHARED_HOST]
    page = await browser.request("GET", url)
    assert page.status == 400
    assert not page.set_cookies()


async def test_an_attackers_transfer_logs_no_victim_in(proxy: Proxy) -> None:
    attacker, victim = await logged_in(proxy, "bob"), proxy.browser()
    page = await victim.request("GET", await _transfer(attacker))
    assert page.status == 400
    assert "connect_session" not in victim.cookies[SHARED_HOST]


async def test_an_attackers_callback_logs_no_victim_in(proxy: Proxy) -> None:
    attacker, victim = proxy.browser(), proxy.browser()
    page = await attacker.open(f"{OWN}/_connect/login")
    page = await attacker.request("POST", page.url, form={"username": "bob", "password": "bob"})
    answer = await victim.request("GET", page.location)
    assert answer.status == 400
    assert "connect_login" not in victim.cookies[OWN_HOST]


async def test_studios_under_a_domain_of_their_own_are_entered_from_connects_host(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url, domain="studios.localhost") as proxy:
        browser = Browser(proxy.gate, names=HostNames(OWN, "studios.localhost"))
        host = f"a{SHARED}.studios.localhost"
        page = await browser.log_in(f"http://{host}:8080/lab", "alice")
        assert page.admission is not None
        assert page.url == f"http://{host}:8080/lab"
        assert set(browser.cookies[host]) == {"connect_session", "connect_nonce"}
        assert set(browser.cookies[OWN_HOST]) == {"connect_login"}
        page = await browser.log_out(f"http://{host}:8080/_connect/logout")
        assert page.url == f"{OWN}/"
