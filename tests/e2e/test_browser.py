"""Alice and bob in a real browser, with the integrated file server as the tool."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import People, Person
from tests.support.e2e import FULL, MODES, DevStack, MiB, dev_stack

pytestmark = pytest.mark.browser

SIZE = (200 if FULL else 20) * MiB
SLOW = SIZE // 2  # bytes a second: Chromium tells of progress ten times a second at most, and loopback takes less

WATCH_PROGRESS = """() => {
    window.seen = [];
    const bar = document.getElementById("progress");
    new MutationObserver(() => window.seen.push(bar.value / bar.max)).observe(bar, {attributes: true});
}"""


@pytest.fixture(scope="module")
def stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("studio")
    (root / "readme.txt").write_text("hello from the Studio")
    with dev_stack(*MODES[mode], root=root, name=f"browser-{mode}") as stack:
        yield stack


def enter(person: Person, url: str) -> Page:
    """Visit a Studio as somebody who is not logged in yet."""
    person.page.goto(url)
    person.log_in()
    return person.page


@contextmanager
def slow_upload(page: Page) -> Iterator[None]:
    """Let the page send no more than SLOW, so that what it says on the way can be seen however fast the machine is."""
    tools = page.context.new_cdp_session(page)
    tools.send("Network.enable")
    unlimited = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    tools.send("Network.emulateNetworkConditions", unlimited | {"uploadThroughput": SLOW})
    yield
    tools.send("Network.emulateNetworkConditions", unlimited)
    tools.detach()


def test_alice_finds_her_studio_from_the_front_page(stack: DevStack, people: People) -> None:
    alice = people.come("alice")
    page = alice.page
    page.goto(stack.connect_url)
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    page.get_by_role("link", name="Log in").click()
    alice.log_in()
    expect(page.get_by_text("You are logged in as alice.")).to_be_visible()
    page.get_by_role("link", name="Your Studios at Platform").click()
    row = page.get_by_role("row").filter(has_text="Private Studio")
    row.get_by_role("link", name="Open").click()
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()
    assert page.url == stack.private["url"]


def test_a_file_comes_back_as_it_was_uploaded(stack: DevStack, people: People, tmp_path: Path) -> None:
    content = os.urandom(MiB) * (SIZE // MiB - 1) + os.urandom(MiB)
    source = tmp_path / "upload.bin"
    source.write_bytes(content)
    page = enter(people.come("alice"), stack.private["url"])
    expect(page.get_by_text("Choose files")).to_be_visible()
    page.evaluate(WATCH_PROGRESS)
    with slow_upload(page):
        page.locator("#upload-input").set_input_files(source)
        expect(page.locator("#uploads li.done")).to_have_text(re.compile("Done"), timeout=120_000)
    seen = page.evaluate("window.seen")
    assert any(0 < part < 1 for part in seen), f"no progress to be seen: {seen}"
    assert seen == sorted(seen)
    row = page.get_by_role("row").filter(has_text="upload.bin")
    with page.expect_download() as started:
        row.get_by_role("link", name="Download").click()
    download = started.value
    assert download.suggested_filename == "upload.bin"
    assert digest(download.path()) == digest(stack.root / "upload.bin") == hashlib.sha256(content).hexdigest()


def test_a_file_can_be_looked_at(stack: DevStack, people: People) -> None:
    page = enter(people.come("alice"), stack.shared["url"])
    page.get_by_role("link", name="readme.txt", exact=True).click()
    expect(page.get_by_text("hello from the Studio")).to_be_visible()


def test_bob_is_refused_what_is_private_and_opens_what_is_shared(stack: DevStack, people: People) -> None:
    page = enter(people.come("bob"), stack.private["url"])
    expect(page.get_by_text("It is private to alice")).to_be_visible()
    refused = page.goto(stack.private["url"] + "readme.txt")
    assert refused is not None
    assert refused.status == 403
    assert "hello" not in page.content()
    page.goto(stack.shared["url"])
    expect(page.get_by_role("link", name="readme.txt", exact=True)).to_be_visible()


def test_a_deep_link_is_where_the_login_leads(stack: DevStack, people: People) -> None:
    page = enter(people.come("alice"), stack.shared["url"] + "readme.txt?view")
    expect(page.get_by_text("hello from the Studio")).to_be_visible()
    assert page.url == stack.shared["url"] + "readme.txt?view"


def test_after_a_logout_the_studio_asks_again(stack: DevStack, people: People) -> None:
    page = enter(people.come("alice"), stack.shared["url"])
    expect(page.get_by_text("Choose files")).to_be_visible()
    page.goto(stack.shared["url"] + "_connect/logout")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are not logged in.")).to_be_visible()
    page.goto(stack.shared["url"])
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(stack.private["url"])
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_wrong_password_is_told(stack: DevStack, people: People) -> None:
    page = people.come("alice").page
    page.goto(stack.shared["url"])
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("bob")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.url.startswith(stack.platform_url)


def test_an_unknown_studio_is_a_page_that_says_so(stack: DevStack, people: People) -> None:
    unknown = stack.shared["url"].replace(stack.shared["label"], "a00000000")
    # Strangers learn nothing about which Studios there are.
    page = enter(people.come("alice"), unknown)
    expect(page.get_by_role("heading")).to_have_text("There is no such Studio")
    answer = page.reload()
    assert answer is not None
    assert answer.status == 404


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
