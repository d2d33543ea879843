"""Logins in use are refreshed: by one proxy, at the right time, and what Platform has ended ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from connect_trio.edge.login_visits import StudioVisit
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.refresh import Refresher, Tokens
from tests.support.login import Proxy, inside, is_in
from tests.support.replicas import Replicas, redis_server, replicas

__all__ = ["redis_server", "replicas"]

HOUR = 3600.0
Ask = Callable[[Tokens], Awaitable[Tokens]]


class Ended(list[object]):
    def __call__(self, visit: object, reason: str) -> None:
        self.append(visit)


def instead(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, what: Callable[[Ask, Tokens], Awaitable[Tokens]]) -> None:
    """Let a proxy's refresher do `what(real, tokens)`."""
    refresher = proxy.identity.oidc.refresher
    real = Refresher.refresh

    async def refresh(tokens: Tokens, *, subject: str) -> Tokens:
        return await what(lambda tokens: real(refresher, tokens, subject=subject), tokens)

    monkeypatch.setattr(refresher, "refresh", refresh)


async def tokens_of(replicas: Replicas, visit: StudioVisit) -> Tokens:
    tokens = await replicas.tokens(visit)
    assert tokens is not None
    return tokens


async def test_nothing_is_asked_before_it_is_due(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    _, visit = await inside(replicas.one)
    before = await tokens_of(replicas, visit)
    assert before.refresh_token is not None
    await replicas.one.gate.keeper.refresh_due()
    replicas.pass_time(HOUR / 2)
    await replicas.one.gate.keeper.refresh_due()
    assert await tokens_of(replicas, visit) == before


async def test_tokens_of_a_login_in_use_are_refreshed_before_they_expire(replicas: Replicas) -> None:
    browser, visit = await inside(replicas.one)
    before = await tokens_of(replicas, visit)
    replicas.pass_time(HOUR * 0.9)
    await replicas.one.gate.keeper.refresh_due()
    after = await tokens_of(replicas, visit)
    assert after.refresh_token not in (None, before.refresh_token)
    assert (after.nonce, after.client_id, after.unsure) == (before.nonce, before.client_id, False)
    assert await is_in(replicas.other, browser)


async def test_a_login_that_is_not_used_is_left_alone(replicas: Replicas) -> None:
    browser, visit = await inside(replicas.one)
    before = await tokens_of(replicas, visit)
    await replicas.one.gate.keeper.renew_due()
    replicas.pass_time(HOUR * 0.9)
    await replicas.one.gate.keeper.renew_due()
    await replicas.one.gate.keeper.refresh_due()
    assert await tokens_of(replicas, visit) == before
    assert await is_in(replicas.one, browser)
    await replicas.one.gate.keeper.refresh_due()
    assert await tokens_of(replicas, visit) != before


async def test_of_two_proxies_one_refreshes(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, _ = await inside(replicas.one)
    assert await is_in(replicas.other, browser)
    asked = []

    async def slowly(real: Ask, tokens: Tokens) -> Tokens:
        asked.append(tokens.refresh_token)
        await trio.sleep(0.05)
        return await real(tokens)

    replicas.pass_time(HOUR * 0.9)
    for proxy in (replicas.one, replicas.other):
        instead(proxy, monkeypatch, slowly)
    async with trio.open_nursery() as nursery:
        for proxy in (replicas.one, replicas.other):
            nursery.start_soon(proxy.gate.keeper.refresh_due)
    assert len(asked) == 1
    replicas.pass_time(31)
    for proxy in (replicas.one, replicas.other):
        await proxy.gate.keeper.refresh_due()
        assert await is_in(proxy, browser)
    assert len(asked) == 1, "the other one has seen that it is done"


async def test_a_login_that_platform_has_ended_ends_at_all_proxies(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, visit = await inside(replicas.one)
    spent = await tokens_of(replicas, visit)
    # As good as revoked: Platform gives nothing for it any more.
    await replicas.one.identity.oidc.refresher.refresh(spent, subject=visit.session.subject)
    replicas.pass_time(HOUR * 0.9)
    await replicas.one.gate.keeper.refresh_due()
    ended = Ended()
    await replicas.other.gate.keeper.look(lambda: [visit], ended)
    assert ended == [visit]
    for proxy in (replicas.one, replicas.other):
        assert not await is_in(proxy, browser)
    assert await replicas.tokens(visit) is None


async def test_a_platform_that_is_away_ends_nothing(replicas: Replicas) -> None:
    browser, visit = await inside(replicas.one)
    before = await tokens_of(replicas, visit)
    await replicas.platform.stop()
    replicas.pass_time(HOUR * 0.9)
    for _ in range(3):
        await replicas.one.gate.keeper.refresh_due()
        replicas.pass_time(31)
    assert await tokens_of(replicas, visit) == before, "nothing was sent, so nothing is spent"
    ended = Ended()
    await replicas.one.gate.keeper.look(lambda: [visit], ended)
    assert not ended
    assert browser.cookies


async def test_a_lost_answer_logs_nobody_out(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, visit = await inside(replicas.one)

    async def lose(real: Ask, tokens: Tokens) -> Tokens:
        await real(tokens)
        raise PlatformUnavailable("the answer is lost", sent=True)

    replicas.pass_time(HOUR * 0.9)
    with monkeypatch.context() as patch:
        instead(replicas.one, patch, lose)
        await replicas.one.gate.keeper.refresh_due()
    assert (await tokens_of(replicas, visit)).unsure
    replicas.pass_time(31)
    await replicas.one.gate.keeper.refresh_due()
    after = await tokens_of(replicas, visit)
    assert after.refresh_token is None, "Platform says that it was used before, as it was"
    for proxy in (replicas.one, replicas.other):
        assert await is_in(proxy, browser)
    replicas.pass_time(HOUR)
    await replicas.one.gate.keeper.refresh_due()
    assert await is_in(replicas.one, browser)


async def test_a_proxy_that_is_killed_while_it_asks_logs_nobody_out(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, visit = await inside(replicas.one)
    asking = trio.Event()

    async def hang(real: Ask, tokens: Tokens) -> Tokens:
        await real(tokens)
        asking.set()
        await trio.sleep_forever()
        raise AssertionError

    replicas.pass_time(HOUR * 0.9)
    instead(replicas.one, monkeypatch, hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replicas.one.gate.keeper.refresh_due)
        await asking.wait()
        nursery.cancel_scope.cancel()
    assert await is_in(replicas.other, browser)
    await replicas.other.gate.keeper.refresh_due()
    assert (await tokens_of(replicas, visit)).unsure, "the claim of the dead one holds for a minute"
    await replicas.other.store.delete(f"login:refreshing:{visit.visit.key}")
    replicas.pass_time(31)
    await replicas.other.gate.keeper.refresh_due()
    assert (await tokens_of(replicas, visit)).refresh_token is None
    assert await is_in(replicas.other, browser)


async def test_a_logout_while_platform_is_asked_is_not_undone(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, visit = await inside(replicas.one)

    async def log_out_meanwhile(real: Ask, tokens: Tokens) -> Tokens:
        renewed = await real(tokens)
        browser.gate = replicas.other.gate
        await browser.log_out("http://connect.localhost:8080/_connect/logout")
        return renewed

    jar = {host: dict(cookies) for host, cookies in browser.cookies.items()}
    replicas.pass_time(HOUR * 0.9)
    instead(replicas.one, monkeypatch, log_out_meanwhile)
    await replicas.one.gate.keeper.refresh_due()
    assert await replicas.tokens(visit) is None
    browser.cookies = jar
    assert not await is_in(replicas.one, browser)


async def test_a_login_without_a_refresh_token_is_never_asked_about(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, visit = await inside(replicas.one)
    records = replicas.one.gate._visits._records
    await records.replace(visit.visit.key, attrs.evolve(await tokens_of(replicas, visit), refresh_token=None))

    async def never(real: Ask, tokens: Tokens) -> Tokens:
        raise AssertionError

    instead(replicas.one, monkeypatch, never)
    replicas.pass_time(HOUR * 2)
    await replicas.one.gate.keeper.refresh_due()
    assert await is_in(replicas.one, browser)


async def test_refresh_tokens_never_reach_a_browser(replicas: Replicas) -> None:
    browser, visit = await inside(replicas.one)
    tokens = await tokens_of(replicas, visit)
    assert tokens.refresh_token is not None
    assert tokens.refresh_token not in repr(tokens)
    seen = [*browser.trail, *(value for jar in browser.cookies.values() for value in jar.values())]
    assert not any(tokens.refresh_token in text for text in seen)
