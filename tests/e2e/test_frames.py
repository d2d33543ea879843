"""Studios inside pages of others, in Chromium: who sees them there, who gets a button, and who gets nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import attrs
import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from connect_trio.ports import free_ports
from tests.e2e.test_oidc_provider import start_agent, start_connect
from tests.support.browser import ARGUMENTS, People, Person
from tests.support.certificates import Authority
from tests.support.e2e import PATIENCE, DevStack, dev_stack, wait_until
from tests.support.oidc_provider import foreign_provider, tls_in_front
from tests.support.parts import require
from tests.support.portal import Portal, portal
from tests.support.processes import running_role
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.redis]

SESSION = "23ce7967"
KEY = "key-of-the-development-platform"
# Browsers take what is before "localhost" for the root domain: these two are of one site, and "other" is of another.
NEAR, FAR, STRANGER = "portal.example.localhost", "portal.other.localhost", "stranger.example.localhost"
BUTTON = "Open the Studio"
FILE = "readme.txt"


@attrs.frozen
class Scene:
    """Connect and Platform under one root domain. url: of Connect. studio: of a Studio's front page."""

    url: str
    studio: str
    platform: str
    portal: Portal


@pytest.fixture(scope="module", params=["below", "beside"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Studios are below Connect's own host, or beside it."""
    folder = tmp_path_factory.mktemp("frames")
    edge, platform_port = free_ports(2)
    domain = {"below": "connect.example.localhost", "beside": "studios.example.localhost"}[request.param]
    url, platform = f"http://connect.example.localhost:{edge}", f"http://platform.example.localhost:{platform_port}"
    with ExitStack() as stack:
        pages = stack.enter_context(portal())
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        shared = {
            "CONNECT_REDIS_ADDRESS": redis.address,
            "CONNECT_DRAIN_GRACE": "0s",
            "CONNECT_PROXY_URL": url,
            "PLATFORM_URL": platform,
            "CONNECT_STUDIO_DOMAIN": domain if request.param == "beside" else "",
            "CONNECT_DEVPLATFORM_KEY": KEY,
            "CONNECT_FRAME_ANCESTORS": ",".join((platform, pages.origin(NEAR), pages.origin(FAR))),
        }
        stack.enter_context(running_role("platform", env=shared, log=folder / "platform.log"))
        ports = {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0", "CONNECT_BIND_HOST": "127.0.0.1"}
        server = stack.enter_context(running_role("server", env=shared | ports, log=folder / "server.log"))
        proxy = {
            "CONNECT_HTTP_HOST": "127.0.0.1",
            "CONNECT_HTTP_PORT": str(edge),
            "CONNECT_TUNNEL_URL": f"127.0.0.1:{server.started['tunnel_port']}",
            "CONNECT_STORAGE_ROOT": str(folder / "storage"),
        }
        stack.enter_context(running_role("proxy", env=shared | proxy, log=folder / "proxy.log"))
        shown = folder / "studio"
        shown.mkdir()
        (shown / FILE).write_text("hello from the Studio")
        agent = {"CONNECT_AGENT_TOKEN": agent_token(platform_port), "CONNECT_FILES_ROOT": str(shown)}
        stack.enter_context(running_role("agent", env=shared | agent, log=folder / "agent.log"))
        yield Scene(url, f"http://a{SESSION}.{domain}:{edge}/", platform, pages)


def agent_token(platform_port: int) -> str:
    url = f"http://127.0.0.1:{platform_port}/api/dev/agent-tokens"
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx2.post(url, json={"session": SESSION}, headers=headers, trust_env=False)
    return str(answer.json()["token"])


def log_in_at_platform(person: Person, platform: str) -> None:
    person.page.goto(f"{platform}/login")
    person.log_in()
    expect(person.page.get_by_role("heading", name="Studios")).to_be_visible()


def frame_of(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def expect_files(frame: FrameLocator) -> None:
    expect(frame.get_by_role("link", name=FILE, exact=True)).to_be_visible()


def press_the_button(page: Page) -> Page:
    """What the button in the frame opens: a window of its own."""
    with page.context.expect_page() as opened:
        frame_of(page).get_by_role("link", name=BUTTON).click()
    return opened.value


def is_refused(page: Page) -> bool:
    """Whether the browser shows an error of its own in the frame, instead of what was sent."""
    page.evaluate("0")  # what happens in a page is heard of only while it is spoken to
    return any(frame.url.startswith("chrome-error:") for frame in page.frames)


@contextmanager
def without_third_party_cookies(browser: Browser, folder: Path) -> Iterator[BrowserContext]:
    """A browser that is told, in its settings, to keep no cookies of other sites than the page's own."""
    settings = {"profile": {"cookie_controls_mode": 1, "block_third_party_cookies": True}}
    (folder / "Default").mkdir(parents=True)
    (folder / "Default" / "Preferences").write_text(json.dumps(settings))
    context = browser.browser_type.launch_persistent_context(
        folder, executable_path=require("chromium"), args=ARGUMENTS
    )
    context.set_default_timeout(PATIENCE * 1000)
    try:
        yield context
    finally:
        context.close()


def test_who_is_logged_in_at_platform_sees_a_studio_in_its_page(scene: Scene, people: People) -> None:
    alice = people.come("alice")
    log_in_at_platform(alice, scene.platform)
    alice.page.goto(f"{scene.platform}/sessions/{SESSION}")
    expect_files(frame_of(alice.page))
    alice.page.reload()
    expect_files(frame_of(alice.page))
    frame_of(alice.page).get_by_role("link", name=FILE, exact=True).click()
    expect(frame_of(alice.page).get_by_text("hello from the Studio")).to_be_visible()


def test_who_is_not_logged_in_gets_a_button_and_then_a_window(scene: Scene, people: People) -> None:
    alice = people.come("alice")
    visits = list[str]()
    alice.page.on("request", lambda request: visits.append(request.url))
    alice.page.goto(scene.portal.page(NEAR, f"{scene.studio}{FILE}?view"))
    expect(frame_of(alice.page).get_by_text("You are not logged in")).to_be_visible()
    assert len([url for url in visits if "/_connect/login" in url]) == 1, visits
    window = press_the_button(alice.page)
    Person(alice.context, "alice", window).log_in()
    expect(window.get_by_text("hello from the Studio")).to_be_visible()
    assert window.url == f"{scene.studio}{FILE}?view"
    assert window.evaluate("window.opener") is None
    frame_of(alice.page).get_by_role("link", name="Try again here").click()
    expect(frame_of(alice.page).get_by_text("hello from the Studio")).to_be_visible()


def test_a_browser_that_keeps_no_third_party_cookies_shows_a_studio_too(
    scene: Scene, browser: Browser, tmp_path: Path
) -> None:
    with without_third_party_cookies(browser, tmp_path / "profile") as context:
        alice = Person(context, "alice", context.pages[0])
        for _ in range(2):
            alice.page.goto(scene.portal.page(FAR, scene.portal.cookie(NEAR)))
            expect(frame_of(alice.page).get_by_text("Cookies: none")).to_be_visible()
        log_in_at_platform(alice, scene.platform)
        alice.page.goto(f"{scene.platform}/sessions/{SESSION}")
        expect_files(frame_of(alice.page))


def test_a_page_of_another_site_gets_a_button_at_once(scene: Scene, people: People) -> None:
    alice = people.come("alice")
    log_in_at_platform(alice, scene.platform)
    visits = list[str]()
    alice.page.on("request", lambda request: visits.append(request.url))
    alice.page.goto(scene.portal.page(FAR, scene.studio))
    expect(frame_of(alice.page).get_by_text("a page of another site")).to_be_visible()
    assert [url for url in visits if "_connect" in url] == []
    window = press_the_button(alice.page)
    expect(window.get_by_role("link", name=FILE, exact=True)).to_be_visible()


def test_a_page_that_may_not_show_a_studio_shows_nothing(scene: Scene, people: People) -> None:
    alice = people.come("alice")
    alice.page.goto(scene.studio)
    alice.log_in()
    expect(alice.page.get_by_role("link", name=FILE, exact=True)).to_be_visible()
    for host in (STRANGER, "stranger.other.localhost"):
        for path in ("", FILE, "_connect/nothing", "_connect/window"):
            alice.page.goto(scene.portal.page(host, scene.studio + path))
            wait_until(lambda: is_refused(alice.page), f"{host} is refused {path}")


@pytest.mark.parametrize("host", [NEAR, FAR, STRANGER])
def test_connects_own_pages_are_in_nobodys_frame(scene: Scene, people: People, host: str) -> None:
    alice = people.come("alice")
    alice.page.goto(scene.studio)
    alice.log_in()
    expect(alice.page.get_by_role("link", name=FILE, exact=True)).to_be_visible()
    own = [f"{scene.url}{path}" for path in ("/", "/_connect/logout", "/_connect/login", "/nothing")]
    for url in [*own, f"{scene.studio}_connect/logout", f"{scene.platform}/login"]:
        alice.page.goto(scene.portal.page(host, url))
        wait_until(lambda: is_refused(alice.page), f"{host} is refused {url}")


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """The development stack as it is: to browsers, localhost and connect.localhost are different sites."""
    root = tmp_path_factory.mktemp("studio")
    (root / FILE).write_text("hello from the Studio")
    with dev_stack(root=root, name="frames", env={"CONNECT_STUDIO_DOMAIN": "studios.localhost"}) as stack:
        yield stack


def test_where_platform_is_of_another_site_its_page_has_a_button(apart: DevStack, people: People) -> None:
    assert ".studios.localhost:" in apart.shared["url"]
    alice = people.come("alice")
    log_in_at_platform(alice, apart.platform_url)
    alice.page.get_by_role("row").filter(has_text="Shared Studio").get_by_role("link", name="Show here").click()
    window = press_the_button(alice.page)
    expect(window.get_by_role("link", name=FILE, exact=True)).to_be_visible()
    assert window.url == apart.shared["url"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A page with a Studio in it, and that Studio; with a Platform that this project did not write, all over https."""
    folder = tmp_path_factory.mktemp("foreign")
    edge, provider, tls = free_ports(3)
    url, platform = f"https://connect.example.localhost:{tls}", f"https://platform.example.localhost:{tls}"
    with ExitStack() as stack:
        log = folder / "provider.log"
        running = stack.enter_context(foreign_provider(port=provider, url=platform, connect=url, log=log))
        authority = Authority(folder)
        hosts = "connect.example.localhost *.connect.example.localhost"
        pages = stack.enter_context(portal())
        places = {hosts: edge, "platform.example.localhost": provider, NEAR: pages.port}
        stack.enter_context(tls_in_front(folder, authority, port=tls, places=places))
        env = {
            "CONNECT_PLATFORM_CA_FILE": str(authority.ca_file),
            "CONNECT_FRAME_ANCESTORS": f"https://{NEAR}:{tls}",
        }
        start_connect(stack, folder, url=url, platform_url=platform, edge=edge, env=env)
        start_agent(stack, folder, url=url, token=running.agent_token())
        studio = url.replace("https://", f"https://a{SESSION}.") + "/"
        yield f"https://{NEAR}:{tls}/?{urlencode({'shows': studio})}", studio


def test_a_platform_of_others_shows_studios_over_https(foreign: tuple[str, str], people: People) -> None:
    around, studio = foreign
    alice = people.come("alice", ignore_https_errors=True)
    page = alice.page
    page.goto(around)
    expect(frame_of(page).get_by_text("You are not logged in")).to_be_visible()
    window = press_the_button(page)
    Person(alice.context, "alice", window).log_in()
    expect(window.get_by_role("link", name=FILE, exact=True)).to_be_visible()
    assert window.url == studio
    alice.context.clear_cookies(domain=re.compile("connect"))
    page.goto(around)
    expect_files(frame_of(page))
