"""Studios below paths of Connect's own host and on hosts of their own, both at once, in a real browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_jupyter import Listener, open_notebook
from tests.support.browser import People, Person
from tests.support.e2e import ARTIFACTS, DevStack, dev_stack, wait_until, with_tool
from tests.support.jupyter import START, jupyter_stack

pytestmark = pytest.mark.browser

ON = {"CONNECT_PATH_ROUTING": "on"}

# A tool that tells what it was asked with, and whose answers try to reach beyond their Studio.
TOOL = r"""
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = os.environ["CONNECT_TOOL_PATH_PREFIX"]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0]
        if not path.startswith(PREFIX + "/"):
            return self.answer(404, b"outside of the prefix", "text/plain")
        if path.endswith("/worker.js"):
            return self.answer(200, b"onfetch = () => {}", "text/javascript", ("Service-Worker-Allowed", "/"))
        if path.endswith("/away"):
            return self.answer(302, b"", "text/plain", ("Location", "/landed"))
        if path.endswith("/asked"):
            asked = {"cookies": self.headers.get("Cookie", "")}
            return self.answer(200, json.dumps(asked).encode(), "application/json")
        mine = PREFIX.rpartition("/")[2]
        cookies = [("Set-Cookie", f"of-{mine}=1; Path=/"), ("Set-Cookie", f"nowhere-{mine}=1"),
                   ("Set-Cookie", f"far-{mine}=1; Domain=connect.localhost; Path=/_studio")]
        self.answer(200, f"<title>tool</title><h1>{path}</h1>".encode(), "text/html", *cookies)

    def answer(self, status, body, kind, *headers):
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

