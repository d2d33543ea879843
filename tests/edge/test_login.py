"""The way in: who may come in, and what the others are told. A served Platform, gates, browsers with cookies."""

from __future__ import annotations

import trio

from connect_trio.edge.gate import Admission
from connect_trio.routing.memory import MemoryStore
from tests.support.login import (
    NAMES,
    OWN,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    BreakableStore,
    Proxy,
    error_code,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.visitor import visitor_request

__all__ = ["platform", "proxy"]


async def test_a_visitor_logs_in_and_returns_to_what_was_asked_for(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.log_in(f"{SHARED_URL}/lab/tree?path=a%20b", "alice")
    assert page.url == f"{SHARED_URL}/lab/tree?path=a%20b"
    assert page.admission is not None
    assert page.admission.username == "alice"
    assert page.admission.session == SHARED


async def test_an_admission_costs_no_checkpoint_while_it_is_cached(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies[SHARED_HOST].items())
    request = visitor_request(NAMES, f"{SHARED_HOST}:8080", "/", headers={"cookie": cookie})
    with trio.testing.assert_no_checkpoints():
        answer = await proxy.gate.admit(request)
    assert isinstance(answer, Admission)


async def test_the_second_studio_opens_without_a_second_login(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    page = await browser.open(f"{PRIVATE_URL}/x")
    assert page.admission is not None
    assert page.admission.session == PRIVATE
    assert page.url == f"{PRIVATE_URL}/x"


async def test_admissions_differ_by_visitor_and_by_session(proxy: Proxy) -> None:
    alice, bob = proxy.browser(), proxy.browser()
    pages = [
        await alice.log_in(f"{SHARED_URL}/", "alice"),
        await alice.open(f"{PRIVATE_URL}/"),
        await bob.log_in(f"{SHARED_URL}/", "bob"),
    ]
    admissions = [page.admission for page in pages if page.admission is not None]
    assert len({admission.key for admission in admissions}) == 3
    assert len({admission.subject for admission in admissions}) == 2


async def test_a_program_without_a_cookie_is_told_in_json(proxy: Proxy) -> None:
    browser = proxy.browser()
    for method, html, upgrade in (("GET", False, False), ("POST", True, False), ("GET", True, True)):
        page = await browser.request(method, f"{SHARED_URL}/api", html=html, upgrade=upgrade)
        assert page.status == 401
        assert error_code(page) == "login_required"


async def test_a_login_begun_at_one_proxy_ends_at_another(platform: RunningPlatform) -> None:
    store = MemoryStore()
    async with open_proxy(platform.url, store=store) as first, open_proxy(platform.url, store=store) as second:
        browser = first.browser()
        page = await browser.open(f"{SHARED_URL}/lab")
        browser.gate = second.gate
        page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
        page = await browser.request("GET", page.location)
        browser.gate = first.gate
        page = await browser.request("GET", page.location)
        browser.gate = second.gate
        page = await browser.follow(page)
        assert page.admission is not None
        assert page.url == f"{SHARED_URL}/lab"


async def test_bob_is_refused_with_a_page_that_explains(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.log_in(f"{PRIVATE_URL}/", "bob")
    assert page.status == 403
    for text in ("logged in as bob", "Private Studio", PRIVATE, "Ask alice", 'action="/_connect/logout"'):
        assert text in page.text
    page = await browser.request("GET", f"{PRIVATE_URL}/", html=False, upgrade=True)
    assert (page.status, error_code(page)) == (403, "refused")


async def test_who_was_refused_can_come_in_as_somebody_else(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{PRIVATE_URL}/", "bob")
    page = await browser.log_out(f"{PRIVATE_URL}/_connect/logout")
    assert page.url == f"{OWN}/"
    page = await browser.log_in(f"{PRIVATE_URL}/", "alice")
    assert page.admission is not None
    assert page.admission.username == "alice"


async def test_an_unknown_studio_is_a_404_after_the_login(proxy: Proxy) -> None:
    page = await proxy.browser().log_in("http://adeadbeef.connect.localhost:8080/", "alice")
    assert page.status == 404
    assert "no such Studio" in page.text


async def test_a_stopped_studio_says_so_and_opens_again_when_started(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    await platform.set_state(SHARED, "stop")
    proxy.clock.offset += 3
    page = await browser.open(f"{SHARED_URL}/")
    assert page.status == 503
    assert "not running" in page.text
    await platform.set_state(SHARED, "start")
    proxy.clock.offset += 3
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None


async def test_visitors_stay_in_for_a_minute_while_platform_is_away(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    await platform.stop()
    proxy.clock.offset += 50
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None
    proxy.clock.offset += 20
    for who in (browser, proxy.browser()):
        page = await who.open(f"{SHARED_URL}/")
        assert page.status == 503
        assert "Failed part: platform" in page.text


async def test_visitors_stay_in_while_the_store_is_away(proxy: Proxy) -> None:
    assert isinstance(proxy.store, BreakableStore)
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    proxy.store.broken = True
    proxy.clock.offset += 30
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None
    proxy.clock.offset += 100
    page = await browser.open(f"{SHARED_URL}/")
    assert page.status == 503
    assert "Failed part: registry" in page.text


async def test_a_platform_that_starts_late_is_found() -> None:
    async with running_platform() as platform:
        port = platform.port
    async with open_proxy(f"http://127.0.0.1:{port}") as proxy:
        page = await proxy.browser().open(f"{SHARED_URL}/")
        assert page.status == 503
        assert "Platform does not answer" in page.text
        async with running_platform(port=port):
            proxy.clock.offset += 10
            assert (await proxy.browser().log_in(f"{SHARED_URL}/", "alice")).admission is not None


async def test_a_platform_that_forgot_connect_is_registered_with_again(platform: RunningPlatform) -> None:
    async with open_proxy(platform.url) as proxy:
        await proxy.browser().log_in(f"{SHARED_URL}/", "alice")
        await platform.stop()
        async with running_platform(port=platform.port):
            proxy.clock.offset += 10
            assert (await proxy.browser().log_in(f"{SHARED_URL}/", "alice")).admission is not None
