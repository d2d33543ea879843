"""Asking Platform about sessions and visitors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import Authorizer, ControlPlane
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
