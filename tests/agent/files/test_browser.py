"""The page in a real browser: choosing files, dropping them, conflicts, and nothing that the policy had to stop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from playwright.sync_api import Page, expect

from tests.agent.files.conftest import Server
from tests.support.browser import chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DROP = """() => {
  const data = new DataTransfer();
  data.items.add(new File(["dropped content"], "dropped ü.txt"));
  const zone = document.getElementById("drop");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


@contextmanager
def open_page(url: str) -> Iterator[Page]:
    """A page in Chromium; complains of everything that its console had to say."""
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        yield page
    # A name that is free or taken is an answer for the page; Chromium reports it all the same.
    assert [text for text in complaints if "404" not in text and "409" not in text] == []


async def test_files_are_uploaded_by_choosing_and_by_dropping(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(20 << 20))
    (tmp_path / "näme #1?.txt").write_text("chosen")

    def drive() -> None:
        with open_page(f"http://127.0.0.1:{server.port}/") as page:
            page.set_input_files("#upload-input", [large, tmp_path / "näme #1?.txt"])
            expect(page.locator("#uploads li.done")).to_have_count(2)
            expect(page.locator(".entry", has_text="large.bin")).to_be_visible()
            expect(page.locator("#progress")).to_have_js_property("position", 1)
            page.evaluate(DROP)
            expect(page.locator(".entry", has_text="dropped ü.txt")).to_be_visible()
            with page.expect_download() as download:
                page.locator("tr", has_text="large.bin").locator("a.download").click()
            assert Path(download.value.path()).read_bytes() == large.read_bytes()
            page.locator(".entry", has_text="dropped ü.txt").click()
            expect(page.locator("pre.text")).to_have_text("dropped content")

    await trio.to_thread.run_sync(drive)
    assert (server.root / "large.bin").read_bytes() == large.read_bytes()
    assert (server.root / "näme #1?.txt").read_text() == "chosen"


async def test_a_taken_name_is_asked_about(server: Server, tmp_path: Path) -> None:
    (server.root / "file").write_text("old")
    (tmp_path / "file").write_text("new")

    def drive() -> None:
        with open_page(f"http://127.0.0.1:{server.port}/") as page:
            page.set_input_files("#upload-input", tmp_path / "file")
            expect(page.locator("#uploads li.failed")).to_contain_text("exists already")
            page.get_by_role("button", name="Replace").click()
            expect(page.locator("#uploads li.done")).to_have_count(1)

    await trio.to_thread.run_sync(drive)
    assert (server.root / "file").read_text() == "new"


async def test_an_upload_can_be_cancelled(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with open(large, "wb") as file:
        file.truncate(4 << 30)

    def drive() -> None:
        with open_page(f"http://127.0.0.1:{server.port}/") as page:
            page.set_input_files("#upload-input", large)
            expect(page.locator("#uploads .state")).to_contain_text("/s")
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("#uploads li.failed")).to_contain_text("Cancelled")

    await trio.to_thread.run_sync(drive)
    with trio.fail_after(60):
        while os.listdir(server.root):
            await trio.sleep(0.01)


async def test_everything_but_progress_works_without_javascript(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("chosen")

    def drive() -> None:
        with chromium() as browser:
            page = browser.new_context(java_script_enabled=False).new_page()
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.set_input_files("#upload-input", tmp_path / "file")
            page.get_by_role("button", name="Upload").click()
            expect(page.locator(".entry", has_text="file")).to_be_visible()
            page.get_by_text("New folder").click()
            page.get_by_label("Name of the new folder").fill("made")
            page.get_by_role("button", name="Create").click()
            page.locator("tr", has_text="file").locator("a.delete").click()
            page.get_by_role("button", name="Delete").click()
            expect(page.locator(".entry")).to_have_text(["▸made"])

    await trio.to_thread.run_sync(drive)
    assert os.listdir(server.root) == ["made"]
