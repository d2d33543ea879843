"""A Platform that is ill while somebody logs in: one clear page, nobody is let in, and afterwards all is well again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product

import attrs
import pytest

from tests.support.ill_platform import ILLNESSES, SILENCE, IllPlatform, ill_platform
from tests.support.login import SHARED_URL, Proxy, open_proxy
from tests.support.visitor import Browser, Page

TOKEN = "/token"
PARTS = {
    "its addresses": "/.well-known/openid-configuration",
    "registration": "/register",
    "the question whether it knows Connect": "/connect/sessions/00000000",
    "the exchange of the code": TOKEN,
    "its keys": "/jwks.json",
    "access": "/connect/access",
}
SOME = ("500", "a page", "null", "an object", "half an answer", "a hang-up")
CASES = [
    *product(PARTS, SOME),
    *product(["the exchange of the code"], [illness for illness in ILLNESSES if illness not in (*SOME, SILENCE)]),
]
MOST = 12  # requests of a browser until it is told


@attrs.frozen
class Setting:
    platform: IllPlatform
    proxy: Proxy

    def recovers(self) -> None:
        """It does, and Connect is ready to ask it again."""
        self.platform.recovers()
        self.proxy.clock.offset += 60


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with ill_platform() as platform, open_proxy(platform.url) as proxy:
        yield Setting(platform, proxy)


async def go_in(browser: Browser) -> Page:
    """Open a Studio, and fill in the form if Platform shows one."""
    page = await browser.open(f"{SHARED_URL}/lab")
    if 'name="password"' not in page.text:
        return page
    form = {"username": "alice", "password": "alice"}
    return await browser.follow(await browser.request("POST", page.url, form=form))


async def is_told_once(setting: Setting, part: str, illness: str) -> None:
    setting.platform.falls_ill(part, illness)
    browser = setting.proxy.browser()
    page = await go_in(browser)
    assert setting.platform.asked, "it was ill where somebody needed it"
    assert page.admission is None
    assert page.status in (400, 503)
    for what in ("<h1>", "id: ", "gain"):  # a title, what to ask an operator for, and to try or begin again
        assert what in page.text
    assert len(browser.trail) <= MOST
    setting.recovers()
    assert (await go_in(setting.proxy.browser())).admission is not None


@pytest.mark.parametrize(("part", "illness"), CASES)
async def test_a_visitor_is_told_once_and_comes_in_afterwards(setting: Setting, part: str, illness: str) -> None:
    await is_told_once(setting, PARTS[part], illness)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
async def test_a_visitor_whom_platform_lets_wait_is_told_so(setting: Setting, part: str) -> None:
    await is_told_once(setting, PARTS[part], SILENCE)


async def test_who_is_in_stays_while_a_login_of_somebody_else_fails(setting: Setting) -> None:
    inside = setting.proxy.browser()
    assert (await go_in(inside)).admission is not None
    setting.platform.falls_ill(TOKEN, "500")
    assert (await go_in(setting.proxy.browser())).admission is None
    assert (await inside.open(f"{SHARED_URL}/lab")).admission is not None
