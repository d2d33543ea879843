"""Connect's calls, put to the development Platform, and to one that does not have them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from connect_trio.identity.client import PlatformUnavailable, open_platform_client
from connect_trio.identity.control_plane import ControlPlane, NotOffered, ReportRefused
from connect_trio.identity.service import Identity, open_identity
from connect_trio.routing.memory import MemoryStore
from tests.support.platform import CONNECT_URL, DEV_KEY, PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.scripted import ScriptedPlatform, scripted_platform

ALICE, CAROL = "user-5d1f0a9c", "user-8a40e6d1"
REPORT = {"id": "1" * 32, "reporter": "2" * 32, "visits": []}
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
FINGERPRINT = "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"


@pytest.fixture
async def platform() -> AsyncIterator[RunningPlatform]:
    async with running_platform() as running:
        yield running


@pytest.fixture
async def control_plane(platform: RunningPlatform) -> AsyncIterator[ControlPlane]:
    async with open_identity(platform_url=platform.url, proxy_url=CONNECT_URL, store=MemoryStore()) as identity:
        yield identity.control_plane


@pytest.fixture
async def scripted() -> AsyncIterator[tuple[ScriptedPlatform, Identity]]:
    async with scripted_platform() as platform:
        platform.serve_metadata()
        platform.serve_registration()
        async with open_identity(platform_url=platform.url, proxy_url=CONNECT_URL, store=MemoryStore()) as identity:
            yield platform, identity


async def test_states_of_many_sessions(platform: RunningPlatform, control_plane: ControlPlane) -> None:
    await platform.set_state(PRIVATE, "stop")
    states = await control_plane.states([SHARED, PRIVATE, "00000000"])
    assert {session: state.state for session, state in states.items()} == {
        SHARED: "running",
        PRIVATE: "stopped",
        "00000000": "unknown",
    }
    assert (states[SHARED].ends_at or 0) > time.time() + 7 * 3600


async def test_the_sessions_of_a_subject(control_plane: ControlPlane) -> None:
    assert {session.id for session in await control_plane.sessions_of(ALICE)} == {SHARED, PRIVATE}
    assert await control_plane.sessions_of(CAROL) == []
    assert await control_plane.sessions_of("a&subject=user-5d1f0a9c#%") == []


async def test_a_session_is_extended(control_plane: ControlPlane) -> None:
    before = await control_plane.session(SHARED)
    assert before is not None
    assert before.ends_at is not None
    extended = await control_plane.extend(session=SHARED, subject=ALICE, seconds=9 * 3600)
    assert extended is not None
    assert extended.allowed
    assert (extended.session.ends_at or 0) >= before.ends_at + 3590
    refused = await control_plane.extend(session=SHARED, subject=CAROL)
    assert refused is not None
    assert not refused.allowed
    assert refused.reason
    assert await control_plane.extend(session="00000000", subject=ALICE) is None


async def test_a_key_that_nobody_has_comes_with_what_mends_it(control_plane: ControlPlane) -> None:
    found = await control_plane.check_ssh_key(session=SHARED, username="alice", key=KEY, fingerprint=FINGERPRINT)
    assert found is not None
    assert (found.access.allowed, found.subject) == (False, None)
    assert FINGERPRINT in (found.access.reason or "")
    unknown = "00000000"
    assert await control_plane.check_ssh_key(session=unknown, username="a", key=KEY, fingerprint=FINGERPRINT) is None


async def test_keys_that_were_removed(platform: RunningPlatform, control_plane: ControlPlane) -> None:
    async with platform.browser() as http:
        url, bearer = "/api/dev/users/alice/ssh-keys", {"authorization": f"Bearer {DEV_KEY}"}
        added = await http.post(url, json={"key": f"ssh-ed25519 {KEY}"}, headers=bearer)
        assert added.json() == {"fingerprint": FINGERPRINT}
        asked = {(ALICE, FINGERPRINT), (CAROL, FINGERPRINT)}
        assert await control_plane.removed_ssh_keys(asked) == {(CAROL, FINGERPRINT)}
        removed = await http.post(url + "/remove", json={"fingerprint": FINGERPRINT}, headers=bearer)
        assert removed.json() == {"fingerprints": []}
        assert await control_plane.removed_ssh_keys(asked) == asked


@pytest.mark.parametrize("answer", [{}, [], {"removed": {}}, {"removed": ["x"]}, {"removed": None}])
async def test_an_answer_about_keys_that_is_none_is_as_if_platform_was_away(
    scripted: tuple[ScriptedPlatform, Identity], answer: object
) -> None:
    platform, identity = scripted
    platform.answers["POST /api/connect/ssh-keys/removed"] = (200, answer)
    with pytest.raises(PlatformUnavailable):
        await identity.control_plane.removed_ssh_keys({(ALICE, FINGERPRINT)})


async def test_an_answer_removes_only_keys_that_were_asked_about(scripted: tuple[ScriptedPlatform, Identity]) -> None:
    platform, identity = scripted
    said = [{"subject": CAROL, "fingerprint": FINGERPRINT}, {"subject": [], "fingerprint": {}}, {}]
    platform.answers["POST /api/connect/ssh-keys/removed"] = (200, {"removed": said})
    assert await identity.control_plane.removed_ssh_keys({(ALICE, FINGERPRINT)}) == set()


async def test_what_platform_is_set_to(control_plane: ControlPlane) -> None:
    info = await control_plane.info()
    assert info is not None
    assert info.path_routing is False


async def test_calls_that_a_platform_does_not_have_are_told_from_one_that_is_away(
    scripted: tuple[ScriptedPlatform, Identity],
) -> None:
    platform, identity = scripted
    with pytest.raises(NotOffered):
        await identity.control_plane.states([SHARED])
    platform.answers["POST /api/connect/sessions/states"] = (405, {})
    with pytest.raises(NotOffered):
        await identity.control_plane.states([SHARED])
    with pytest.raises(NotOffered):
        await identity.control_plane.sessions_of(ALICE)
    with pytest.raises(NotOffered):
        await identity.control_plane.removed_ssh_keys({(ALICE, FINGERPRINT)})
    assert await identity.control_plane.info() is None
    platform.answers["POST /api/connect/sessions/states"] = (500, {})
    with pytest.raises(PlatformUnavailable) as caught:
        await identity.control_plane.states([SHARED])
    assert not isinstance(caught.value, NotOffered)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422])
async def test_a_report_that_is_wrong_is_not_to_be_sent_again(
    scripted: tuple[ScriptedPlatform, Identity], status: int
) -> None:
    platform, identity = scripted
    platform.answers["POST /api/connect/activity"] = (status, {})
    with pytest.raises(ReportRefused, match=str(status)):
        await identity.background.report(REPORT)


@pytest.mark.parametrize(
    "answer", [(200, {}), (200, b"<html>"), (200, {"id": "other"}), (403, {}), (500, {}), (429, {})]
)
async def test_a_report_that_was_not_taken_for_certain_is_to_be_sent_again(
    scripted: tuple[ScriptedPlatform, Identity], answer: tuple[int, object]
) -> None:
    platform, identity = scripted
    platform.answers["POST /api/connect/activity"] = answer
    with pytest.raises(PlatformUnavailable):
        await identity.background.report(REPORT)


async def test_visitors_do_not_feel_that_reports_fail(scripted: tuple[ScriptedPlatform, Identity]) -> None:
    platform, identity = scripted
    platform.answers["POST /api/connect/activity"] = (429, {})
    with pytest.raises(PlatformUnavailable):
        await identity.background.report(REPORT)
    assert await identity.control_plane.session(SHARED) is None  # asked and answered: 404
    with pytest.raises(PlatformUnavailable, match="a moment ago"):
        await identity.background.report(REPORT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("", None), ("soon", None), ("-1", None), ("1e9", None), ("9" * 10, None), ("²", None)],
)
async def test_platform_may_say_when_to_come_back(text: str, seconds: float | None) -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /"] = (503, {})
        platform.headers["GET /"] = f"Retry-After: {text}"
        with pytest.raises(PlatformUnavailable) as caught:
            await client.call("GET", platform.url + "/", timeout=5)
        assert caught.value.retry_after == seconds


async def test_platform_may_say_so_with_a_date() -> None:
    async with scripted_platform() as platform, open_platform_client(platform_url=platform.url) as client:
        platform.answers["GET /"] = (503, {})
        platform.headers["GET /"] = "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"
        with pytest.raises(PlatformUnavailable) as caught:
            await client.call("GET", platform.url + "/", timeout=5)
        assert caught.value.retry_after == 0
