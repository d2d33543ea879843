"""A real JupyterLab behind Connect: its kernels and terminals live on WebSockets."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, WebSocket, expect

from tests.support.browser import People, Person
from tests.support.e2e import PATIENCE, DevStack
from tests.support.jupyter import START, jupyter_stack
from tests.support.portal import Portal, portal

pytestmark = pytest.mark.browser

# To browsers, names under connect.localhost are of one site, as Connect and Platform are in production.
AROUND = "portal.connect.localhost"


@pytest.fixture(scope="module")
def pages() -> Iterator[Portal]:
    with portal() as pages:
        yield pages


@pytest.fixture(scope="module")
def stack(mode: str, pages: Portal, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    env = {"CONNECT_FRAME_ANCESTORS": pages.origin(AROUND)}
    with jupyter_stack(mode, tmp_path_factory.mktemp("jupyter"), name=f"jupyter-{mode}", env=env) as stack:
        yield stack


class Listener:
    """What a page hears on its WebSockets. closed: those that have ended."""

    def __init__(self, page: Page) -> None:
        self.heard: dict[str, str] = {}
        self.closed: list[str] = []
        self._page = page
        page.on("websocket", self._listen)

    def on(self, path: str) -> str:
        """Everything from WebSockets with this in their address."""
        return "".join(text for url, text in self.heard.items() if path in url)

    def wait_for(self, text: str, *, on: str) -> None:
        for _ in range(int(PATIENCE / 0.1)):
            if text in self.on(on):
                return
            self._page.wait_for_timeout(100)  # which also lets the page's events come in
        pytest.fail(f"{text!r} was not heard on {on}: {self.on(on)!r}")

    def _listen(self, socket: WebSocket) -> None:
        self.heard.setdefault(socket.url, "")

        def hear(frame: str | bytes) -> None:
            self.heard[socket.url] += frame if isinstance(frame, str) else frame.decode(errors="replace")

        socket.on("framereceived", hear)
        socket.on("close", lambda socket: self.closed.append(socket.url))


def open_notebook(alice: Person, url: str) -> Listener:
    """JupyterLab with a new notebook whose kernel is there; the cursor is in the first cell."""
    page = alice.page
    alice.context.set_default_timeout(START)
    listener = Listener(page)
    page.goto(url + "lab?reset")  # whatever an earlier test has left open
    alice.log_in()
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    # What is run before there is a kernel is not run at all.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible(timeout=START)
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    return listener


def test_a_notebook_does_not_notice_that_every_server_was_killed(
    stack: DevStack, people: People, mode: str, tmp_path: Path
) -> None:
    if mode != "processes":
        pytest.skip("a server that is a process of its own can be killed")
    alice = people.come("alice")
    listener = open_notebook(alice, stack.private["url"])
    go_on = tmp_path / "go on"
    alice.page.keyboard.type(
        f"import os, time\nfor line in range(200): print('line', line, os.path.exists('{go_on}')); time.sleep(0.02)\n"
    )
    alice.page.keyboard.press("Shift+Enter")
    listener.wait_for("line 5 False", on="/channels")
    for pid in stack.pids("server"):  # as they are now: one that is killed is missing for a while
        os.kill(pid, signal.SIGKILL)
    go_on.touch()
    listener.wait_for("line 199 True", on="/channels")
    output = alice.page.locator(".jp-OutputArea-output").first
    expect(output).to_contain_text("line 199 True", timeout=START)
    lines = [int(number) for number in re.findall(r"line (\d+)", output.inner_text())]
    assert lines == list(range(200)), "a line of the output is missing, doubled, or in the wrong place"
    assert listener.closed == []
    expect(alice.page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible(timeout=START)


def test_a_notebook_computes_and_a_terminal_lists(stack: DevStack, people: People) -> None:
    alice = people.come("alice")
    page = alice.page
    listener = open_notebook(alice, stack.private["url"])
    page.keyboard.type("print(6*7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_have_text("42", timeout=START)

    page.locator('[data-command="launcher:create"]').first.click()
    page.locator('.jp-LauncherCard[title="Start a new terminal session"]').click()
    page.locator(".jp-Terminal .xterm").click()
    page.keyboard.type("ls | sed 's/^/in the Studio: /'\n")
    # The letters are painted on a canvas, so what the page hears is looked at instead.
    listener.wait_for("in the Studio: alices-data.csv", on="/terminals/websocket/")
    assert "42" in listener.on("/channels")
    host = stack.private["url"].removeprefix("http://")
    assert {url.removeprefix("ws://").startswith(host) for url in listener.heard} == {True}


def test_it_shows_inside_the_page_of_an_ancestor(stack: DevStack, people: People, pages: Portal) -> None:
    """JupyterLab itself forbids every other origin than its own to show it."""
    alice = people.come("alice")
    alice.context.set_default_timeout(START)
    alice.page.goto(stack.shared["url"] + "lab?reset")
    alice.log_in()
    expect(alice.page.locator(".jp-LauncherCard").first).to_be_visible(timeout=START)
    alice.page.goto(pages.page(AROUND, stack.shared["url"] + "lab?reset"))
    expect(alice.page.frame_locator("iframe").locator(".jp-LauncherCard").first).to_be_visible(timeout=START)