# An answer of 404 that leads elsewhere is cut, and that is no news.
ThreadingHTTPServer.handle_error = lambda *_: None
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def below_path(stack: DevStack, session: dict[str, str]) -> str:
    assert session["path_url"] == f"{stack.connect_url}/_studio/{session['label']}/"
    return session["path_url"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("studio")
    (root / "readme.txt").write_text("hello from the Studio")
    # As Platform says, and not as it is set.
    with dev_stack(root=root, name="paths-files", env={"TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING": "true"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("studio")
    script = root / "tool.py"
    script.write_text(TOOL)
    with dev_stack(
        *with_tool("single", [sys.executable, str(script), "{port}"]), root=root, name="paths-tools", env=ON
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    with jupyter_stack("single", tmp_path_factory.mktemp("jupyter"), name="paths-jupyter", env=ON) as stack:
        yield stack


def enter(person: Person, url: str) -> Page:
    person.page.goto(url)
    person.log_in()
    return person.page


def picture(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"paths-{name}.png")


# the file server


def upload_and_download(page: Page, stack: DevStack, file: Path) -> None:
    page.locator("#upload-input").set_input_files(file)
    row = page.get_by_role("row").filter(has_text=file.name)
    with page.expect_download() as started:
        row.get_by_role("link", name="Download").click()
    assert started.value.path().read_bytes() == (stack.root / file.name).read_bytes() == file.read_bytes()


def test_files_go_up_and_down_in_both_url_modes_at_once(files: DevStack, people: People, tmp_path: Path) -> None:
    alice = people.come("alice")
    by_path = enter(alice, below_path(files, files.private) + "?sort=size")
    assert by_path.url == below_path(files, files.private) + "?sort=size", "the login leads to where it was for"
    by_host = alice.context.new_page()
    by_host.goto(files.private["url"])
    expect(by_host.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert by_host.url == files.private["url"]
    for page, name in ((by_path, "by-path.bin"), (by_host, "by-host.bin")):
        file = tmp_path / name
        file.write_bytes(name.encode() * 50_000)
        upload_and_download(page, files, file)
    by_path.get_by_role("link", name="readme.txt", exact=True).click()
    expect(by_path.get_by_text("hello from the Studio")).to_be_visible()
    assert by_path.url == below_path(files, files.private) + "readme.txt?view"
    picture(by_host, "files-by-host")


def test_links_of_platform_and_of_connect_lead_below_the_path(files: DevStack, people: People) -> None:
    page = enter(people.come("alice"), files.connect_url + "/_connect/login")
    page.get_by_role("link", name="Private Studio").click()
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert page.url == below_path(files, files.private)
    page.goto(files.platform_url)
    page.get_by_role("row").filter(has_text="Shared Studio").get_by_role("link", name="Open").click()
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert page.url == below_path(files, files.shared)


def test_a_studio_that_is_private_is_so_below_its_path_too(files: DevStack, people: People) -> None:
    page = enter(people.come("bob"), below_path(files, files.private))
    expect(page.get_by_text("It is private to alice")).to_be_visible()
    page.goto(below_path(files, files.shared).rstrip("/"))
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert page.url == below_path(files, files.shared)


def test_a_logout_ends_both_kinds_of_visits(files: DevStack, people: People) -> None:
    alice = people.come("alice")
    page = enter(alice, below_path(files, files.shared))
    expect(page.get_by_text("Choose files")).to_be_visible()
    page.goto(files.private["url"])
    expect(page.get_by_text("Choose files")).to_be_visible()
    page.goto(below_path(files, files.shared) + "_connect/logout")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    page.goto(below_path(files, files.shared))
    expect(page.get_by_label("Password")).to_be_visible()
    wait_until(lambda: asks_for_a_password(page, files.private["url"]), "the end of the visit on the Studio's host")


def asks_for_a_password(page: Page, url: str) -> bool:
    page.goto(url)
    return page.get_by_label("Password").count() == 1


# a tool that tries to reach beyond its path


def names_of_cookies(page: Page, path: str) -> set[str]:
    sent: str = page.evaluate("path => fetch(path).then(answer => answer.json())", path)["cookies"]
    return {pair.partition("=")[0].strip() for pair in sent.split(";") if pair.strip()}


def test_two_sessions_below_paths_do_not_see_each_others_cookies(tools: DevStack, people: People) -> None:
    alice = people.come("alice")
    first, second = (below_path(tools, session) for session in (tools.private, tools.shared))
    page = enter(alice, first)
    other = alice.context.new_page()
    other.goto(second)
    for _ in range(2):  # with what the other one has set by then
        for tab, url, session in ((page, first, tools.private), (other, second, tools.shared)):
            tab.goto(url)
            mine = {f"{name}-{session['label']}" for name in ("of", "nowhere", "far")}
            assert names_of_cookies(tab, url + "asked") == mine
            assert {pair.partition("=")[0] for pair in tab.evaluate("document.cookie").split("; ")} == mine
    kept = [
        cookie for cookie in alice.context.cookies() if cookie["name"].partition("-")[0] in ("of", "nowhere", "far")
    ]
    assert {cookie["path"].split("/")[2] for cookie in kept} == {tools.private["label"], tools.shared["label"]}
    page.goto(first + "away")
    expect(page.get_by_role("heading")).to_have_text(f"/_studio/{tools.private['label']}/landed")


def test_a_script_of_one_studio_reaches_neither_connects_pages_nor_a_studio_that_is_not_open(
    tools: DevStack, people: People
) -> None:
    alice = people.come("alice")
    page = enter(alice, below_path(tools, tools.private))
    other = below_path(tools, tools.shared)
    status = "url => fetch(url).then(answer => answer.status)"
    assert page.evaluate(status, other + "asked") == 403, "a page of another Studio asks"
    bare = "url => fetch(url, {referrerPolicy: 'no-referrer'}).then(answer => answer.status)"
    assert page.evaluate(bare, other + "asked") == 401, "nobody has opened that Studio"
    for path in ("/", "/_connect/logout", "/_connect/login"):
        assert page.evaluate(status, path) == 403
    socket = """url => new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => done("open");
        socket.onerror = () => done("refused");
    })"""
    assert page.evaluate(socket, other.replace("http:", "ws:") + "asked") == "refused"
    worker = """scope => navigator.serviceWorker.register("worker.js", {scope})
        .then(() => "registered", error => error.name)"""
    assert page.evaluate(worker, "/") == page.evaluate(worker, "/_connect/") == "SecurityError"
    assert page.evaluate(worker, "./") == "registered"


def test_a_script_of_a_studio_cannot_look_into_a_page_of_connects_that_it_opens(
    tools: DevStack, people: People
) -> None:
    alice = people.come("alice")
    page = enter(alice, below_path(tools, tools.private))
    with alice.context.expect_page() as opened:
        page.evaluate("() => { window.opened = window.open('/_connect/logout') }")
    expect(opened.value.get_by_role("button", name="Log out")).to_be_visible()
    look = "() => { try { return window.opened.document.body.innerHTML } catch (error) { return error.name } }"
    assert page.evaluate(look) == "SecurityError"
    frame = """() => new Promise(done => {
        const frame = document.createElement("iframe");
        frame.src = "/_connect/logout";
        frame.onload = () => done(frame.contentDocument ? frame.contentDocument.body.innerText : "closed");
        document.body.append(frame);
    })"""
    assert "Log out" not in page.evaluate(frame)
    form = """() => fetch("/_connect/logout", {method: "POST"}).then(answer => answer.status)"""
    assert page.evaluate(form) == 403
    page.evaluate("""() => {
        const form = document.createElement("form");
        form.method = "post";
        form.action = "/_connect/logout";
        document.body.append(form);
        form.submit();
    }""")
    expect(page.get_by_role("heading")).to_have_text("Not logged out")
    page.goto(below_path(tools, tools.private))
    expect(page.get_by_role("heading")).to_have_text(f"/_studio/{tools.private['label']}/")


def test_a_tool_with_a_prefix_is_found_on_the_studios_own_host(tools: DevStack, people: People) -> None:
    page = enter(people.come("alice"), tools.private["url"] + "some/page?x=1")
    expect(page.get_by_role("heading")).to_have_text(f"/_studio/{tools.private['label']}/some/page")
    assert page.url == f"{tools.private['url']}_studio/{tools.private['label']}/some/page?x=1"


# JupyterLab


def compute(page: Page, listener: Listener, text: str) -> None:
    page.keyboard.type(f"print({text!r}.upper())")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_have_text(text.upper(), timeout=START)
    page.locator('[data-command="launcher:create"]').first.click()
    page.locator('.jp-LauncherCard[title="Start a new terminal session"]').click()
    page.locator(".jp-Terminal .xterm").click()
    page.keyboard.type(f"ls | sed 's/^/{text}: /'\n")
    listener.wait_for(f"{text}: alices-data.csv", on="/terminals/websocket/")


def test_jupyterlab_computes_in_both_url_modes_at_once(jupyter: DevStack, people: People) -> None:
    alice = people.come("alice")
    url = below_path(jupyter, jupyter.private)
    by_path = open_notebook(alice, url)
    compute(alice.page, by_path, "below a path")
    picture(alice.page, "jupyter-by-path")
    where = url.removeprefix("http:")
    assert {address.removeprefix("ws:").startswith(where) for address in by_path.heard} == {True}

    other = Person(alice.context, "alice", alice.context.new_page())
    by_host = Listener(other.page)
    other.page.goto(jupyter.private["url"] + "lab?reset")
    other.page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    expect(other.page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible(timeout=START)
    other.page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    compute(other.page, by_host, "on a host")
    picture(other.page, "jupyter-by-host")
    host = jupyter.private["url"].removeprefix("http:")
    assert {address.removeprefix("ws:").startswith(host) for address in by_host.heard} == {True}
    assert by_path.closed == []
