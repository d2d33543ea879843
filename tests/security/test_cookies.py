"""Whose cookies go where: ours to nobody else, nobody else's in the place of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio.edge.login_cookies import SESSION, Cookies
from connect_trio.routing.names import HostNames
from tests.support.edge import answer, get, open_world, upgrade
from tests.support.login import (
    OWN,
    PRIVATE_HOST,
    PRIVATE_URL,
    SHARED_HOST,
    SHARED_URL,
    Proxy,
    open_proxy,
    platform,
    proxy,
)
from tests.support.platform import SHARED, RunningPlatform
from tests.support.visitor import Browser

__all__ = ["platform", "proxy"]

SECURE = HostNames("https://connect.example")
SECRET = "s" * 43


@pytest.fixture
async def secure_browser(platform: RunningPlatform) -> AsyncIterator[Browser]:
    """A browser in front of a Connect that is reached by https."""
    async with open_proxy(platform.url, proxy_url="https://connect.example") as opened:
        yield Browser(opened.gate, names=SECURE)


async def test_cookies_scoped_to_the_wildcard_parent(secure_browser: Browser) -> None:
    page = await secure_browser.open(SECURE.studio_url(f"a{SHARED}"))
    page = await secure_browser.request("POST", page.url, form={"username": "alice", "password": "alice"})
    lines = []
    while page.status in (302, 303):
        page = await secure_browser.request("GET", page.location)
        lines += page.set_cookies()
    assert len(lines) >= 3
    for line in lines:
        assert line.startswith("__Host-connect_")
        attributes = {part.strip().lower() for part in line.split(";")[1:]}
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(part.startswith("domain") for part in attributes)


async def test_cookies_scoped_to_the_wildcard_parent_would_open_every_studio(proxy: Proxy) -> None:
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    browser.cookies[PRIVATE_HOST] = dict(browser.cookies[SHARED_HOST])
    page = await browser.request("GET", f"{PRIVATE_URL}/", html=False)
    assert page.status == 401, "one Studio's cookie opens no other, even one that the same visitor may use"


async def test_sibling_cookie_tossing(secure_browser: Browser) -> None:
    """Over https no sibling can set `__Host-` names, so a cookie without that prefix is nobody's."""
    url = SECURE.studio_url(f"a{SHARED}")
    await secure_browser.log_in(url, "alice")
    jar = secure_browser.cookies[f"a{SHARED}.connect.example"]
    secure_browser.cookies[f"a{SHARED}.connect.example"] = {"connect_session": jar["__Host-connect_session"]}
    assert (await secure_browser.request("GET", url, html=False)).status == 401
    secure_browser.cookies[f"a{SHARED}.connect.example"] = jar
    secure_browser.extra_cookies = f"connect_session={SECRET}; connect_nonce={SECRET}.0.0"
    assert (await secure_browser.request("GET", url, html=False)).admission is not None


async def test_sibling_cookie_tossing_over_http(proxy: Proxy) -> None:
    """Without `__Host-` a sibling can, so that of two cookies of one name neither counts."""
    browser = proxy.browser()
    await browser.log_in(f"{SHARED_URL}/", "alice")
    browser.extra_cookies = f"connect_session={SECRET}"
    assert (await browser.request("GET", f"{SHARED_URL}/", html=False)).status == 401
    page = await browser.open(f"{SHARED_URL}/")
    assert "delete this site" in page.text, "and no circle begins"


@pytest.mark.parametrize("parent", ["connect.localhost", ".localhost", "a00000001.connect.localhost", ""])
async def test_sibling_cookie_tossing_by_a_tool(parent: str) -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b"", f"Set-Cookie: theme=dark; Path=/; doMAIN ={parent}; Secure"))
        assert b"Set-Cookie: theme=dark; Path=/; Secure\r\n" in await client.head()


