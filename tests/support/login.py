"""Gates for tests: as a proxy makes them, with a clock and a store that a test controls."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from connect_trio.edge.login import LoginGate
from connect_trio.edge.login_ends import Lives
from connect_trio.edge.login_visits import StudioVisit
from connect_trio.identity.service import Identity, open_identity
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.names import HostNames
from connect_trio.routing.registry import RegistryUnavailable, Store
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.visitor import Browser, Page

OWN = "http://connect.localhost:8080"
NAMES = HostNames(OWN)
SHARED_URL = f"http://a{SHARED}.connect.localhost:8080"
PRIVATE_URL = f"http://a{PRIVATE}.connect.localhost:8080"
OWN_HOST = "connect.localhost"
SHARED_HOST = f"a{SHARED}.connect.localhost"
PRIVATE_HOST = f"a{PRIVATE}.connect.localhost"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return trio.current_time() + self.offset


class BreakableStore(MemoryStore):
    """A store that a test switches off."""

    broken = False

    async def get(self, key: str) -> bytes | None:
        if self.broken:
            raise RegistryUnavailable("switched off")
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        if self.broken:
            raise RegistryUnavailable("switched off")
        return await super().get_many(keys)


@attrs.frozen
class Proxy:
    gate: LoginGate
    identity: Identity
    clock: Clock
    store: Store
    paths: bool = False

    def browser(self) -> Browser:
        browser = Browser(self.gate, names=NAMES)
        browser.paths = self.paths
        return browser


@asynccontextmanager
async def open_proxy(
    platform_url: str,
    *,
    store: Store | None = None,
    proxy_url: str = OWN,
    domain: str | None = None,
    paths: bool = False,
    clock: Clock | None = None,
    lives: Lives | None = None,
    all_clocks: bool = False,
    registration_token: str | None = None,
) -> AsyncIterator[Proxy]:
    """paths: whether Studios are below paths, too. lives: how long logins last; then the gate's clock of the wall is
    the test's to move, too.

    all_clocks: and with it the one by which tokens are judged.
    """
    clock = clock or Clock()
    store = store or BreakableStore()
    wall_clock = (lambda: time.time() + clock.offset) if lives is not None else time.time
    async with open_identity(
        platform_url=platform_url,
        proxy_url=proxy_url,
        store=store,
        registration_token=registration_token,
        clock=clock,
        wall_clock=wall_clock if all_clocks else time.time,
    ) as identity:
        gate = LoginGate(
            names=HostNames(proxy_url, domain),
            platform_url=platform_url,
            oidc=identity.oidc,
            authorizer=identity.authorizer,
            store=store,
            path_routing=lambda: paths,
            lives=lives,
            clock=clock,
            wall_clock=wall_clock,
        )
        yield Proxy(gate, identity, clock, store, paths)


@pytest.fixture
async def platform() -> AsyncIterator[RunningPlatform]:
    async with running_platform() as running:
        yield running


@pytest.fixture
async def proxy(platform: RunningPlatform) -> AsyncIterator[Proxy]:
    async with open_proxy(platform.url) as opened:
        yield opened


def error_code(page: Page) -> str:
    code = json.loads(page.text)["error"]["code"]
    assert isinstance(code, str)
    return code


async def logged_in(proxy: Proxy, username: str = "alice") -> Browser:
    browser = proxy.browser()
    await browser.log_in(f"{OWN}/_connect/login", username)
    return browser


async def inside(proxy: Proxy, username: str = "alice", *, url: str = f"{SHARED_URL}/") -> tuple[Browser, StudioVisit]:
    """Somebody in a Studio, and what the gate calls their login."""
    browser = proxy.browser()
    page = await browser.log_in(url, username)
    assert page.admission is not None
    assert isinstance(page.admission.login, StudioVisit)
    return browser, page.admission.login


async def is_in(proxy: Proxy, browser: Browser, *, url: str = f"{SHARED_URL}/") -> bool:
    """Whether a program with this browser's cookies is let in, once nothing counts as fresh any more."""
    proxy.clock.offset += 3
    browser.gate = proxy.gate
    return (await browser.request("GET", url, html=False)).admission is not None
