"""A real Chromium, and pictures of what it showed when a test failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.e2e import ARTIFACTS, PATIENCE, file_name
from tests.support.parts import require

ARGUMENTS = [
    "--no-sandbox",  # the pages are our own, and root has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    path = require("chromium")
    require("fonts")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE * 1000)
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """Somebody at a browser of their own: its cookies are nobody else's."""

    def __init__(self, context: BrowserContext, name: str, page: Page | None = None) -> None:
        self.context = context
        self.name = name
        self.page: Page = page or context.new_page()

    def log_in(self) -> None:
        """Fill in Platform's form, which must be open."""
        self.page.get_by_label("User name").fill(self.name)
        self.page.get_by_label("Password").fill(self.name)
        self.page.get_by_role("button", name="Log in").click()


class People:
    """Opens browser contexts for persons, and takes a picture of each open page when asked to."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._persons: list[Person] = []

    def come(self, name: str, *, ignore_https_errors: bool = False) -> Person:
        """A person who has never been here before. ignore_https_errors: for authorities that no browser knows."""
        context = self._browser.new_context(
            accept_downloads=True, viewport={"width": 1200, "height": 800}, ignore_https_errors=ignore_https_errors
        )
        context.set_default_timeout(PATIENCE * 1000)
        person = Person(context, name)
        self._persons.append(person)
        return person

    def take_pictures(self, test: str) -> None:
        ARTIFACTS.mkdir(exist_ok=True)
        for person in self._persons:
            for number, page in enumerate(person.context.pages):
                page.screenshot(path=ARTIFACTS / f"{file_name(test)}-{person.name}-{number}.png")

    def leave(self) -> None:
        for person in self._persons:
            person.context.close()
