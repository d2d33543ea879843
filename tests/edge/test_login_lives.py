"""How long logins last: they slide while they are used, up to their absolute end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from connect_trio.edge.login_ends import Lives
from connect_trio.edge.login_keeper import RENEWAL
from connect_trio.edge.login_visits import StudioVisit
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.edge import eventually
from tests.support.login import (
    OWN,
    OWN_HOST,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    BreakableStore,
    Clock,
    Proxy,
    inside,
    is_in,
    logged_in,
    open_proxy,
    platform,
)
from tests.support.platform import RunningPlatform
from tests.support.visitor import Browser

__all__ = ["platform"]

IDLE, LONGEST = 2400.0, 10_000.0


@attrs.define
class Ended:
    """What was told of logins that are over."""

    visits: list[object] = attrs.field(factory=list)

    def __call__(self, visit: object, reason: str) -> None:
        self.visits.append(visit)


class CountingStore(BreakableStore):
    prolonged = 0

    async def prolong(self, key: str, *, ttl: float) -> None:
        self.prolonged += 1
        await super().prolong(key, ttl=ttl)


@asynccontextmanager
async def short_lived(platform: RunningPlatform, store: MemoryStore | None = None) -> AsyncIterator[Proxy]:
    clock = Clock()
    lives = Lives(idle=IDLE, longest=LONGEST)
    async with open_proxy(platform.url, store=store or CountingStore(clock=clock), clock=clock, lives=lives) as proxy:
        yield proxy


@pytest.fixture
async def proxy(platform: RunningPlatform) -> AsyncIterator[Proxy]:
    async with short_lived(platform) as opened:
        yield opened


async def test_a_login_ends_when_it_was_not_used_for_long(proxy: Proxy) -> None:
    browser, _ = await inside(proxy)
    await proxy.gate.keeper.renew_due()
    proxy.clock.offset += IDLE - 100
    assert await is_in(proxy, browser)
    browser, _ = await inside(proxy)
    proxy.clock.offset += IDLE
    assert not await is_in(proxy, browser)
    assert 'name="password"' not in (await browser.open(f"{SHARED_URL}/x")).text, "Platform still knows them"


async def test_a_login_in_use_goes_on_in_all_studios_that_are_used_to_its_absolute_end(proxy: Proxy) -> None:
    browser, _ = await inside(proxy)
    await browser.open(f"{PRIVATE_URL}/")
    for _ in range(int(LONGEST / 1000) - 1):
        proxy.clock.offset += 990
        assert await is_in(proxy, browser)
        assert await is_in(proxy, browser, url=f"{PRIVATE_URL}/")
        await proxy.gate.keeper.renew_due()
    proxy.clock.offset += 990
    assert await is_in(proxy, browser)
    await proxy.gate.keeper.renew_due()
    proxy.clock.offset += 300
    assert not await is_in(proxy, browser), "however much it was used"
    assert not await is_in(proxy, browser, url=f"{PRIVATE_URL}/")


async def test_a_studio_that_nobody_looks_at_closes_and_opens_again_by_itself(proxy: Proxy) -> None:
    browser, _ = await inside(proxy)
    await browser.open(f"{PRIVATE_URL}/")
    for _ in range(3):
        proxy.clock.offset += IDLE / 2
        assert await is_in(proxy, browser)
        await proxy.gate.keeper.renew_due()
    assert not await is_in(proxy, browser, url=f"{PRIVATE_URL}/")
    assert (await browser.open(f"{PRIVATE_URL}/")).admission is not None


async def test_an_open_stream_is_use_too(proxy: Proxy) -> None:
    browser, visit = await inside(proxy)
    ended = Ended()
    for _ in range(3):
        proxy.clock.offset += IDLE / 2
        await proxy.gate.keeper.look(lambda: [visit], ended)
        await proxy.gate.keeper.renew_due()
    assert not ended.visits
    assert (await browser.open(f"{SHARED_URL}/")).admission is not None
    assert not any("/api/authorize" in line for line in browser.trail[-4:]), "Platform need not be asked for that"


async def test_a_stream_ends_with_its_login_at_the_latest(proxy: Proxy) -> None:
    _, visit = await inside(proxy)
    proxy.clock.offset += LONGEST
    ended = Ended()
    await proxy.gate.keeper.look(lambda: [visit], ended)
    assert ended.visits == [visit]


async def test_a_stream_ends_with_a_logout_within_seconds(proxy: Proxy) -> None:
    browser, visit = await inside(proxy)
    _, other = await inside(proxy, "bob")
    ended = Ended()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.gate.keeper.run, lambda: [visit, other], ended)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.visits
        jar = dict(browser.cookies[SHARED_HOST])
        await browser.log_out(f"{OWN}/_connect/logout")
        await eventually(lambda: bool(ended.visits))
        browser.cookies[SHARED_HOST] = jar
        assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).status == 401, "nor by a new one"
        nursery.cancel_scope.cancel()
    assert set(ended.visits) == {visit}


async def test_a_store_that_is_away_or_empty_ends_no_stream(proxy: Proxy) -> None:
    _, visit = await inside(proxy)
    assert isinstance(proxy.store, BreakableStore)
    ended = Ended()
    proxy.store.broken = True
    with pytest.raises(RegistryUnavailable):
        await proxy.gate.keeper.look(lambda: [visit], ended)
    proxy.store.broken = False
    proxy.store._entries.clear()
    await proxy.gate.keeper.look(lambda: [visit], ended)
    assert not ended.visits


async def test_a_store_that_comes_back_is_told_of_use_meanwhile(proxy: Proxy) -> None:
    browser, visit = await inside(proxy)
    assert isinstance(proxy.store, BreakableStore)
    proxy.store.broken = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.gate.keeper.run, lambda: [visit], Ended())
        await trio.testing.wait_all_tasks_blocked()
        proxy.store.broken = False
        nursery.cancel_scope.cancel()
    proxy.clock.offset += IDLE / 2
    await proxy.gate.keeper.look(lambda: [visit], Ended())
    await proxy.gate.keeper.renew_due()
    proxy.clock.offset += IDLE - 100
    assert await is_in(proxy, browser)


async def test_use_is_told_at_most_every_few_minutes(proxy: Proxy) -> None:
    browser, _ = await inside(proxy)
    assert isinstance(proxy.store, CountingStore)
    await proxy.gate.keeper.renew_due()
    before = proxy.store.prolonged
    for _ in range(20):
        assert await is_in(proxy, browser)
        await proxy.gate.keeper.renew_due()
    assert proxy.store.prolonged == before
    proxy.clock.offset += RENEWAL
    assert await is_in(proxy, browser)
    await proxy.gate.keeper.renew_due()
    assert proxy.store.prolonged == before + 3, "the login, its tokens and the Studio"


async def test_cookies_last_as_long_as_the_login_may(proxy: Proxy) -> None:
    browser = proxy.browser()
    page = await browser.open(f"{SHARED_URL}/")
    page = await browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    ages = {}
    while page.status in (302, 303):
        proxy.clock.offset += 10
        page = await browser.request("GET", page.location)
        for line in page.set_cookies():
            name, _, rest = line.partition("=")
            ages[name] = int(rest.lower().partition("max-age=")[2].partition(";")[0])
    assert LONGEST - 60 <= ages["connect_session"] < ages["connect_login"] <= LONGEST


async def log_in_again(proxy: Proxy, browser: Browser, username: str) -> None:
    """As somebody does at Platform in another browser, whose answer comes back in this one."""
    fresh = proxy.browser()
    page = await fresh.open(f"{OWN}/_connect/login")
    callback = await fresh.request("POST", page.url, form={"username": username, "password": username})
    browser.cookies[OWN_HOST]["connect_prelogin"] = fresh.cookies[OWN_HOST]["connect_prelogin"]
    secret = browser.cookies[OWN_HOST]["connect_login"]
    assert (await browser.request("GET", callback.location)).status == 302
    assert browser.cookies[OWN_HOST]["connect_login"] != secret, "each login has a secret of its own"


@pytest.mark.parametrize(("username", "cut"), [("alice", False), ("bob", True)])
async def test_who_logs_in_again_cuts_nothing_of_their_own(proxy: Proxy, username: str, cut: bool) -> None:
    browser, visit = await inside(proxy)
    await log_in_again(proxy, browser, username)
    ended = Ended()
    await proxy.gate.keeper.look(lambda: [visit], ended)
    assert ended.visits == ([visit] if cut else [])


async def test_a_logout_ends_what_tabs_that_logged_in_together_have_open(proxy: Proxy) -> None:
    """A browser that restores its tabs logs in once for each, all with the cookies from before."""
    browser = await logged_in(proxy)  # at Platform, too
    browser.cookies[OWN_HOST].clear()
    pages = [await browser.request("GET", url) for url in (f"{SHARED_URL}/", f"{PRIVATE_URL}/")]
    pages = [await browser.request("GET", page.location) for page in pages]  # to Platform
    pages = [await browser.request("GET", page.location) for page in pages]  # and back
    before, answers = dict(browser.cookies[OWN_HOST]), []
    for page in pages:
        browser.cookies[OWN_HOST] = dict(before)
        answers.append(await browser.request("GET", page.location))
    visits = [(await browser.follow(answer)).admission for answer in answers]
    logins = [visit.login for visit in visits if visit is not None]
    assert len({login.visit.key for login in logins if isinstance(login, StudioVisit)}) == 2
    jar = {host: dict(cookies) for host, cookies in browser.cookies.items()}
    await browser.log_out(f"{OWN}/_connect/logout")
    browser.cookies = jar
    for url in (f"{SHARED_URL}/", f"{PRIVATE_URL}/"):
        assert not await is_in(proxy, browser, url=url)
    ended = Ended()
    await proxy.gate.keeper.look(lambda: logins, ended)
    assert ended.visits == logins


async def test_a_logout_ends_what_is_open_of_logins_before_it(proxy: Proxy) -> None:
    browser, visit = await inside(proxy)
    await log_in_again(proxy, browser, "alice")
    await browser.log_out(f"{OWN}/_connect/logout")
    ended = Ended()
    await proxy.gate.keeper.look(lambda: [visit], ended)
    assert ended.visits == [visit]


async def test_a_logout_ends_nothing_in_another_browser(proxy: Proxy) -> None:
    browser, _ = await inside(proxy)
    other, visit = await inside(proxy)
    await browser.log_out(f"{OWN}/_connect/logout")
    ended = Ended()
    await proxy.gate.keeper.look(lambda: [visit], ended)
    assert ended.visits == []
    assert await is_in(proxy, other)


async def test_one_logout_ends_the_sessions_of_all_studios_at_all_proxies(platform: RunningPlatform) -> None:
    store = MemoryStore()
    async with short_lived(platform, store) as first, short_lived(platform, store) as second:
        browser, _ = await inside(first)
        await browser.open(f"{PRIVATE_URL}/")
        jar = {host: dict(cookies) for host, cookies in browser.cookies.items()}
        await browser.log_out(f"{SHARED_URL}/_connect/logout")
        for proxy in (first, second):
            browser.cookies = {host: dict(cookies) for host, cookies in jar.items()}
            assert SHARED_HOST in browser.cookies
            for url in (f"{SHARED_URL}/", f"{PRIVATE_URL}/"):
                assert not await is_in(proxy, browser, url=url)
