"""What visitors read when something about their login failed, and how an operator finds it again."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from connect_trio.edge.login_frames import Why, open_outside
from connect_trio.edge.login_pages import (
    Link,
    Notice,
    cookies_blocked,
    login_failed,
    platform_away,
    registry_away,
    too_many_logins,
)
from connect_trio.routing.names import HostNames
from tests.support.login import OWN, SHARED_URL, Proxy, platform, proxy
from tests.support.platform import SHARED
from tests.support.visitor import visitor_request

__all__ = ["platform", "proxy"]

NAMES = HostNames(OWN)
RETRY = Link("Try again", f"{OWN}/")
FAILURES = {
    "failed": login_failed("It was refused.", RETRY),
    "cookies": cookies_blocked(RETRY),
    "many": too_many_logins(),
    "platform": platform_away("it is silent"),
    "registry": registry_away(),
    "frame": open_outside(f"{SHARED_URL}/", Why.LOGIN),
}


@pytest.mark.parametrize("html", [True, False], ids=["page", "json"])
@pytest.mark.parametrize("notice", FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_has_an_id_that_is_in_the_log(notice: Notice, html: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        reply = notice.reply(visitor_request(NAMES, "connect.localhost:8080", "/", html=html, client="192.0.2.7"))
    text = reply.body.decode()
    shown = f"id: {notice.id}" if html else json.loads(text)["error"]["id"]
    assert shown in text
    (record,) = caplog.records
    assert record.getMessage() == f"[{notice.id}] {notice.status}, {notice.code}: {' '.join(notice.paragraphs)}"
    assert vars(record)["client"] == "192.0.2.7"
    assert record.levelno == (logging.DEBUG if notice.status == 401 else logging.INFO), "forgotten tabs ask all day"
    for paragraph in notice.paragraphs:
        assert paragraph in text.replace("&#39;", "'")


def test_what_is_no_failure_has_no_id_and_no_line(caplog: pytest.LogCaptureFixture) -> None:
    notice = Notice(status=200, code="welcome", title="Connect", paragraphs=("Hello.",))
    with caplog.at_level(logging.INFO):
        reply = notice.reply(visitor_request(NAMES, "connect.localhost:8080", "/", html=True))
    assert notice.id not in reply.body.decode()
    assert caplog.records == []


async def test_the_log_says_who_has_logged_in_and_that_somebody_has_logged_out(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    browser = proxy.browser()
    with caplog.at_level(logging.INFO):
        await browser.log_in(f"{SHARED_URL}/", "alice")
        await browser.log_out(f"{SHARED_URL}/_connect/logout")
    lines = {record.getMessage(): vars(record) for record in caplog.records}
    assert lines["a visitor has logged in"]["subject"] == "user-5d1f0a9c"
    assert "a visitor has logged out" in lines
    secrets = {value for jar in browser.cookies.values() for value in jar.values()}
    assert not any(secret in str(line) for secret in secrets for line in lines.values())


async def test_the_log_says_why_a_login_failed(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        page = await proxy.browser().request("GET", f"{OWN}/_connect/callback?state=x&code=y&to=a{SHARED}")
    (line,) = (record.getMessage() for record in caplog.records if "login_failed" in record.getMessage())
    assert line.partition("]")[0].removeprefix("[") in page.text


def test_operators_find_each_code_in_the_documents() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    sources = sorted((root / "connect_trio" / "edge").glob("login*.py"))
    codes = {code for path in sources for code in re.findall(r'code="([a-z_]+)"', path.read_text(encoding="utf-8"))}
    text = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    assert {"login_failed", "too_many_logins"} < codes
    well = {"welcome", "logout", "logged_out", "session"}
    assert {code for code in codes - well if f"`{code}`" not in text} == set()
