"""A login that has ended anywhere is noticed, once for all that is open of it, and only if the Store says so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from connect_trio.edge.login_records import Login, LoginRecords, digest
from connect_trio.edge.login_watcher import AT_ONCE, INTERVAL, LoginWatcher
from tests.support.login import BreakableStore

LOGIN = Login(subject="sub", username="alice", created=0.0, id_token="x")


class Store(BreakableStore):
    asked = asking = most = 0

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            await trio.sleep(0.01)
            return await super().get(key)
        finally:
            self.asking -= 1


class Watching:
    def __init__(self) -> None:
        self.store = Store()
        self.records = LoginRecords(self.store)
        self.live: set[object] = set()
        self.ended: list[object] = []

    async def log_in(self, count: int) -> Sequence[str]:
        keys = [digest(await self.records.add(LOGIN, ttl=10_000)) for _ in range(count)]
        self.live.update(keys)
        return keys

    def end(self, login: object, reason: str) -> None:
        assert reason == "your login has ended"
        self.ended.append(login)
        self.live.discard(login)


@pytest.fixture
def watching(autojump_clock: MockClock, nursery: trio.Nursery) -> Watching:
    made = Watching()
    nursery.start_soon(LoginWatcher(made.records).run, lambda: made.live, made.end)
    return made


async def test_a_login_that_has_ended_is_noticed_and_no_other(autojump_clock: MockClock, watching: Watching) -> None:
    one, *others = await watching.log_in(5)
    await trio.sleep(10)
    assert watching.ended == []
    await watching.records.delete(Login, one)
    await trio.sleep(INTERVAL + 0.1)
    assert watching.ended == [one]
    assert watching.live == set(others)


async def test_a_store_that_is_away_ends_nothing(autojump_clock: MockClock, watching: Watching) -> None:
    (login,) = await watching.log_in(1)
    watching.store.broken = True
    await watching.records.delete(Login, login)
    await trio.sleep(600)
    assert watching.ended == []
    watching.store.broken = False
    await trio.sleep(INTERVAL + 0.1)
    assert watching.ended == [login]


async def test_many_logins_are_looked_up_a_few_at_once_and_each_once(
    autojump_clock: MockClock, watching: Watching
) -> None:
    await watching.log_in(500)
    await trio.sleep(0.01)
    watching.store.asked = 0
    await trio.sleep(INTERVAL + 0.5)
    assert watching.store.most <= AT_ONCE
    assert 500 <= watching.store.asked <= 1000
