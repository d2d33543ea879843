"""Pages of Connect's own below a Studio's path: what they lead to, whose they are, and what they leave alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.login import OWN, Proxy, logged_in, open_proxy
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, parameters, running_platform

STUDIO = f"{OWN}/_studio/a{SHARED}"
OTHER = f"{OWN}/_studio/a{PRIVATE}"
FRAMED = {
    "accept": "text/html",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "iframe",
    "sec-fetch-site": "same-origin",
}


@pytest.fixture
async def platform() -> AsyncIterator[RunningPlatform]:
    async with running_platform() as running:
        yield running


@pytest.fixture
async def proxy(platform: RunningPlatform) -> AsyncIterator[Proxy]:
    async with open_proxy(platform.url, paths=True) as opened:
        yield opened


async def test_the_one_page_to_log_out_is_outside_of_all_studios(proxy: Proxy) -> None:
    page = await proxy.browser().request("GET", f"{STUDIO}/_connect/logout")
    assert page.location == f"{OWN}/_connect/logout"
    assert (await proxy.browser().request("POST", f"{STUDIO}/_connect/logout")).status == 405


async def test_the_page_with_the_button_leads_the_browser_that_asked_to_where_it_wanted(proxy: Proxy) -> None:
    browser, stranger = proxy.browser(), proxy.browser()
    page = await browser.request("GET", f"{STUDIO}/lab")
    url = f"{STUDIO}/_connect/window?why=login&ticket={parameters(page.location)['ticket']}"
    assert (await browser.request("GET", url)).location == f"{STUDIO}/lab"
    assert f'href="{STUDIO}/lab"' in (await browser.request("GET", url, headers=FRAMED)).text
    assert (await stranger.request("GET", url)).location == f"{STUDIO}/"
    await stranger.request("GET", f"{STUDIO}/")
    assert (await stranger.request("GET", url)).location == f"{STUDIO}/", "a nonce of its own opens no other's ticket"
    await browser.request("GET", f"{OTHER}/")
    assert (await browser.request("GET", url.replace(SHARED, PRIVATE))).location == f"{OTHER}/"


async def test_a_login_that_ends_on_the_way_in_begins_anew_and_gives_no_cookie(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    reply = await proxy.gate._paths.open("0" * 64, f"a{SHARED}", "/lab")
    assert dict(reply.headers)[b"Location"] == f"{STUDIO}/lab".encode()
    assert not any(name == b"Set-Cookie" for name, _ in reply.headers)
    page = await browser.request("GET", f"{STUDIO}/lab")
    assert any(cookie.startswith("connect_studio=") for cookie in page.set_cookies()), "one that has not gets one"


async def test_logins_without_end_are_refused_below_paths_too(proxy: Proxy) -> None:
    statuses = [(await proxy.browser().request("GET", f"{STUDIO}/")).status for _ in range(320)]
    assert statuses[0] == 302
    assert statuses[-1] == 429
    other = proxy.browser()
    other.client = "192.0.2.99"
    assert (await other.request("GET", f"{STUDIO}/")).status == 302


async def test_cookies_of_one_studios_rounds_say_nothing_at_another(proxy: Proxy) -> None:
    browser = proxy.browser()
    for _ in range(3):
        page = await browser.request("GET", f"{STUDIO}/")
    assert page.status == 400
    assert (await browser.request("GET", f"{OTHER}/")).status == 302
