"""Where a real browser goes with the addresses that we would send it back to."""

from __future__ import annotations

from itertools import product
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from connect_trio.edge.login_requests import return_path
from tests.support.login import NAMES
from tests.support.platform import SHARED
from tests.support.tricks import TRICKS, as_bytes, host_for_browsers

pytestmark = pytest.mark.browser

URL = NAMES.studio_url(f"a{SHARED}", "/lab")


def hosts(browser: Browser, addresses: list[str]) -> list[str | None]:
    """Where links with these addresses on a page of the Studio lead; None where they are none."""
    page = browser.new_page()
    script = "([all, base]) => all.map(one => { try { return new URL(one, base).host } catch { return null } })"
    found: list[str | None] = page.evaluate(script, [addresses, URL])
    page.close()
    return found


def test_a_browser_stays_on_the_studios_host_after_a_login(browser: Browser) -> None:
    targets = ["/" + "".join(pieces) for pieces in product(TRICKS, repeat=2)]
    paths = sorted({return_path(as_bytes(target)) for target in targets})
    assert len(paths) > 500, "most are harmless, and kept"
    both = [*paths, *(NAMES.studio_url(f"a{SHARED}", path) for path in paths)]
    assert set(hosts(browser, both)) == {urlsplit(URL).netloc}


def test_what_is_left_out_would_have_led_away(browser: Browser) -> None:
    """Otherwise the tricks are none, and neither the test before nor those of `tests/edge` say anything."""
    targets = ["/" + "".join(pieces) + "evil.example" for pieces in product(TRICKS, repeat=2)]
    refused = [target for target in targets if return_path(as_bytes(target)) == "/"]
    away = [host for host in hosts(browser, refused) if host is not None and "evil.example" in host]
    assert len(away) > 100


def test_browsers_are_as_lenient_as_the_tests_think(browser: Browser) -> None:
    tails = [
        "".join(pieces) for pieces in product(["", "\\", "/", "\t", "@", "#", "?", "evil.example", "x@"], repeat=3)
    ]
    urls = [f"http:{start}evil.example{tail}" for start in ("//", "/\\", "\\\\", "/\t/", "///") for tail in tails]
    theirs = hosts(browser, urls)
    ours = [host_for_browsers(url) for url in urls]
    differ = [(url, host, own) for url, host, own in zip(urls, theirs, ours, strict=True) if host not in (None, own)]
    assert differ == []
