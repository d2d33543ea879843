"""Refreshing at a provider that is not ours, which rotates its refresh tokens; the clock is the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connect_trio.edge.login_ends import Lives
from connect_trio.edge.login_records import LoginRecords
from connect_trio.edge.login_visits import StudioVisit
from connect_trio.identity.refresh import Tokens
from connect_trio.ports import free_ports
from tests.support.login import OWN, SHARED_URL, Proxy, is_in, open_proxy
from tests.support.oidc_provider import TOKEN, ForeignProvider, foreign_provider
from tests.support.visitor import Browser

HOUR = 3600.0


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignProvider]:
    (port,) = free_ports(1)
    log = tmp_path_factory.mktemp("provider") / "provider.log"
    with foreign_provider(port=port, url=f"http://localhost:{port}", connect=OWN, log=log) as running:
        yield running


async def enter(proxy: Proxy) -> tuple[Browser, StudioVisit]:
    browser = proxy.browser()
    page = await browser.log_in(f"{SHARED_URL}/", "alice")
    assert page.admission is not None, page
    assert isinstance(page.admission.login, StudioVisit)
    return browser, page.admission.login


async def tokens_of(proxy: Proxy, visit: StudioVisit) -> Tokens | None:
    return await LoginRecords(proxy.store).get(Tokens, visit.visit.key)


async def test_a_login_is_refreshed_with_rotation_until_the_provider_ends_it(provider: ForeignProvider) -> None:
    opened = open_proxy(provider.url, lives=Lives(), all_clocks=True, registration_token=TOKEN)
    async with opened as proxy:
        browser, visit = await enter(proxy)
        assert visit.visit.login.sid, "so that a logout can name it"
        seen = []
        for _ in range(2):
            tokens = await tokens_of(proxy, visit)
            assert tokens is not None
            seen.append(tokens.refresh_token)
            proxy.clock.offset = max(tokens.due - visit.visit.login.created, 0) + 1
            await proxy.gate.keeper.refresh_due()
            assert await is_in(proxy, browser)
        last = await tokens_of(proxy, visit)
        assert last is not None
        assert len({*seen, last.refresh_token} - {None}) == 3, "each was used once"
        provider.revoke()
        proxy.clock.offset = last.due - visit.visit.login.created + 1
        await proxy.gate.keeper.refresh_due()
        assert not await is_in(proxy, browser)
