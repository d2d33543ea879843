"""Logins inside other pages: without a word or not at all, and never in circles."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.login_frames import in_frame, is_framed_by_stranger
from tests.support.login import (
    NAMES,
    OWN,
    OWN_HOST,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    logged_in,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, parameters
from tests.support.visitor import HTML, Browser, Page, visitor_request

__all__ = ["platform", "proxy"]

PORTAL = "https://portal.example"
SAME_SITE = {"sec-fetch-dest": "iframe", "sec-fetch-site": "same-site"}
CROSS_SITE = {"sec-fetch-dest": "iframe", "sec-fetch-site": "cross-site"}


def framed(proxy: Proxy, headers: dict[str, str], browser: Browser | None = None) -> Browser:
    """A browser that shows in a frame whatever it opens from now on."""
    browser = browser or proxy.browser()
    browser.always = headers
    browser.ancestors = f"'self' {PORTAL}".encode()
    return browser


def buttons(page: Page) -> list[str]:
    """Where the page's button leads, after a look at what else makes such a page."""
    assert page.status == 401, page
    assert "Open this Studio in a window of its own" in page.text
    assert (page.header("content-security-policy") or "").endswith(f"; frame-ancestors 'self' {PORTAL}")
    assert page.header("x-frame-options") is None
    marked = [part for part in page.text.split("<a ")[1:] if 'class="button" target="_blank" rel="noopener"' in part]
    return [part.split('"')[1] for part in marked]


async def test_who_is_logged_in_at_connect_gets_in_without_a_word(proxy: Proxy) -> None:
    browser = framed(proxy, SAME_SITE, await logged_in(proxy))
    page = await browser.open(f"{SHARED_URL}/lab?x=1")
    assert page.admission is not None
    assert page.url == f"{SHARED_URL}/lab?x=1"


