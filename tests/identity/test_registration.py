"""Connect as a client of Platform: registered once, shared, kept, replaced."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from connect_trio.identity.client import PlatformUnavailable, open_platform_client
from connect_trio.identity.provider import Provider
from connect_trio.identity.registration import ClientCredentials, Registration
from connect_trio.routing.memory import MemoryStore
from connect_trio.routing.registry import RegistryUnavailable, Store
from tests.support.platform import running_platform
from tests.support.scripted import ScriptedPlatform, scripted_platform


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class AbsentStore(MemoryStore):
    async def get(self, key: str) -> bytes | None:
        raise RegistryUnavailable("away")

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        raise RegistryUnavailable("away")


@asynccontextmanager
async def registration(
    url: str,
    *,
    store: Store | None = None,
    root: Path | None = None,
    token: str | None = None,
    name: str = "connect",
    clock: Clock | None = None,
    fixed: ClientCredentials | None = None,
) -> AsyncIterator[Registration]:
    clock = clock or Clock()
    async with open_platform_client(platform_url=url, clock=clock) as client:
        yield Registration(
            client=client,
            provider=Provider(client, clock=clock),
            store=store or MemoryStore(),
            storage_root=root,
            client_name=name,
            grant_type="authorization_code",
            registration_token=token,
            redirect_uri="http://connect.localhost/_connect/callback",
            post_logout_uri="http://connect.localhost/",
            backchannel_logout_uri="http://connect.localhost/_connect/backchannel-logout",
            clock=clock,
            fixed=fixed,
        )


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedPlatform]:
    async with scripted_platform() as platform:
        platform.serve_metadata()
        platform.serve_registration()
        yield platform


async def test_many_callers_register_once(scripted: ScriptedPlatform) -> None:
    async with registration(scripted.url) as ours, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ours.credentials)
    assert scripted.count("POST /api/register") == 1


async def test_proxies_share_one_registration(scripted: ScriptedPlatform) -> None:
    store = MemoryStore()
    async with registration(scripted.url, store=store) as one, registration(scripted.url, store=store) as other:
        assert await one.credentials() == await other.credentials()
    assert scripted.count("POST /api/register") == 1


async def test_proxies_that_register_at_once_know_each_others_clients() -> None:
    store = MemoryStore()
    async with (
        running_platform() as platform,
        registration(platform.url, store=store) as one,
        registration(platform.url, store=store) as other,
    ):
        mine = await one.credentials()
        theirs = await other.replace(await other.credentials())
        assert mine != theirs
        assert await other.credentials_of(mine.client_id) == mine
        assert await one.credentials_of(theirs.client_id) == theirs
        assert await one.credentials_of("somebody else's") is None


async def test_another_proxy_can_finish_a_login_after_the_store_has_lost_its_memory() -> None:
    age = Clock()
    store = MemoryStore(clock=age)
    async with (
        running_platform() as platform,
        registration(platform.url, store=store) as one,
        registration(platform.url, store=store) as other,
    ):
        mine = await one.credentials()
        assert mine != await other.replace(await other.credentials())
        age.now += 1e9
        assert await other.credentials_of(mine.client_id) is None
        assert await one.credentials_for_login() == mine
        assert await other.credentials_of(mine.client_id) == mine


async def test_the_file_outlives_everything(scripted: ScriptedPlatform, tmp_path: Path) -> None:
    for _ in range(2):
        async with registration(scripted.url, root=tmp_path / "data") as ours:
            assert (await ours.credentials()).client_secret == "secret"
    assert scripted.count("POST /api/register") == 1
    file = tmp_path / "data" / "oidc-client.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_file_for_something_else_is_not_used(scripted: ScriptedPlatform, tmp_path: Path) -> None:
    for name in ("connect", "another name"):
        async with registration(scripted.url, root=tmp_path, name=name) as ours:
            await ours.credentials()
    assert scripted.count("POST /api/register") == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"purpose": 1}', b"\xff", b"[" * 20_000])
async def test_a_damaged_file_is_replaced(scripted: ScriptedPlatform, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "oidc-client.json").write_bytes(content)
    async with registration(scripted.url, root=tmp_path) as ours:
        await ours.credentials()
    assert json.loads((tmp_path / "oidc-client.json").read_bytes())["client_id"] == "id"


async def test_without_store_and_folder_there_is_still_a_client(scripted: ScriptedPlatform, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    async with registration(scripted.url, root=file, store=AbsentStore()) as ours:
        assert (await ours.credentials()).client_id == "id"


async def test_the_initial_access_token_is_shown() -> None:
    async with running_platform(registration_token="initial") as platform:
        async with registration(platform.url, token="initial") as ours:
            await ours.credentials()
        async with registration(platform.url, token="wrong") as ours:
            with pytest.raises(PlatformUnavailable, match="is CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN right"):
                await ours.credentials()


async def test_a_refused_registration_is_not_repeated_at_once(scripted: ScriptedPlatform) -> None:
    scripted.answers["POST /api/register"] = (400, {"error": "invalid_redirect_uri"})
    clock = Clock()
    async with registration(scripted.url, clock=clock) as ours:
        for _ in range(3):
            with pytest.raises(PlatformUnavailable, match=r"did not accept|refused"):
                await ours.credentials()
        assert scripted.count("POST /api/register") == 1
        clock.now += 3
        scripted.serve_registration()
        assert (await ours.credentials()).client_id == "id"


async def test_a_platform_without_registration_is_named(scripted: ScriptedPlatform) -> None:
    scripted.serve_metadata(registration_endpoint=None)
    async with registration(scripted.url) as ours:
        with pytest.raises(PlatformUnavailable, match="no client registration"):
            await ours.credentials()


FIXED = ClientCredentials(client_id="by hand", client_secret="s3cret")


async def test_a_client_that_platform_was_told_of_is_used_and_never_registered(
    scripted: ScriptedPlatform, tmp_path: Path
) -> None:
    async with registration(scripted.url, root=tmp_path, store=AbsentStore(), fixed=FIXED) as ours:
        assert await ours.credentials() == await ours.credentials_for_login() == FIXED
        assert await ours.credentials_of("by hand") == FIXED
    assert scripted.asked == []
    assert not list(tmp_path.iterdir())


async def test_a_client_that_platform_was_told_of_and_refuses_is_told_once_a_minute(
    scripted: ScriptedPlatform, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with registration(scripted.url, fixed=FIXED, clock=clock) as ours:
        for _ in range(3):
            with pytest.raises(PlatformUnavailable, match="are CONNECT_OIDC_CLIENT_ID and CONNECT_OIDC_CLIENT_SECRET"):
                await ours.replace(FIXED)
        assert len(caplog.records) == 1
        clock.now += 61
        with pytest.raises(PlatformUnavailable):
            await ours.replace(FIXED)
    assert len(caplog.records) == 2
    assert "s3cret" not in caplog.text
    assert scripted.count("POST /api/register") == 0


async def test_a_login_begun_before_the_client_was_fixed_can_be_finished(scripted: ScriptedPlatform) -> None:
    store = MemoryStore()
    async with (
        registration(scripted.url, store=store) as before,
        registration(scripted.url, store=store, fixed=FIXED) as after,
    ):
        registered = await before.credentials_for_login()
        assert await after.credentials_of(registered.client_id) == registered


async def test_secrets_do_not_show_in_a_repr(scripted: ScriptedPlatform) -> None:
    async with registration(scripted.url) as ours:
        assert "secret='" not in repr(await ours.credentials())


async def asked_of(platform: ScriptedPlatform) -> dict[str, Any]:
    """What a new client says of itself."""
    async with registration(platform.url) as ours:
        await ours.credentials()
    document: dict[str, Any] = json.loads(platform.bodies[platform.asked.index("POST /api/register")])
    return document


async def test_a_platform_that_knows_no_more_than_codes_is_asked_for_no_more(scripted: ScriptedPlatform) -> None:
    document = await asked_of(scripted)
    assert document["grant_types"] == ["authorization_code"]
    assert not [name for name in document if "backchannel" in name]


@pytest.mark.parametrize("sessions", [True, False])
async def test_what_platform_offers_is_registered(scripted: ScriptedPlatform, sessions: bool) -> None:
    scripted.serve_metadata(
        grant_types_supported=["authorization_code", "refresh_token"],
        backchannel_logout_supported=True,
        backchannel_logout_session_supported=sessions,
    )
    document = await asked_of(scripted)
    assert document["grant_types"] == ["authorization_code", "refresh_token"]
    assert document["backchannel_logout_uri"] == "http://connect.localhost/_connect/backchannel-logout"
    assert document["backchannel_logout_session_required"] is sessions


async def test_whether_a_client_may_refresh_outlives_a_restart(scripted: ScriptedPlatform, tmp_path: Path) -> None:
    scripted.serve_metadata(grant_types_supported=["refresh_token"])
    for granted in (["authorization_code"], ["authorization_code", "refresh_token"]):
        answer = {"client_id": "id", "client_secret": "secret", "grant_types": granted}
        scripted.answers["POST /api/register"] = (201, answer)
        for _ in range(2):
            async with registration(scripted.url, root=tmp_path, name=str(granted)) as ours:
                assert (await ours.credentials()).refreshes is ("refresh_token" in granted)
