"""The gate below paths of Connect's own host: who comes in, by which cookies, and what one origin still keeps apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from connect_trio.routing.names import HostNames
from tests.support.login import OWN, OWN_HOST, SHARED_URL, Proxy, error_code, logged_in, open_proxy
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.visitor import HTML, Browser, Page

BASE = f"/_studio/a{SHARED}"
STUDIO = f"{OWN}{BASE}"
OTHER = f"{OWN}/_studio/a{PRIVATE}"
PROGRAM = {"accept": "application/json"}
# What Chromium sends with a page that somebody opens, and with a script's fetch.
OPENS = {**HTML, "sec-fetch-dest": "document"}
FETCHES = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "sec-fetch-site": "same-origin"}


@pytest.fixture
async def platform() -> AsyncIterator[RunningPlatform]:
    async with running_platform() as running:
        yield running


@pytest.fixture
async def proxy(platform: RunningPlatform) -> AsyncIterator[Proxy]:
    async with open_proxy(platform.url, paths=True) as opened:
        yield opened


async def inside(proxy: Proxy, url: str = f"{STUDIO}/", username: str = "alice") -> Browser:
    browser = proxy.browser()
    page = await browser.log_in(url, username)
    assert page.admission is not None, page
    return browser


async def fetch(browser: Browser, url: str, **headers: str) -> Page:
    sent = FETCHES | {name.replace("_", "-"): value for name, value in headers.items()}
    return await browser.request("GET", url, headers=sent, html=False)


async def test_a_visitor_logs_in_and_returns_to_what_was_asked_for(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.log_in(f"{STUDIO}/lab/tree/x?reset&a=%2F", "alice")
    assert page.url == f"{STUDIO}/lab/tree/x?reset&a=%2F"
    assert page.admission is not None
    assert (page.admission.username, page.admission.session) == ("alice", SHARED)
    assert not any("/_connect/transfer" in step for step in browser.trail), "the login is on this very host"


async def test_the_cookie_is_for_the_studios_path_only(proxy: Proxy) -> None:
    browser = await inside(proxy)
    assert set(browser.cookies[OWN_HOST]) == {"connect_login"}
    assert set(browser.cookies[f"{OWN_HOST}{BASE}/"]) == {"connect_studio", "connect_studio_nonce"}


async def test_over_https_cookies_have_prefixes_that_fit_them(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url, proxy_url="https://connect.example", paths=True) as proxy:
        browser = Browser(proxy.gate, names=HostNames("https://connect.example"))
        browser.paths = True
        page = await browser.log_in(f"https://connect.example{BASE}/", "alice")
        assert page.admission is not None
        assert set(browser.cookies["connect.example"]) == {"__Host-connect_login"}
        names = {"__Secure-connect_studio", "__Secure-connect_studio_nonce"}
        assert set(browser.cookies[f"connect.example{BASE}/"]) == names
        assert {name.encode() for name in names} < page.admission.strip_cookies


async def test_who_is_logged_in_opens_a_studio_without_a_further_login(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    page = await browser.open(f"{STUDIO}/lab")
    assert page.admission is not None
    assert not any("/authorize" in step for step in browser.trail[-2:])


async def test_both_url_modes_open_beside_each_other(proxy: Proxy) -> None:
    browser = await inside(proxy)
    assert (await browser.open(f"{SHARED_URL}/lab")).admission is not None
    assert (await browser.open(f"{STUDIO}/lab")).admission is not None
    other = proxy.browser()
    assert (await other.log_in(f"{SHARED_URL}/", "alice")).admission is not None
    assert (await other.open(f"{STUDIO}/")).admission is not None


async def test_a_login_begun_at_one_proxy_ends_at_another(platform: RunningPlatform, proxy: Proxy) -> None:
    async with open_proxy(platform.url, store=proxy.store, paths=True) as other:
        browser = await inside(proxy, f"{STUDIO}/")
        browser.gate = other.gate
        assert (await browser.open(f"{STUDIO}/lab")).admission is not None


# negative, each way in


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_a_program_without_a_cookie_is_refused(proxy: Proxy, method: str) -> None:
    page = await proxy.browser().request(method, f"{STUDIO}/api", headers=PROGRAM, html=False)
    assert (page.status, error_code(page)) == (401, "login_required")
    assert f"{STUDIO}/" in page.text


async def test_a_websocket_without_a_cookie_is_refused(proxy: Proxy) -> None:
    page = await proxy.browser().request("GET", f"{STUDIO}/ws", headers={}, html=False, upgrade=True)
    assert (page.status, error_code(page)) == (401, "login_required")


@pytest.mark.parametrize("upgrade", [False, True])
async def test_the_login_alone_opens_no_studio_to_a_script(proxy: Proxy, upgrade: bool) -> None:
    """Whoever has one Studio open has not opened the others."""
    browser = await inside(proxy)
    page = await browser.request("GET", f"{OTHER}/api", headers=FETCHES, html=False, upgrade=upgrade)
    assert (page.status, error_code(page)) == (401, "login_required")


@pytest.mark.parametrize("upgrade", [False, True])
async def test_the_cookie_of_one_studio_opens_no_other_one(proxy: Proxy, upgrade: bool) -> None:
    browser = await inside(proxy)
    browser.cookies[f"{OWN_HOST}/_studio/a{PRIVATE}/"] = browser.cookies[f"{OWN_HOST}{BASE}/"]
    page = await browser.request("GET", f"{OTHER}/api", headers=PROGRAM, html=False, upgrade=upgrade)
    assert page.status == 401


async def test_the_cookie_of_a_studios_host_opens_no_path_nor_the_other_way(proxy: Proxy) -> None:
    browser = await inside(proxy)
    await browser.open(f"{SHARED_URL}/")
    by_host, by_path = browser.cookies[f"a{SHARED}.{OWN_HOST}"], browser.cookies[f"{OWN_HOST}{BASE}/"]
    thief = proxy.browser()
    thief.cookies = {
        OWN_HOST: {"connect_studio": by_host["connect_session"], "connect_session": by_host["connect_session"]},
        f"a{SHARED}.{OWN_HOST}": dict(by_path),
    }
    for url in (f"{STUDIO}/", f"{SHARED_URL}/"):
        assert (await thief.request("GET", url, headers=PROGRAM, html=False)).status == 401


async def test_a_studios_cookie_without_its_login_is_worth_nothing(proxy: Proxy) -> None:
    """A sibling on a host of its own can set cookies for Connect's path, but not the login's (`__Host-`)."""
    attacker, victim = await inside(proxy, username="bob"), await logged_in(proxy)
    tossed = attacker.cookies[f"{OWN_HOST}{BASE}/"]["connect_studio"]
    victim.cookies[f"{OWN_HOST}{BASE}/"] = {"connect_studio": tossed}
    assert (await victim.request("GET", f"{STUDIO}/api", headers=PROGRAM, html=False)).status == 401
    page = await victim.open(f"{STUDIO}/")
    assert page.admission is not None
    assert page.admission.username == "alice", "and not bob"
    del victim.cookies[OWN_HOST]["connect_login"]
    assert (await victim.request("GET", f"{STUDIO}/api", headers=PROGRAM, html=False)).status == 401


async def test_who_may_not_use_a_studio_is_refused(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.log_in(f"{OTHER}/", "bob")
    assert page.status == 403
    assert "private to alice" in page.text
    assert (await fetch(browser, f"{OTHER}/api")).status == 403


async def test_who_is_no_longer_allowed_is_out_within_seconds(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = await inside(proxy)
    await platform.set_state(SHARED, "stop")
    proxy.clock.offset += 2.1
    page = await browser.request("GET", f"{STUDIO}/api", headers=PROGRAM, html=False)
    assert (page.status, error_code(page)) == (503, "session_stopped")


async def test_an_unknown_studio_is_a_404_after_the_login(proxy: Proxy) -> None:
    page = await proxy.browser().log_in(f"{OWN}/_studio/a00000000/", "alice")
    assert page.status == 404


async def test_a_foreign_page_changes_nothing(proxy: Proxy) -> None:
    browser = await inside(proxy)
    for headers in ({"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site"}, {"origin": SHARED_URL}):
        page = await browser.request("POST", f"{STUDIO}/x", headers=headers, html=False)
        assert (page.status, error_code(page)) == (403, "foreign_page")
    page = await browser.request("POST", f"{STUDIO}/x", headers={"origin": OWN}, html=False)
    assert page.admission is not None


# loops


async def test_a_browser_whose_studio_cookie_does_not_come_back_is_told_so(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    for _ in range(2):
        page = await browser.request("GET", f"{STUDIO}/")
        assert page.status == 302
        del browser.cookies[f"{OWN_HOST}{BASE}/"]["connect_studio"]
    page = await browser.request("GET", f"{STUDIO}/")
    assert (page.status, "cookie" in page.text) == (400, True)


async def test_a_browser_that_loses_its_login_is_not_sent_in_circles(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    for _ in range(5):
        browser.cookies[OWN_HOST].pop("connect_login", None)
        page = await browser.request("GET", f"{STUDIO}/")
        if page.status != 302:
            break
    assert page.status == 400


@pytest.mark.parametrize("path", ["//elsewhere.example/", "/%5cx", "/x?to=//elsewhere.example", "/\\elsewhere.example"])
async def test_a_login_ends_below_the_studios_path(proxy: Proxy, path: str) -> None:
    page = await proxy.browser().log_in(f"{STUDIO}{path}", "alice")
    assert page.url.startswith(f"{STUDIO}/")
    assert page.admission is not None


# what one origin keeps apart


async def test_a_page_of_another_studio_gets_no_answer(proxy: Proxy) -> None:
    browser = await inside(proxy)
    await browser.open(f"{OTHER}/")
    for referer in (f"{OTHER}/lab", f"{OWN}/", f"{STUDIO}x/", f"{OWN}/_studio/a{SHARED.upper()}/"):
        for method in ("GET", "POST"):
            sent = {**FETCHES, "referer": referer}
            page = await browser.request(method, f"{STUDIO}/api", headers=sent, html=False)
            assert (page.status, error_code(page)) == (403, "foreign_page"), referer
        frame = {**HTML, "sec-fetch-dest": "iframe", "referer": referer}
        assert (await browser.request("GET", f"{STUDIO}/", headers=frame)).status == 403
        form = {**OPENS, "referer": referer}
        assert (await browser.request("POST", f"{STUDIO}/", headers=form)).status == 403


async def test_links_lead_from_one_studio_to_another(proxy: Proxy) -> None:
    browser = await inside(proxy)
    for referer in (f"{OTHER}/lab", f"{OWN}/", "https://platform.example.org/"):
        page = await browser.request("GET", f"{STUDIO}/", headers={**OPENS, "referer": referer})
        assert page.admission is not None
        plain = {"accept": "text/html", "referer": referer}  # http to another host than localhost: no Fetch Metadata
        assert (await browser.request("GET", f"{STUDIO}/", headers=plain)).admission is not None


async def test_a_page_of_the_studio_itself_is_heard(proxy: Proxy) -> None:
    browser = await inside(proxy)
    for headers in ({"referer": f"{STUDIO}/lab"}, {}):
        assert (await fetch(browser, f"{STUDIO}/api", **headers)).admission is not None


@pytest.mark.parametrize("path", ["/", "/_connect/login", "/_connect/logout", f"{BASE}/_connect/logout"])
async def test_no_script_reads_a_page_of_connects(proxy: Proxy, path: str) -> None:
    browser = await inside(proxy)
    for mode in ("cors", "no-cors", "same-origin"):
        page = await fetch(browser, OWN + path, sec_fetch_mode=mode)
        assert (page.status, error_code(page)) == (403, "foreign_page")


@pytest.mark.parametrize("path", ["/", "/_connect/logout"])
async def test_connects_pages_are_an_origin_of_their_own(proxy: Proxy, path: str) -> None:
    browser = await inside(proxy)
    page = await browser.open(OWN + path)
    policy = page.header("content-security-policy") or ""
    assert "; sandbox " in policy
    assert "allow-same-origin" not in policy
    assert "allow-scripts" not in policy


async def test_where_studios_have_hosts_only_nothing_of_this_applies(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url) as proxy:
        browser = await logged_in(proxy)
        page = await browser.open(f"{OWN}/_connect/logout")
        assert "sandbox" not in (page.header("content-security-policy") or "")
        assert 'action="/_connect/logout"' in page.text
        assert (await browser.open(f"{STUDIO}/")).status == 404


# logging out


async def ask_logout(browser: Browser) -> str:
    """The ticket in the form of the page that asks whether to."""
    page = await browser.open(f"{STUDIO}/_connect/logout")
    assert page.url == f"{OWN}/_connect/logout"
    return page.text.partition('action="/_connect/logout?ticket=')[2].partition('"')[0]


async def test_a_logout_ends_the_visits_of_all_studios(proxy: Proxy) -> None:
    browser = await inside(proxy)
    await browser.open(f"{OTHER}/")
    ticket = await ask_logout(browser)
    browser.cookies[OWN_HOST].pop("connect_login")  # the form's page is an origin of its own: no cookie comes along
    sent = {**OPENS, "origin": "null", "sec-fetch-site": "cross-site"}
    page = await browser.request("POST", f"{OWN}/_connect/logout?ticket={ticket}", headers=sent)
    assert page.status == 303
    proxy.clock.offset += 2.1
    for url in (STUDIO, OTHER):
        assert (await browser.request("GET", f"{url}/api", headers=PROGRAM, html=False)).status == 401


async def test_a_form_without_the_ticket_logs_nobody_out(proxy: Proxy) -> None:
    browser = await inside(proxy)
    ticket = await ask_logout(browser)
    sent = {**OPENS, "origin": OWN, "sec-fetch-site": "same-origin"}
    for query in ("", "?ticket=", f"?ticket={ticket[::-1]}", f"?ticket={ticket}&ticket={ticket}"):
        page = await browser.request("POST", f"{OWN}/_connect/logout{query}", headers=sent)
        assert page.status == 403
    proxy.clock.offset += 2.1
    assert (await fetch(browser, f"{STUDIO}/api")).admission is not None


async def test_a_ticket_is_good_once(proxy: Proxy) -> None:
    browser = await inside(proxy)
    url = f"{OWN}/_connect/logout?ticket={await ask_logout(browser)}"
    assert (await browser.request("POST", url, headers=OPENS)).status == 303
    assert (await browser.request("POST", url, headers=OPENS)).status == 403


async def test_no_page_but_the_one_that_asks_has_a_button_to_log_out(proxy: Proxy) -> None:
    browser = proxy.browser()
    refused = await browser.log_in(f"{OTHER}/", "bob")
    front = await browser.open(f"{OWN}/")
    for page in (refused, front):
        assert "<form" not in page.text
        assert 'href="/_connect/logout"' in page.text


# frames


async def test_a_frame_that_is_not_logged_in_ends_at_the_button_below_the_path(proxy: Proxy) -> None:
    browser = proxy.browser()
    browser.always = {"sec-fetch-dest": "iframe", "sec-fetch-site": "same-site"}
    page = await browser.open(f"{STUDIO}/lab?x")
    assert page.url.startswith(f"{STUDIO}/_connect/window?")
    assert page.status == 401
    assert f'href="{STUDIO}/lab?x" class="button"' in page.text


async def test_a_frame_of_who_is_logged_in_opens(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    browser.always = {"sec-fetch-dest": "iframe", "sec-fetch-site": "same-site"}
    assert (await browser.open(f"{STUDIO}/lab")).admission is not None


async def test_a_frame_in_a_page_of_another_site_is_left_alone(proxy: Proxy) -> None:
    browser = proxy.browser()
    browser.always = {"sec-fetch-dest": "iframe", "sec-fetch-site": "cross-site"}
    page = await browser.open(f"{STUDIO}/lab")
    assert page.status == 401
    assert page.url == f"{STUDIO}/lab"


async def test_a_ticket_for_a_path_leads_to_no_host_and_the_other_way(proxy: Proxy) -> None:
    browser = await logged_in(proxy)
    for url in (STUDIO, SHARED_URL):
        stranger = proxy.browser()
        begun = await stranger.request("GET", f"{url}/lab")
        query = parse_qs(urlsplit(begun.location).query)
        page = await browser.request("GET", begun.location)
        assert page.location.startswith(f"{url}/")
        assert query["to"] == [f"a{SHARED}"]
