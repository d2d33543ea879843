"""Logins at a provider that this project did not write, in Chromium, over http and behind nginx that ends TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
from playwright.sync_api import Browser, Page, expect

from connect_trio.ports import free_ports
from tests.support.browser import ARGUMENTS, People, Person
from tests.support.certificates import Authority
from tests.support.e2e import PATIENCE, wait_until
from tests.support.oidc_provider import SESSION, TOKEN, ForeignProvider, foreign_provider, tls_in_front
from tests.support.parts import require
from tests.support.processes import RunningRole, running_role
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.browser, pytest.mark.redis]


@attrs.frozen
class Scene:
    """A whole Connect and its Platform. url: of Connect."""

    url: str
    provider: ForeignProvider
    proxy: RunningRole

    @property
    def studio(self) -> str:
        scheme, _, host = self.url.partition("://")
        return f"{scheme}://a{SESSION}.{host}/"


@pytest.fixture(scope="module", params=["http", "https"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("foreign")
    edge, platform, tls = free_ports(3)
    secure = request.param == "https"
    url = f"https://connect.localhost:{tls}" if secure else f"http://connect.localhost:{edge}"
    platform_url = f"https://localhost:{tls}" if secure else f"http://localhost:{platform}"
    with ExitStack() as stack:
        provider = foreign_provider(port=platform, url=platform_url, connect=url, log=folder / "provider.log")
        running = stack.enter_context(provider)
        env: dict[str, str] = {}
        if secure:
            authority = Authority(folder)
            places = {"connect.localhost *.connect.localhost": edge, "localhost": platform}
            stack.enter_context(tls_in_front(folder, authority, port=tls, places=places))
            env = {"CONNECT_PLATFORM_CA_FILE": str(authority.ca_file)}
        proxy = start_connect(stack, folder, url=url, platform_url=platform_url, edge=edge, env=env)
        start_agent(stack, folder, url=url, token=running.agent_token())
        yield Scene(url, running, proxy)


def start_connect(
    stack: ExitStack, folder: Path, *, url: str, platform_url: str, edge: int, env: dict[str, str]
) -> RunningRole:
    redis = RedisServer(folder)
    redis.start()
    stack.callback(redis.stop)
    shared = {"CONNECT_REDIS_ADDRESS": redis.address, "CONNECT_DRAIN_GRACE": "0s"}
    ports = {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0", "CONNECT_BIND_HOST": "127.0.0.1"}
    server = stack.enter_context(running_role("server", env=shared | ports, log=folder / "server.log"))
    proxy = {
        "CONNECT_HTTP_HOST": "127.0.0.1",
        "CONNECT_HTTP_PORT": str(edge),
        "CONNECT_PROXY_URL": url,
        "CONNECT_TUNNEL_URL": f"127.0.0.1:{server.started['tunnel_port']}",
        "PLATFORM_URL": platform_url,
        "CONNECT_STORAGE_ROOT": str(folder / "storage"),
        "CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN": TOKEN,
    }
    return stack.enter_context(running_role("proxy", env=shared | proxy | env, log=folder / "proxy.log"))


def start_agent(stack: ExitStack, folder: Path, *, url: str, token: str) -> None:
    """An agent that shows one file; it trusts the authority of the scene, if there is one."""
    shown = folder / "studio"
    shown.mkdir()
    (shown / "readme.txt").write_text("hello from the Studio")
    env = {"CONNECT_PROXY_URL": url, "CONNECT_AGENT_TOKEN": token, "CONNECT_FILES_ROOT": str(shown)}
    if url.startswith("https:"):
        env["SSL_CERT_FILE"] = str(folder / "ca.pem")
    stack.enter_context(running_role("agent", env=env, log=folder / "agent.log"))


def enter(people: People, scene: Scene, name: str) -> Page:
    person = people.come(name, ignore_https_errors=True)
    person.page.goto(scene.studio)
    person.log_in()
    return person.page


def wait_for_login_page(page: Page, scene: Scene) -> None:
    """Visit the Studio until that leads to the provider's login page."""

    def is_asked() -> bool:
        page.goto(scene.studio)
        return page.get_by_label("Password").count() == 1

    wait_until(is_asked, "the login page", every=0.5)


