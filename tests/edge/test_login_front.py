"""Connect's own front page: the Studios that a visitor may open, with their state, and the way out."""

from __future__ import annotations

import re

import pytest

from connect_trio.edge.login_pages import Notice
from tests.support.login import (
    NAMES,
    OWN,
    OWN_HOST,
    PRIVATE_URL,
    SHARED_URL,
    Proxy,
    logged_in,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import DEV_KEY, PRIVATE, SHARED, RunningPlatform
from tests.support.scripted import scripted_platform
from tests.support.visitor import Page, visitor_request

__all__ = ["platform", "proxy"]


def listed(page: Page) -> dict[str, str]:
    """What is said of each Studio that can be clicked, by its address."""
    return dict(re.findall(r'<li><a href="([^"]+)">[^<]+</a> <small>([^<]+)</small></li>', page.text))


async def test_a_visitor_sees_the_studios_that_they_may_open(proxy: Proxy) -> None:
    page = await (await logged_in(proxy, "alice")).open(OWN + "/")
    about = listed(page)
    assert about == {
        f"{SHARED_URL}/": "running, files, of alice, Main",
        f"{PRIVATE_URL}/": "running, files, of alice, Main",
    }
    assert "Log out" in page.text
    assert set(listed(await (await logged_in(proxy, "bob")).open(OWN + "/"))) == {f"{SHARED_URL}/"}


async def test_a_studio_that_does_not_run_is_shown_but_leads_nowhere(proxy: Proxy, platform: RunningPlatform) -> None:
    await platform.set_state(PRIVATE, "stop")
    page = await (await logged_in(proxy)).open(OWN + "/")
    assert set(listed(page)) == {f"{SHARED_URL}/"}
    assert "<li>Private Studio <small>stopped, files, of alice, Main</small></li>" in page.text


async def test_who_may_open_nothing_is_told_so(proxy: Proxy) -> None:
    page = await (await logged_in(proxy, "carol")).open(OWN + "/")
    assert "There is no Studio yet that you may open." in page.text
    assert listed(page) == {}


async def test_who_is_not_logged_in_sees_no_studio(proxy: Proxy) -> None:
    page = await proxy.browser().open(OWN + "/")
    assert SHARED not in page.text
    assert 'href="/_connect/login"' in page.text


async def test_the_page_works_while_platform_is_away_and_says_so(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = await logged_in(proxy)
    before = await browser.open(OWN + "/")
    await platform.stop()
    proxy.clock.offset += 30
    assert listed(await browser.open(OWN + "/")) == listed(before), "for a minute it is remembered"
    proxy.clock.offset += 40
    page = await browser.open(OWN + "/")
    assert (page.status, listed(page)) == (200, {})
    assert "Platform does not answer" in page.text
    assert "Log out" in page.text


async def test_a_share_that_is_taken_back_is_gone_from_the_page(proxy: Proxy, platform: RunningPlatform) -> None:
    browser = await logged_in(proxy, "bob")
    assert listed(await browser.open(OWN + "/"))
    async with platform.browser() as http:
        bearer = {"authorization": f"Bearer {DEV_KEY}"}
        assert (
            await http.post(f"/api/dev/sessions/{SHARED}", json={"private": True}, headers=bearer)
        ).status_code == 200
    proxy.clock.offset += 3
    assert listed(await browser.open(OWN + "/")) == {}


@pytest.mark.parametrize(("sent", "shown"), [("\ud800", "?"), ("S \ud83d", "S ?"), ("\U0001f600", "\U0001f600")])
async def test_half_a_character_in_a_studios_name_breaks_no_page(sent: str, shown: str) -> None:
    async with scripted_platform() as scripted, open_proxy(scripted.url) as opened:
        scripted.serve_metadata()
        scripted.serve_registration()
        session = {"id": SHARED, "name": sent, "owner": "o", "state": "running", "tool": "t"}
        scripted.answers["GET /api/connect/sessions?subject=s"] = (200, {"sessions": [session]})
        rows, _ = await opened.gate._own._studios("s")
        notice = Notice(status=200, code="x", title="x", paragraphs=(), studios=rows)
        assert f">{shown}</a>" in notice.reply(visitor_request(NAMES, OWN_HOST, "/")).body.decode()


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><b>'])
async def test_names_of_studios_are_text(name: str) -> None:
    async with scripted_platform() as scripted, open_proxy(scripted.url) as opened:
        scripted.serve_metadata()
        scripted.serve_registration()
        session = {"id": SHARED, "name": name, "owner": name, "state": "running", "tool": name}
        scripted.answers["GET /api/connect/sessions?subject=s"] = (200, {"sessions": [session]})
        rows, _ = await opened.gate._own._studios("s")
        assert rows[0].name == name
        page = Notice(status=200, code="x", title="x", paragraphs=(), studios=rows).reply(
            visitor_request(NAMES, OWN_HOST, "/")
        )
        assert name.encode() not in page.body


async def test_a_platform_that_lists_nothing_leaves_the_page_as_it_was() -> None:
    async with scripted_platform() as scripted, open_proxy(scripted.url) as opened:
        scripted.serve_metadata()
        scripted.serve_registration()
        assert await opened.gate._own._studios("s") == ((), ())
