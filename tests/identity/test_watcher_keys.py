"""Keys in use are asked about again and again: few questions, and only what Platform says is gone ends anything."""

from __future__ import annotations

import math
from collections.abc import Collection

import attrs
import pytest
import trio
from trio.testing import MockClock

from connect_trio.identity.answers import Access, KeyAccess, SessionInfo
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane, NotOffered
from connect_trio.identity.watcher_keys import KeyWatcher, UsedKey

WITHIN = 5.0


def used(subject: str, key: str = "one", *, session: str = "00000001") -> UsedKey:
    return UsedKey(subject=subject, fingerprint=f"SHA256:{key}", username=f"name-{subject}", key=key, session=session)


@attrs.define(init=False)
class Keys(ControlPlane):
    """Platform's answers without Platform. takes: seconds of an answer. single: it cannot be asked about many at once.

    questions: how many keys each was about.
    """

    removed: set[tuple[str, str]]
    takes: float
    away: bool
    single: bool
    asking: int
    most: int
    questions: list[int]

    def __init__(self) -> None:
        self.removed = set()
        self.takes = 0.01
        self.away = self.single = False
        self.asking = self.most = 0
        self.questions = []

    async def _answer(self, keys: int) -> None:
        self.questions.append(keys)
        self.asking += 1
        self.most = max(self.most, self.asking)
        with trio.move_on_after(2) as scope:
            await trio.sleep(self.takes)
        self.asking -= 1
        if scope.cancelled_caught or self.away:
            raise PlatformUnavailable("away")

    async def removed_ssh_keys(self, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        if self.single:
            raise NotOffered("unknown call")
        await self._answer(len(keys))
        return self.removed & set(keys)

    async def check_ssh_key(self, *, session: str, username: str, key: str, fingerprint: str) -> KeyAccess | None:
        assert self.single, "there is a better way to ask"
        await self._answer(1)
        if session == "00000000":
            return None
        subject = username.removeprefix("name-")
        gone = (subject, fingerprint) in self.removed
        info = SessionInfo(id=session, name="", owner="", state="running", tool="")
        access = Access(allowed=False, reason="of no interest here", session=info)
        return KeyAccess(access=access, subject=None if gone else subject, username=None)


@attrs.define
class Watching:
    keys: Keys = attrs.field(factory=Keys)
    live: set[UsedKey] = attrs.field(factory=set)
    ended: list[tuple[UsedKey, str]] = attrs.field(factory=list)

    def end(self, key: UsedKey, reason: str) -> None:
        self.ended.append((key, reason))
        self.live.discard(key)

    async def run(self) -> None:
        await KeyWatcher(self.keys).run(lambda: self.live, self.end)


@pytest.fixture(params=[False, True], ids=["many at once", "one by one"])
async def watching(request: pytest.FixtureRequest, autojump_clock: MockClock, nursery: trio.Nursery) -> Watching:
    made = Watching(live={used("alice"), used("bob")})
    made.keys.single = request.param
    nursery.start_soon(made.run)
    await trio.sleep(1)  # the first round is over, the second one is to come
    return made


async def test_a_key_that_is_removed_is_told_within_five_seconds(autojump_clock: MockClock, watching: Watching) -> None:
    await trio.sleep(60)
    assert watching.ended == []
    watching.keys.removed = {("alice", "SHA256:one")}
    await trio.sleep(WITHIN)
    ((key, reason),) = watching.ended
    assert key == used("alice")
    assert reason.startswith("your key SHA256:one was removed at Platform")


async def test_another_users_key_of_the_same_bytes_stays(autojump_clock: MockClock, watching: Watching) -> None:
    watching.keys.removed = {("alice", "SHA256:one")}
    await trio.sleep(60)
    assert watching.live == {used("bob")}


async def test_whoever_comes_in_by_a_key_while_it_is_removed_does_not_stay(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.keys.removed = {("alice", "SHA256:one")}
    await trio.sleep(WITHIN)
    watching.live.add(used("alice"))
    await trio.sleep(WITHIN)
    assert [key.subject for key, _ in watching.ended] == ["alice", "alice"]


@pytest.mark.parametrize("takes", [0.01, math.inf])
async def test_a_platform_that_is_away_ends_nothing(
    autojump_clock: MockClock, watching: Watching, takes: float
) -> None:
    watching.keys.away, watching.keys.takes = True, takes
    watching.keys.removed = {("alice", "SHA256:one")}
    await trio.sleep(300)
    assert watching.ended == []
    watching.keys.away, watching.keys.takes = False, 0.01
    await trio.sleep(WITHIN)
    assert len(watching.ended) == 1


async def test_a_key_in_many_connections_is_asked_about_once(autojump_clock: MockClock, watching: Watching) -> None:
    watching.live = {used("alice", session=f"{number:08x}") for number in range(1, 2001)}
    watching.keys.questions.clear()
    await trio.sleep(2.1)
    assert watching.keys.questions == [1]


async def test_two_thousand_keys_do_not_mean_two_thousand_questions_a_second(
    autojump_clock: MockClock, watching: Watching
) -> None:
    watching.live = {used(f"user-{number}") for number in range(2000)}
    watching.keys.questions.clear()
    await trio.sleep(20)
    rate = len(watching.keys.questions) / 20
    if watching.keys.single:
        assert rate <= 128
        assert watching.keys.most == 8
        asked = len(watching.keys.questions)
        assert asked >= 2000, "each of them had its turn"
    else:
        assert rate <= 4
        assert watching.keys.most == 4
        assert max(watching.keys.questions) == 250
    assert watching.ended == []


async def test_a_platform_that_takes_half_a_second_is_still_heard_in_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watching = Watching(live={used(f"user-{number}") for number in range(2000)})
    watching.keys.takes = 0.5
    nursery.start_soon(watching.run)
    await trio.sleep(10)
    watching.keys.removed = {("user-1999", "SHA256:one"), ("user-0", "SHA256:one")}
    await trio.sleep(WITHIN)
    assert {key.subject for key, _ in watching.ended} == {"user-0", "user-1999"}


async def test_nobody_is_asked_about_where_nobody_is(autojump_clock: MockClock, watching: Watching) -> None:
    watching.live.clear()
    watching.keys.questions.clear()
    await trio.sleep(60)
    assert watching.keys.questions == []


async def test_a_platform_that_has_learnt_to_answer_about_many_is_noticed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    watching = Watching(live={used("alice"), used("bob")})
    watching.keys.single = True
    nursery.start_soon(watching.run)
    await trio.sleep(300)
    watching.keys.single = False
    watching.live.clear()
    await trio.sleep(400)
    watching.live = {used("alice"), used("bob")}
    watching.keys.questions.clear()
    await trio.sleep(2.1)
    assert watching.keys.questions == [2]


async def test_a_session_that_is_gone_is_no_key_that_is(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    watching = Watching(live={used("alice", session="00000000")})
    watching.keys.single = True
    nursery.start_soon(watching.run)
    await trio.sleep(60)
    assert watching.ended == []