def test_alice_logs_in_and_out(scene: Scene, people: People) -> None:
    page = enter(people, scene, "alice")
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert page.url == scene.studio
    page.goto(scene.url)
    expect(page.get_by_text("You are logged in as alice.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    wait_for_login_page(page, scene)  # a logout is noticed everywhere within two seconds


def test_who_logs_out_at_the_provider_is_out_of_all_studios_within_seconds(scene: Scene, people: People) -> None:
    """By the back channel: the browser brings no word of it to Connect."""
    page = enter(people, scene, "alice")
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    other = enter(people, scene, "bob")
    at_provider = page.context.new_page()
    at_provider.goto(f"{scene.provider.url}/api/session/end")
    at_provider.get_by_role("button", name="Yes, sign me out").click()
    expect(at_provider.get_by_text("Sign-out Success")).to_be_visible()

    def is_refused() -> bool:
        return bool(page.evaluate("fetch('/', {headers: {accept: '*/*'}}).then((answer) => answer.status)") == 401)

    wait_until(is_refused, "the Studio's next request is refused", every=0.2)
    page.goto(scene.url)
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    other.goto(scene.url)
    expect(other.get_by_text("You are logged in as bob.")).to_be_visible()
    told = [line for line in scene.proxy.said if "Platform has ended one session" in line]
    assert told


def test_cookies_are_of_one_host_and_hidden_from_scripts(scene: Scene, people: People) -> None:
    page = enter(people, scene, "alice")
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    ours = [cookie for cookie in page.context.cookies() if "connect_" in cookie.get("name", "")]
    secure = scene.url.startswith("https:")
    assert len(ours) >= 3
    for cookie in ours:
        assert not cookie["domain"].startswith("."), "sent to its own host only"
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, secure, "Lax")
        assert cookie["name"].startswith("__Host-") is secure
    assert "connect_" not in page.evaluate("document.cookie")


def test_bob_is_refused(scene: Scene, people: People) -> None:
    page = enter(people, scene, "bob")
    expect(page.get_by_text("It is private to alice.")).to_be_visible()
    expect(page.get_by_text("You are logged in as bob.")).to_be_visible()


def test_a_key_that_was_rotated_is_picked_up_without_a_restart(scene: Scene, people: People) -> None:
    expect(enter(people, scene, "alice").get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    scene.provider.rotate()
    page = enter(people, scene, "alice")
    expect(page.get_by_label("Password")).to_have_count(0)

    def is_in() -> bool:
        page.goto(scene.studio)
        return page.get_by_role("link", name="readme.txt", exact=True).count() == 1

    # Keys are read again at most every five seconds, whatever tokens name.
    wait_until(is_in, "the Studio", every=0.5)


def test_connect_registers_again_with_a_provider_that_forgot_it(scene: Scene, people: People) -> None:
    scene.provider.forget_clients()
    alice = people.come("alice", ignore_https_errors=True)
    # Whether Connect is known is asked once in two seconds; who comes in between sees the provider's own error.
    wait_for_login_page(alice.page, scene)
    alice.log_in()
    expect(alice.page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    registrations = [line for line in scene.proxy.said if "registered with Platform" in line]
    assert len(registrations) == 2


@pytest.mark.parametrize("of", ["the Studio", "Connect itself"])
def test_a_browser_that_refuses_cookies_is_told_so_and_not_sent_in_circles(
    scene: Scene, browser: Browser, tmp_path: Path, of: str
) -> None:
    titles = {"the Studio": "Your browser does not send Connect's cookie", "Connect itself": "The login did not work"}
    refused = scene.studio.rstrip("/") if of == "the Studio" else scene.url
    visits = list[str]()
    with refusing_cookies(browser, tmp_path, refused) as page:
        page.on("request", lambda request: visits.append(request.url))
        page.goto(scene.studio)
        Person(page.context, "alice", page).log_in()
        expect(page.get_by_role("heading")).to_have_text(titles[of])
    assert 1 <= len([url for url in visits if "/_connect/login" in url]) <= 2, visits


@contextmanager
def refusing_cookies(browser: Browser, folder: Path, origin: str) -> Iterator[Page]:
    """A page of a browser that is told, in its settings, to keep no cookies of this origin."""
    rules = {f"{origin},*": {"setting": 2}}
    settings = {"profile": {"content_settings": {"exceptions": {"cookies": rules}}}}
    (folder / "Default").mkdir()
    (folder / "Default" / "Preferences").write_text(json.dumps(settings))
    context = browser.browser_type.launch_persistent_context(
        folder, executable_path=require("chromium"), args=ARGUMENTS, ignore_https_errors=True
    )
    context.set_default_timeout(PATIENCE * 1000)
    try:
        yield context.pages[0]
    finally:
        context.close()