@pytest.mark.parametrize("parent", ["studios.localhost", "localhost", ".studios.localhost", "connect.localhost"])
async def test_sibling_cookie_tossing_by_a_tool_under_a_domain_of_the_studios(parent: str) -> None:
    async with open_world(domain="studios.localhost") as world:
        client, tool = await world.request(get(host="a23ce7967.studios.localhost:8080"))
        await tool.head()
        await tool.send(answer(b"", f"Set-Cookie: theme=dark; Domain={parent}; Path=/"))
        assert b"Set-Cookie: theme=dark; Path=/\r\n" in await client.head()


PAIRS = st.sampled_from(
    [
        "connect_session",
        "__Host-connect_session",
        "=",
        ";",
        " ",
        "\t",
        '"',
        ",",
        SECRET,
        "t" * 43,
        "a=1",
        "\xa0",
        "$Path",
    ]
)


@given(st.lists(st.lists(PAIRS).map("".join), max_size=3))
@example([f"connect_session={SECRET}; connect_session={'t' * 43}"])
@example([f"__Host-connect_session={SECRET}", f"__Host-connect_session={'t' * 43}"])
@example([f"connect_session={SECRET}"])
def test_sibling_cookie_tossing_in_any_cookie_header(lines: list[str]) -> None:
    headers = tuple((b"cookie", line.encode("latin-1")) for line in lines)
    pairs = [pair.partition("=") for line in lines for pair in line.split(";")]
    for secure, name in ((False, "connect_session"), (True, "__Host-connect_session")):
        found = Cookies(secure=secure).secret(headers, SESSION)
        exact = [value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name]
        assert found is None or (exact == [found] and found in (SECRET, "t" * 43))


OURS = "connect_session=secret; __Host-connect_session=secret; connect_login=secret; __Host-connect_nonce=secret"


@pytest.mark.parametrize("switch", [False, True], ids=["http", "websocket"])
async def test_our_cookie_handed_to_the_app(switch: bool) -> None:
    async with open_world() as world:
        headers = (
            f"Cookie: a=1; {OURS}; b=2",
            "cookie:__Host-connect_prelogin=secret",
            "COOKIE:\tconnect_login=secret",
        )
        _, tool = await world.request(upgrade("/ws", *headers) if switch else get("/", *headers))
        head = await tool.head()
        assert b"secret" not in head
        assert b"Cookie: a=1; b=2\r\n" in head


@pytest.mark.parametrize(
    "cookie",
    [
        "connect_session=x",
        "__Host-connect_session=x; Secure; Path=/",
        "__HOST-Connect_Login=x",
        "=connect_nonce=x",
        "x",
    ],
)
async def test_our_cookie_set_by_the_app(cookie: str) -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b"", f"Set-Cookie: {cookie}", "Set-Cookie: theme=dark"))
        head = await client.head()
        assert head.count(b"Set-Cookie:") == 1
        assert b"Set-Cookie: theme=dark\r\n" in head


@pytest.mark.parametrize("name", ["Clear-Site-Data", "clear-site-data"])
async def test_our_cookie_cleared_by_the_app(name: str) -> None:
    """Browsers clear cookies for the whole registrable domain: of all Studios, and of Platform."""
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b"", f'{name}: "cookies"', "X-Other: 1"))
        head = await client.head()
        assert b"X-Other: 1\r\n" in head
        assert b"clear-site-data" not in head.lower()


async def test_session_fixation(proxy: Proxy) -> None:
    """Every secret is new after a login, whatever the browser had before."""
    browser, attacker = proxy.browser(), proxy.browser()
    for profile in (browser, attacker):
        profile.cookies["connect.localhost"] = {"connect_login": SECRET, "connect_prelogin": SECRET}
        profile.cookies[SHARED_HOST] = {"connect_session": SECRET}
    assert (await browser.log_in(f"{SHARED_URL}/", "alice")).admission is not None
    assert browser.cookies[SHARED_HOST]["connect_session"] != SECRET
    assert browser.cookies["connect.localhost"]["connect_login"] != SECRET
    assert (await attacker.request("GET", f"{SHARED_URL}/", html=False)).status == 401
    assert "not logged in" in (await attacker.request("GET", f"{OWN}/")).text
