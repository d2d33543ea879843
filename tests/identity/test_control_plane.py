"""Asking Platform about sessions and visitors."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import QUEUE, STATES_AT_ONCE, Authorizer, ControlPlane, SessionInfo
from connect_trio.identity.service import open_identity
from connect_trio.routing.memory import MemoryStore
from tests.support.platform import SHARED
from tests.support.scripted import ScriptedPlatform, scripted_platform

ACCESS = "POST /api/connect/access"
SESSION = f"GET /api/connect/sessions/{SHARED}"
DOCUMENT = {"id": SHARED, "name": "A Studio", "owner": "alice", "state": "running", "tool": "files"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Setting:
    platform: ScriptedPlatform
    control_plane: ControlPlane
    authorizer: Authorizer
    clock: Clock

    def allow(self, allowed: object = True, **session: object) -> None:
        self.platform.answers[ACCESS] = (200, {"allowed": allowed, "reason": None, "session": {**DOCUMENT, **session}})


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    clock = Clock()
    async with scripted_platform() as platform:
        platform.serve_metadata()
        platform.serve_registration()
        async with open_identity(
            platform_url=platform.url, proxy_url="http://connect.localhost:8080", store=MemoryStore(), clock=clock
        ) as identity:
            yield Setting(platform, identity.control_plane, identity.authorizer, clock)


async def test_a_decision_is_asked_for_once_in_two_seconds(setting: Setting) -> None:
    setting.allow()
    for _ in range(5):
        decision = await setting.authorizer.check("sub", SHARED, "http")
        assert decision.open
    assert setting.platform.count(ACCESS) == 1
    setting.clock.now += 2
    setting.allow(False)
    assert not (await setting.authorizer.check("sub", SHARED, "http")).open


async def test_decisions_are_per_subject_session_and_method(setting: Setting) -> None:
    setting.allow()
    assert (await setting.authorizer.check("sub", SHARED, "http")).open
    setting.allow(False)
    assert not (await setting.authorizer.check("other", SHARED, "http")).open
    assert not (await setting.authorizer.check("sub", SHARED, "ssh")).open


async def test_an_unknown_session_is_denied(setting: Setting) -> None:
    decision = await setting.authorizer.check("sub", SHARED, "http")
    assert (decision.allowed, decision.session_state) == (False, "unknown")
    assert await setting.authorizer.session_state(SHARED) == "unknown"


@pytest.mark.parametrize("state", ["stopped", "starting", "", "RUNNING"])
async def test_only_a_running_session_is_open(setting: Setting, state: str) -> None:
    setting.allow(state=state)
    decision = await setting.authorizer.check("sub", SHARED, "http")
    assert decision.allowed
    assert not decision.open


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"allowed": "yes", "session": DOCUMENT},
        {"allowed": 1, "session": DOCUMENT},
        {"allowed": True},
        {"allowed": True, "session": {**DOCUMENT, "id": "5f0c1d2e"}},
        {"allowed": True, "session": {**DOCUMENT, "state": None}},
        {"allowed": True, "session": {**DOCUMENT, "name": "x" * 501}},
    ],
)
async def test_an_answer_against_the_contract_lets_nobody_in(setting: Setting, document: Any) -> None:
    setting.platform.answers[ACCESS] = (200, document)
    with pytest.raises(PlatformUnavailable, match="contract"):
        await setting.authorizer.check("sub", SHARED, "http")


@pytest.mark.parametrize("status", [204, 302, 400, 403, 500])
async def test_other_statuses_let_nobody_in(setting: Setting, status: int) -> None:
    setting.platform.answers[ACCESS] = (status, {"allowed": True, "session": DOCUMENT})
    with pytest.raises(PlatformUnavailable):
        await setting.authorizer.check("sub", SHARED, "http")


async def test_a_client_that_platform_forgot_registers_again_once(setting: Setting) -> None:
    setting.platform.answers[SESSION] = (401, {})
    with pytest.raises(PlatformUnavailable):
        await setting.control_plane.session(SHARED)
    setting.clock.now += 10
    setting.platform.answers["POST /api/register"] = (201, {"client_id": "new", "client_secret": "secret"})
    with pytest.raises(PlatformUnavailable, match="status 401"):
        await setting.control_plane.session(SHARED)
    assert setting.platform.count("POST /api/register") == 2


class SlowControlPlane:
    """Answers about a session after `takes` seconds. most: how many were asked about at once."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.asking = self.most = 0

    async def session(self, session: str) -> SessionInfo:
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            await trio.sleep(self.takes)
        finally:
            self.asking -= 1
        return SessionInfo(id=session, name="A Studio", owner="alice", state="running", tool="files")


async def states_of(authorizer: Authorizer, count: int) -> list[str]:
    """Of so many sessions that are asked about at once; "away" for a PlatformUnavailable."""
    states = []

    async def ask(number: int) -> None:
        try:
            states.append(await authorizer.session_state(f"{number:08x}"))
        except PlatformUnavailable as exc:
            assert "turn did not come" in str(exc)  # noqa: PT017 - others get their answers
            states.append("away")

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)
    return states


async def test_of_many_sessions_a_few_are_asked_about_at_once(autojump_clock: trio.testing.MockClock) -> None:
    platform = SlowControlPlane(1.0)
    authorizer = Authorizer(cast("ControlPlane", platform))
    count = 6 * STATES_AT_ONCE  # which take longer than any single question may
    assert await states_of(authorizer, count) == ["running"] * count
    assert platform.most == STATES_AT_ONCE


async def test_nobody_waits_longer_for_his_turn_than_an_agent_waits(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    platform = SlowControlPlane(QUEUE - 1)
    authorizer = Authorizer(cast("ControlPlane", platform))
    states = await states_of(authorizer, 3 * STATES_AT_ONCE)
    assert sorted(states) == ["away"] * 2 * STATES_AT_ONCE + ["running"] * STATES_AT_ONCE
    assert trio.current_time() - began == QUEUE
    assert platform.asking == 0
    platform.takes = 1.0
    assert await states_of(authorizer, 2 * STATES_AT_ONCE) == ["running"] * 2 * STATES_AT_ONCE


@pytest.mark.parametrize("ends_at", [None, "soon", True, -1, 0, float("1e300"), 10**400, [], {}])
async def test_a_plan_that_cannot_be_read_is_none(setting: Setting, ends_at: object) -> None:
    setting.allow(ends_at=ends_at)
    decision = await setting.authorizer.check("sub", SHARED, "http")
    assert (decision.open, decision.ends_at) == (True, None)


async def test_a_session_is_over_at_its_planned_end_and_not_when_it_is_extended(setting: Setting) -> None:
    setting.allow(ends_at=time.time() - 1)
    decision = await setting.authorizer.check("sub", SHARED, "http")
    assert (decision.allowed, decision.open, decision.session_state) == (True, False, "stopped")
    setting.clock.now += 2
    setting.allow(ends_at=time.time() + 100)
    assert (await setting.authorizer.check("sub", SHARED, "http")).open