async def test_who_is_logged_in_at_platform_gets_in_without_a_word(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = await logged_in(proxy)
    browser.cookies = {host: jar for host, jar in browser.cookies.items() if host in platform.url}
    page = await framed(proxy, SAME_SITE, browser).open(f"{SHARED_URL}/lab")
    assert page.admission is not None
    asked = next(url for url in browser.trail if "/api/authorize" in url and "prompt=" in url)
    assert parameters(asked.removeprefix("GET "))["prompt"] == "none"


async def test_who_is_logged_in_nowhere_gets_a_button_that_leads_to_the_same_place(proxy: Proxy) -> None:
    browser = framed(proxy, SAME_SITE)
    page = await browser.open(f"{SHARED_URL}/lab?x=1")
    assert buttons(page) == [f"{SHARED_URL}/lab?x=1"]
    assert "You are not logged in" in page.text
    assert not any("/login?" in url and "_connect" not in url for url in browser.trail), "no login page in a frame"
    browser.always = {}
    page = await browser.log_in(f"{SHARED_URL}/lab?x=1", "alice")
    assert page.admission is not None
    page = await framed(proxy, SAME_SITE, browser).open(f"{SHARED_URL}/lab?x=1")
    assert page.admission is not None, "and the frame works from then on"


@pytest.mark.parametrize("destination", ["iframe", "frame", "embed", "object"])
async def test_a_frame_of_another_site_gets_the_button_at_once(proxy: Proxy, destination: str) -> None:
    browser = framed(proxy, {"sec-fetch-dest": destination, "sec-fetch-site": "cross-site"})
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    assert buttons(page) == [f"{SHARED_URL}/lab"]
    assert "another site" in page.text
    assert "Try again here" not in page.text
    assert not page.set_cookies()


async def test_a_page_that_may_not_show_a_studio_causes_no_login(proxy: Proxy) -> None:
    browser = framed(
        proxy, {**SAME_SITE, "referer": "http://a00000001.connect.localhost:8080/"}, await logged_in(proxy)
    )
    assert buttons(await browser.request("GET", f"{SHARED_URL}/")) == [f"{SHARED_URL}/"]
    browser.always["referer"] = f"{PORTAL}/studios"
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None


async def test_a_window_goes_to_the_login_page_as_ever(proxy: Proxy) -> None:
    for headers in ({}, {"sec-fetch-dest": "document", "sec-fetch-site": "cross-site"}):
        page = await framed(proxy, headers).open(f"{SHARED_URL}/")
        assert 'name="password"' in page.text


async def test_who_is_not_a_page_is_told_so_as_ever(proxy: Proxy) -> None:
    page = await framed(proxy, CROSS_SITE).request("GET", f"{SHARED_URL}/api", html=False)
    assert (page.status, page.header("content-type")) == (401, "application/json")


@pytest.mark.parametrize("refusing", [{SHARED_HOST}, {OWN_HOST}, {SHARED_HOST, OWN_HOST}])
@pytest.mark.parametrize("at_platform", [False, True])
async def test_a_frame_without_cookies_ends_at_the_button(
    proxy: Proxy, platform: RunningPlatform, refusing: set[str], at_platform: bool
) -> None:
    browser = proxy.browser()
    if at_platform:
        browser = await logged_in(proxy)
        browser.cookies = {host: jar for host, jar in browser.cookies.items() if host in platform.url}
    browser.refuses_cookies = refusing
    page = await framed(proxy, SAME_SITE, browser).open(f"{SHARED_URL}/lab")
    assert len(buttons(page)) == 1
    assert sum("/_connect/login" in url for url in browser.trail) <= 3


async def test_a_frame_whose_session_cookie_was_tossed_ends_at_the_button(proxy: Proxy) -> None:
    """The breaker holds in frames: the browser's count of transfers that led nowhere ends them."""
    browser = framed(proxy, SAME_SITE, await logged_in(proxy))
    browser.extra_cookies = f"connect_session={'t' * 43}"
    page = await browser.open(f"{SHARED_URL}/lab")
    assert buttons(page) == [f"{SHARED_URL}/lab"]
    assert "does not send Connect" in page.text
    assert sum("/_connect/transfer" in url for url in browser.trail) <= 5
    browser.extra_cookies = ""
    assert (await browser.open(f"{SHARED_URL}/lab")).admission is not None


async def test_a_login_that_crosses_sites_on_its_way_ends_at_the_button(proxy: Proxy) -> None:
    """Connect's own host can be of another site than Studios: then its cookies stay away, and Platform is not asked."""
    browser = framed(proxy, SAME_SITE)
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    browser.always = CROSS_SITE
    page = await browser.request("GET", page.location)
    assert page.location.startswith(f"{SHARED_URL}/_connect/window?why=site&ticket=")
    assert buttons(await browser.request("GET", page.location)) == [f"{SHARED_URL}/lab"]


async def test_a_platform_that_is_away_is_told_of_in_the_frame(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = framed(proxy, SAME_SITE)
    await platform.stop()
    page = await browser.open(f"{SHARED_URL}/lab")
    assert buttons(page) == [f"{SHARED_URL}/lab"]
    assert "Platform could not be asked" in page.text


async def test_a_platform_that_goes_away_during_a_login_is_told_of_in_the_frame(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url) as proxy:
        browser = await logged_in(proxy)
        browser.cookies.pop(OWN_HOST)
        page = await framed(proxy, SAME_SITE, browser).request("GET", f"{SHARED_URL}/lab")
        for _ in range(2):
            page = await browser.request("GET", page.location)
        assert "/_connect/callback?code=" in page.location
        await platform.stop()
        assert buttons(await browser.open(page.location)) == [f"{SHARED_URL}/lab"]


async def test_the_page_with_the_button_is_no_page_of_its_own(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.request("GET", f"{SHARED_URL}/lab")
    ticket = parameters(page.location)["ticket"]
    url = f"{SHARED_URL}/_connect/window?why=login&ticket={ticket}"
    assert (await browser.request("GET", url)).location == f"{SHARED_URL}/lab"
    stranger = framed(proxy, SAME_SITE)
    assert buttons(await stranger.request("GET", url)) == [f"{SHARED_URL}/"], "a ticket is its browser's"
    other = proxy.browser()
    await other.request("GET", f"{SHARED_URL}/")
    assert (await other.request("GET", url)).location == f"{SHARED_URL}/", "and another one's nonce is not its own"
    assert (await browser.request("GET", url.replace(SHARED, PRIVATE))).location == f"{PRIVATE_URL}/"
    for query in ("", "?why=%3Cb%3E&ticket=x", f"?ticket={ticket}x", "?ticket=a&ticket=b"):
        page = await stranger.request("GET", f"{SHARED_URL}/_connect/window{query}")
        assert buttons(page) == [f"{SHARED_URL}/"]
        assert "<b>" not in page.text


async def test_no_page_of_connects_own_host_is_in_a_frame(proxy: Proxy) -> None:
    browser = framed(proxy, SAME_SITE, await logged_in(proxy))
    for path in ("/", "/_connect/logout", "/_connect/callback", "/_connect/callback?state=x&code=y"):
        page = await browser.request("GET", f"{OWN}{path}")
        if page.status != 302:
            assert (page.header("content-security-policy") or "").endswith("; frame-ancestors 'none'"), path
            assert page.header("x-frame-options") == "DENY"


async def test_no_page_about_logging_out_is_in_a_frame(proxy: Proxy) -> None:
    browser = framed(proxy, SAME_SITE, await logged_in(proxy))
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None
    asked = await browser.request("GET", f"{SHARED_URL}/_connect/logout")
    refused = await browser.request("POST", f"{SHARED_URL}/_connect/logout")
    browser.cookies.pop(SHARED_HOST)
    done = await browser.request("GET", f"{SHARED_URL}/_connect/logout")
    for page, title in ((asked, "Log out?"), (refused, "Not logged out"), (done, "Logged out")):
        assert title in page.text
        assert (page.header("content-security-policy") or "").endswith("; frame-ancestors 'none'")


async def test_a_refusal_may_be_seen_in_the_frame(proxy: Proxy) -> None:
    browser = framed(proxy, SAME_SITE, await logged_in(proxy, "bob"))
    page = await browser.open(f"http://a{'0' * 8}.connect.localhost:8080/")
    assert "There is no such Studio" in page.text
    assert (page.header("content-security-policy") or "").endswith(f"; frame-ancestors 'self' {PORTAL}")
    assert '/" target="_top">Your Studios at Platform' in page.text, "where Platform would not show"
    browser.always = {}
    assert "_top" not in (await browser.open(page.url)).text


REFERERS = st.one_of(
    st.text(st.characters(max_codepoint=255)),
    st.lists(
        st.sampled_from([PORTAL, SHARED_URL, "http://", "evil.example", "@", "/", "\\", "#", "?", ".", ":", "[", "\t"])
    ).map("".join),
)


@given(REFERERS)
def test_only_the_pages_that_may_are_no_strangers(referer: str) -> None:
    headers = {**HTML, **SAME_SITE}
    request = visitor_request(NAMES, f"{SHARED_HOST}:8080", "/", headers=headers, ancestors=f"'self' {PORTAL}".encode())
    line = ((b"referer", referer.encode("latin-1")),)
    stranger = is_framed_by_stranger(attrs.evolve(request, headers=request.headers + line), SHARED_URL)
    known = [origin for origin in (PORTAL, SHARED_URL) if referer.lower().lstrip().startswith(origin)]
    assert stranger or known


def test_a_frame_is_what_a_browser_calls_one() -> None:
    for value, expected in (("iframe", True), ("document", False), ("empty", False), ("", False), ("IFRAME", False)):
        request = visitor_request(NAMES, f"{SHARED_HOST}:8080", f"/{SHARED}", headers={"sec-fetch-dest": value})
        assert in_frame(request) is expected
    assert not in_frame(visitor_request(NAMES, f"{SHARED_HOST}:8080", "/"))
