"""The queue by which the development Platform tells clients of logouts: bounded, patient, and fair to others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from connect_trio.devplatform import notifications
from connect_trio.devplatform.notifications import Notifier


@asynccontextmanager
async def running(notifier: Notifier) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        yield
        nursery.cancel_scope.cancel()


class Clients:
    """Clients, by address. attempts: at each. silent: those that answer never. refusing: how often each says no."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attempts: Counter[str] = Counter()
        self.at: list[float] = []
        self.silent: set[str] = set()
        self.refusing: Counter[str] = Counter()
        monkeypatch.setattr(notifications, "_told", self.told)

    async def told(self, _: httpx2.AsyncClient, url: str, token: str) -> bool:
        assert token == f"token for {url}"
        self.attempts[url] += 1
        self.at.append(trio.current_time())
        if url in self.silent:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.refusing[url] -= 1
        return self.refusing[url] < 0


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients(monkeypatch)


def tell(notifier: Notifier, url: str) -> None:
    notifier.tell(url, f"token for {url}")


@pytest.mark.parametrize(("refusals", "attempts"), [(0, 1), (1, 2), (2, 3), (3, 3), (99, 3)])
async def test_a_client_is_told_up_to_three_times_a_second_apart(
    clients: Clients, autojump_clock: trio.testing.MockClock, refusals: int, attempts: int
) -> None:
    clients.refusing["a"] = refusals
    notifier = Notifier()
    async with running(notifier):
        tell(notifier, "a")
        await trio.sleep(60)
    assert clients.attempts["a"] == attempts
    assert [later - earlier for earlier, later in zip(clients.at, clients.at[1:], strict=False)] == [1.0] * (
        attempts - 1
    )


async def test_a_client_that_is_given_up_holds_up_no_other(
    clients: Clients, autojump_clock: trio.testing.MockClock
) -> None:
    clients.refusing["a"] = 99
    notifier = Notifier()
    async with running(notifier):
        for url in ("a", "b"):
            tell(notifier, url)
        await trio.sleep(0.5)
        assert clients.attempts == {"a": 1, "b": 1}


async def test_seven_silent_clients_leave_room_for_others(clients: Clients) -> None:
    clients.silent = {f"silent {number}" for number in range(7)}
    notifier = Notifier()
    async with running(notifier):
        for url in (*clients.silent, "a", "b"):
            tell(notifier, url)
        await wait_all_tasks_blocked()
        assert (clients.attempts["a"], clients.attempts["b"]) == (1, 1)


async def test_what_does_not_fit_is_not_told_and_that_is_said(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier()
    for number in range(1001):
        tell(notifier, str(number))
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "not told of a logout" in record.getMessage()
    async with running(notifier):
        await wait_all_tasks_blocked()
    assert len(clients.attempts) == 1000
    assert "1000" not in clients.attempts


async def test_cancelled_it_ends_at_once(clients: Clients) -> None:
    clients.silent = {"a"}
    notifier = Notifier()
    async with running(notifier):
        tell(notifier, "a")
        await wait_all_tasks_blocked()
    assert clients.attempts == {"a": 1}
