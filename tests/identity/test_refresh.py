"""Refreshing: what is asked of Platform, which answers are believed, and which of them end a login."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import attrs
import pytest

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.oidc import OidcClient
from connect_trio.identity.refresh import LATER, LoginEnded, Tokens
from connect_trio.identity.service import open_identity
from connect_trio.routing.memory import MemoryStore
from tests.support.platform import parameters, shared_keys
from tests.support.scripted import ScriptedPlatform, scripted_platform

TOKEN = "POST /api/token"
FAR = 1 << 35  # in Unix time, centuries from now
FIRST = Tokens(
    id_token="first", refresh_token="rt-1", client_id="id", nonce="n", auth_time=1000.0, due=0.0, unsure=False
)


@attrs.frozen
class Setting:
    platform: ScriptedPlatform
    oidc: OidcClient

    def id_token(self, **changes: Any) -> str:
        now = int(time.time())
        right = {"iss": self.platform.url + "/api", "aud": "id", "sub": "user-1", "iat": now, "exp": now + 600}
        claims = {name: value for name, value in {**right, **changes}.items() if value is not ...}
        return shared_keys().sign(claims)

    def answer(self, status: int = 200, **document: Any) -> None:
        self.platform.answers[TOKEN] = (status, {name: v for name, v in document.items() if v is not None})

    async def refresh(self, **changes: Any) -> Tokens:
        return await self.oidc.refresher.refresh(attrs.evolve(FIRST, **changes), subject="user-1")


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with scripted_platform() as platform:
        platform.serve_metadata(grant_types_supported=["authorization_code", "refresh_token"])
        platform.serve_registration()
        platform.answers["GET /api/jwks"] = (200, dict(shared_keys().published()))
        identity = open_identity(platform_url=platform.url, proxy_url="http://connect.localhost", store=MemoryStore())
        async with identity as opened:
            await opened.oidc.begin()  # the client is registered
            yield Setting(platform, opened.oidc)


async def test_a_refresh_sends_the_token_and_keeps_its_successor(setting: Setting) -> None:
    id_token = setting.id_token()
    setting.answer(refresh_token="rt-2", id_token=id_token, expires_in=100)
    before = time.time()
    renewed = await setting.refresh(unsure=True)
    after = time.time()
    assert parse_qs(setting.platform.bodies[setting.platform.asked.index(TOKEN)].decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["rt-1"],
    }
    assert (renewed.refresh_token, renewed.id_token, renewed.unsure) == ("rt-2", id_token, False)
    assert before + 79 <= renewed.due <= after + 90, "before the first of its tokens expires"
    assert "rt-2" not in repr(renewed)


async def test_a_platform_that_rotates_nothing_gives_no_new_tokens(setting: Setting) -> None:
    setting.answer(access_token="at")
    renewed = await setting.refresh()
    assert (renewed.refresh_token, renewed.id_token) == ("rt-1", "first")
    assert renewed.due > time.time() + 600


@pytest.mark.parametrize("changes", [{"nonce": "n"}, {"auth_time": 1000}, {"aud": ["id"], "azp": "id"}], ids=str)
async def test_a_refreshed_token_may_repeat_what_the_first_one_said(setting: Setting, changes: dict[str, Any]) -> None:
    setting.answer(id_token=setting.id_token(**changes))
    assert (await setting.refresh()).id_token != "first"


@pytest.mark.parametrize(
    "changes",
    [
        *({"iss": "https://evil.example/api"}, {"sub": "user-2"}, {"sub": ...}, {"aud": "other"}),
        *({"aud": ["id", "other"]}, {"azp": "other"}, {"nonce": "other"}, {"nonce": None}, {"auth_time": 2000}),
        *({"exp": 1}, {"iat": ...}, {"iat": FAR}),
    ],
    ids=str,
)
async def test_a_refreshed_token_about_somebody_else_ends_the_login(setting: Setting, changes: dict[str, Any]) -> None:
    setting.answer(id_token=setting.id_token(**changes), refresh_token="rt-2")
    with pytest.raises(LoginEnded, match="cannot be trusted"):
        await setting.refresh()


@pytest.mark.parametrize("token", ["no token", 7, []])
async def test_what_is_no_id_token_ends_the_login(setting: Setting, token: object) -> None:
    setting.answer(id_token=token)
    with pytest.raises(LoginEnded, match="cannot be trusted"):
        await setting.refresh()


@pytest.mark.parametrize("token", ["", "a\nb", 7, "x" * 9000])
async def test_a_refresh_token_that_cannot_be_sent_is_none(setting: Setting, token: object) -> None:
    setting.answer(refresh_token=token)
    assert (await setting.refresh()).refresh_token == "rt-1"


async def test_an_invalid_grant_ends_the_login(setting: Setting) -> None:
    setting.answer(400, error="invalid_grant")
    with pytest.raises(LoginEnded, match="Platform has ended"):
        await setting.refresh()


async def test_after_a_lost_answer_an_invalid_grant_ends_nothing_but_the_refreshing(setting: Setting) -> None:
    setting.answer(400, error="invalid_grant")
    renewed = await setting.refresh(unsure=True)
    assert (renewed.refresh_token, renewed.id_token) == (None, "first")


@pytest.mark.parametrize("error", ["unauthorized_client", "unsupported_grant_type", "invalid_scope", None, 7])
async def test_a_grant_that_is_not_allowed_ends_only_the_refreshing(setting: Setting, error: object) -> None:
    setting.answer(400, error=error)
    assert (await setting.refresh()).refresh_token is None


@pytest.mark.parametrize(("status", "document"), [(401, {}), (400, {"error": "invalid_client"})])
async def test_a_platform_that_does_not_know_connect_is_asked_later(
    setting: Setting, status: int, document: dict[str, str]
) -> None:
    setting.answer(status, **document)
    renewed = await setting.refresh()
    assert renewed.refresh_token == "rt-1"
    assert renewed.due >= time.time() + LATER - 65


async def test_a_token_of_a_client_that_connect_no_longer_is_is_of_no_use(setting: Setting) -> None:
    assert (await setting.refresh(client_id="another")).refresh_token is None
    assert setting.platform.count(TOKEN) == 0


async def test_a_failing_platform_ends_nothing_but_may_have_spent_the_token(setting: Setting) -> None:
    setting.platform.answers[TOKEN] = (503, {})
    with pytest.raises(PlatformUnavailable) as caught:
        await setting.refresh()
    assert caught.value.sent
    with pytest.raises(PlatformUnavailable, match="a moment ago") as caught:
        await setting.refresh()
    assert not caught.value.sent, "it was not asked at all"


async def test_new_tokens_are_kept_while_their_id_token_cannot_be_verified(setting: Setting) -> None:
    setting.platform.answers["GET /api/jwks"] = (503, {})
    setting.answer(refresh_token="rt-2", id_token=setting.id_token())
    renewed = await setting.refresh()
    assert (renewed.refresh_token, renewed.id_token) == ("rt-2", "first")
    assert renewed.due <= time.time() + LATER


ALL = {"scopes_supported": ["openid", "offline_access"], "grant_types_supported": ["refresh_token"]}


@pytest.mark.parametrize(
    ("metadata", "answer", "asked"),
    [
        (ALL, {}, True),
        (ALL, {"grant_types": ["authorization_code", "refresh_token"]}, True),
        (ALL, {"grant_types": ["authorization_code"]}, False),
        ({**ALL, "scopes_supported": ["openid"]}, {}, False),
        ({**ALL, "scopes_supported": None}, {}, False),
        ({**ALL, "grant_types_supported": ["authorization_code"]}, {}, False),
        ({**ALL, "grant_types_supported": "refresh_token"}, {}, False),
    ],
    ids=str,
)
async def test_offline_access_is_asked_for_only_where_it_is_of_use(
    metadata: dict[str, Any], answer: dict[str, Any], asked: bool
) -> None:
    async with scripted_platform() as platform:
        platform.serve_metadata(**metadata)
        platform.answers["POST /api/register"] = (201, {"client_id": "id", "client_secret": "secret", **answer})
        identity = open_identity(platform_url=platform.url, proxy_url="http://connect.localhost", store=MemoryStore())
        async with identity as opened:
            begun = await opened.oidc.begin()
            assert ("offline_access" in parameters(begun.url)["scope"].split()) is begun.offline is asked
            begun = await opened.oidc.begin(offline=False)
            assert (parameters(begun.url)["scope"], begun.offline) == ("openid profile", False)
