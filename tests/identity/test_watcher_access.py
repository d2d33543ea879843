"""Everybody who has something open is asked about again: soon, not too often, and without harm if nobody answers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import FRESH, STALE, Access, Authorizer, ControlPlane, Decision, SessionInfo
from connect_trio.identity.grants import HTTP, Grant
from connect_trio.identity.watcher_access import AT_ONCE, LOOK, AccessWatcher
from tests.support.grants import granted

ONE, OTHER = granted("00000001", "alice"), granted("00000001", "bob")
NOTICED = FRESH + 1.25 * LOOK
"""Seconds within which an answer of Platform counts here, besides the time that it takes."""


@attrs.define
class Platform:
    """takes: seconds of an answer; infinite for none in time. asked: whom it was asked about, and when."""

    denied: set[str] = attrs.field(factory=set)
    takes: float = 0.01
    away: bool = False
    asked: list[tuple[float, str]] = attrs.field(factory=list)
    asking: int = 0
    most: int = 0

    async def access(self, *, session: str, subject: str, method: str) -> Access:
        self.asked.append((trio.current_time(), subject))
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            allowed = subject not in self.denied
            with trio.move_on_after(2) as scope:
                await trio.sleep(self.takes)
            if scope.cancelled_caught or self.away:
                raise PlatformUnavailable("away")
        finally:
            self.asking -= 1
        info = SessionInfo(id=session, name="", owner="", state="running", tool="")
        return Access(allowed=allowed, reason=None, session=info)


@attrs.define
class Watching:
    platform: Platform
    authorizer: Authorizer
    watcher: AccessWatcher
    live: list[Grant] = attrs.field(factory=list)
    ended: dict[Grant, float] = attrs.field(factory=dict)

    def judge(self, grant: Grant, decision: Decision) -> None:
        if not decision.allowed and grant in self.live:
            self.live.remove(grant)
            self.ended[grant] = trio.current_time()

    async def come_in(self, *grants: Grant) -> None:
        for grant in grants:
            decision = await self.authorizer.check(grant.subject, grant.session, HTTP)
            assert decision.grant == grant
            self.live.append(grant)


@pytest.fixture
def watching(autojump_clock: MockClock, nursery: trio.Nursery) -> Watching:
    platform = Platform()
    authorizer = Authorizer(cast("ControlPlane", platform))
    made = Watching(platform, authorizer, AccessWatcher(authorizer))
    nursery.start_soon(made.watcher.run, lambda: set(made.live), made.judge)
    return made


async def test_who_is_denied_is_out_soon_and_nobody_else(autojump_clock: MockClock, watching: Watching) -> None:
    await watching.come_in(ONE, OTHER)
    for _ in range(20):
        await trio.sleep(1.1)
        watching.platform.denied = {"alice"}
        began = trio.current_time()
        while watching.live == [ONE, OTHER] or watching.live == [OTHER, ONE]:
            await trio.sleep(0.01)
        assert trio.current_time() - began <= NOTICED + 0.1
        assert watching.live == [OTHER]
        watching.platform.denied = set()
        await trio.sleep(FRESH)
        await watching.come_in(ONE)


async def test_it_holds_also_where_platform_takes_its_time(autojump_clock: MockClock, watching: Watching) -> None:
    watching.platform.takes = 1.9
    await watching.come_in(ONE)
    await trio.sleep(7.77)
    watching.platform.denied = {"alice"}
    began = trio.current_time()
    while watching.live:
        await trio.sleep(0.01)
    # The answer that was on its way when it changed, a wait, and the next answer.
    assert trio.current_time() - began <= 1.9 + NOTICED + 1.9 + 0.1


async def test_many_streams_and_their_requests_cost_one_question_in_two_seconds(
    autojump_clock: MockClock, watching: Watching
) -> None:
    await watching.come_in(ONE)
    watching.live.extend([ONE] * 50)
    for _ in range(600):
        await watching.authorizer.check("alice", ONE.session, HTTP)
        await trio.sleep(0.1)
    assert 60 / (FRESH + 1.25 * LOOK + 0.1) <= len(watching.platform.asked) <= 60 / FRESH + 1


async def test_nobody_is_asked_about_who_has_nothing_open(autojump_clock: MockClock, watching: Watching) -> None:
    await watching.come_in(ONE)
    watching.live.clear()
    await trio.sleep(60)
    assert len(watching.platform.asked) == 1


async def test_an_outage_ends_nothing_however_long_and_its_end_is_noticed(
    autojump_clock: MockClock, watching: Watching
) -> None:
    await watching.come_in(ONE, OTHER)
    watching.platform.away = True
    watching.platform.denied = {"alice"}
    await trio.sleep(10 * STALE)
    assert watching.live == [ONE, OTHER]
    with pytest.raises(PlatformUnavailable):
        await watching.authorizer.check("bob", OTHER.session, HTTP)  # who would come in now must wait
    assert watching.watcher.oldest > 9 * STALE
    asked = len(watching.platform.asked)
    assert asked <= 2 * (10 * STALE / FRESH + 2)
    watching.platform.away = False
    await trio.sleep(NOTICED + 0.1)
    assert watching.live == [OTHER]
    await trio.sleep(NOTICED)
    assert watching.watcher.oldest <= NOTICED


async def test_who_is_in_comes_in_again_for_a_minute_of_an_outage(
    autojump_clock: MockClock, watching: Watching
) -> None:
    await watching.come_in(ONE)
    watching.platform.away = True
    await trio.sleep(STALE - FRESH - 1)
    assert (await watching.authorizer.check("alice", ONE.session, HTTP)).open


@pytest.mark.parametrize("takes", [1.0, math.inf])
async def test_a_slow_platform_is_asked_no_more_at_once_and_nothing_piles_up(
    autojump_clock: MockClock, watching: Watching, takes: float
) -> None:
    everybody = [granted("00000001", f"visitor-{number}") for number in range(300)]
    await watching.come_in(*everybody)
    watching.platform.takes = takes
    watching.platform.most = 0
    watching.platform.denied = {"visitor-299"}
    await trio.sleep(120)
    assert watching.platform.most <= AT_ONCE
    assert len(watching.watcher._due) <= len(everybody)
    if takes == math.inf:
        assert watching.live == everybody
    else:
        times = Counter(subject for _, subject in watching.platform.asked)
        del times["visitor-299"]
        assert max(times.values()) - min(times.values()) <= 2, "all take turns"
        assert watching.live == everybody[:-1]
    watching.live.clear()
    await trio.sleep(5)
    assert (len(watching.watcher._due), len(watching.watcher._began), watching.platform.asking) == (0, 0, 0)


async def test_proxies_that_start_together_do_not_ask_together(autojump_clock: MockClock, watching: Watching) -> None:
    await watching.come_in(ONE)
    await trio.sleep(60)
    times = [when for when, _ in watching.platform.asked]
    assert len({round(later - earlier, 3) for earlier, later in itertools.pairwise(times)}) > 5
