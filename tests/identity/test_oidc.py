"""Logins: what is asked of Platform, and which answers are believed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import pytest

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.oidc import LoginRefused, LoginResult, OidcClient, code_challenge
from connect_trio.identity.service import Identity, open_identity
from connect_trio.identity.tokens import TokenInvalid
from connect_trio.routing.memory import MemoryStore
from tests.support.platform import parameters, running_platform, shared_keys
from tests.support.scripted import ScriptedPlatform, scripted_platform

OWN = "http://connect.localhost:8080"


@attrs.frozen
class Setting:
    platform: ScriptedPlatform
    oidc: OidcClient

    def answer_with(self, **changes: Any) -> None:
        """An exchange that yields an id token, right but for `changes`."""
        now = int(time.time())
        claims = {
            "iss": self.platform.url + "/api",
            "aud": "id",
            "sub": "user-1",
            "preferred_username": "alice",
            "nonce": "n",
            "iat": now,
            "exp": now + 60,
            **changes,
        }
        self.platform.answers["POST /api/token"] = (200, {"id_token": shared_keys().sign(claims), "access_token": "at"})

    async def finish(self, *, issuer: str | None = None) -> LoginResult:
        return await self.oidc.finish(code="c", issuer=issuer, client_id="id", nonce="n", verifier="v" * 43)


def _identity(platform_url: str) -> AbstractAsyncContextManager[Identity]:
    return open_identity(platform_url=platform_url, proxy_url=OWN, store=MemoryStore())


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with scripted_platform() as platform:
        platform.serve_metadata(userinfo_endpoint=platform.url + "/api/me")
        platform.serve_registration()
        platform.answers["GET /api/jwks"] = (200, dict(shared_keys().published()))
        async with _identity(platform.url) as identity:
            await identity.oidc.begin()  # the client is registered
            yield Setting(platform, identity.oidc)


def test_the_challenge_is_that_of_the_specification() -> None:
    # RFC 7636, appendix B
    assert (
        code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


async def test_the_code_is_exchanged_with_what_proves_who_began(setting: Setting) -> None:
    begun = await setting.oidc.begin()
    setting.answer_with(nonce=begun.nonce)
    await setting.oidc.finish(code="c", issuer=None, client_id="id", nonce=begun.nonce, verifier=begun.verifier)
    place = setting.platform.asked.index("POST /api/token")
    form = dict(parse_qsl(setting.platform.bodies[place].decode()))
    assert form["code"] == "c"
    assert code_challenge(form["code_verifier"]) == parameters(begun.url)["code_challenge"]
    assert form["redirect_uri"] == parameters(begun.url)["redirect_uri"]


async def test_a_login_asks_with_state_nonce_and_pkce_that_are_new_each_time(setting: Setting) -> None:
    first, second = await setting.oidc.begin(), await setting.oidc.begin()
    query = parameters(first.url)
    assert urlsplit(first.url).path == "/api/authorize"
    assert query["state"] == first.state
    assert query["nonce"] == first.nonce
    assert query["code_challenge"] == code_challenge(first.verifier)
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"] == OWN + "/_connect/callback"
    assert len({first.state, first.nonce, first.verifier, second.state, second.nonce, second.verifier}) == 6
    assert first.verifier not in first.url
    assert first.verifier not in repr(first)


async def test_a_right_answer_names_the_visitor(setting: Setting) -> None:
    setting.answer_with()
    result = await setting.finish()
    assert (result.identity.subject, result.identity.username) == ("user-1", "alice")
    assert result.tokens.id_token not in repr(result)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ((200, {"sub": "user-1", "preferred_username": "alice"}), "alice"),
        ((200, {"sub": "user-2", "preferred_username": "mallory"}), "user-1"),
        ((200, {"sub": "user-1", "preferred_username": 7}), "user-1"),
        ((200, {"sub": "user-1", "preferred_username": "\ud800a"}), "?a"),
        ((200, {"sub": "user-1", "preferred_username": "a\nb" + "x" * 200}), "ab" + "x" * 98),
        ((200, []), "user-1"),
        ((401, {"sub": "user-1", "preferred_username": "alice"}), "user-1"),
        ((503, {}), "user-1"),
    ],
)
async def test_a_name_that_is_not_in_the_token_is_asked_for(
    setting: Setting, answer: tuple[int, Any], name: str
) -> None:
    setting.answer_with(preferred_username=None)
    setting.platform.answers["GET /api/me"] = answer
    assert (await setting.finish()).identity.username == name


@pytest.mark.parametrize("token", [None, 7, "", "a b", "a\r\nX-Evil: 1", "é", "x" * 9000])
async def test_an_access_token_that_cannot_be_sent_is_not_sent(setting: Setting, token: object) -> None:
    setting.answer_with(preferred_username=None)
    status, document = setting.platform.answers["POST /api/token"] or (0, {})
    setting.platform.answers["POST /api/token"] = (status, document | {"access_token": token})
    assert (await setting.finish()).identity.username == "user-1"
    assert setting.platform.count("GET /api/me") == 0


@pytest.mark.parametrize(
    "changes",
    [{"nonce": "other"}, {"aud": "other"}, {"iss": "http://evil.example/api"}, {"exp": 1}, {"sub": ""}],
)
async def test_a_token_that_is_not_for_this_login_is_refused(setting: Setting, changes: dict[str, Any]) -> None:
    setting.answer_with(**changes)
    with pytest.raises(LoginRefused, match="cannot be trusted"):
        await setting.finish()


@pytest.mark.parametrize(
    "answer", [(400, {"error": "invalid_grant"}), (200, {}), (200, []), (200, {"id_token": 7}), (200, b"<html>")]
)
async def test_an_exchange_without_a_token_is_refused(setting: Setting, answer: tuple[int, Any]) -> None:
    setting.platform.answers["POST /api/token"] = answer
    with pytest.raises(LoginRefused, match="did not accept"):
        await setting.finish()


async def test_an_answer_from_another_issuer_is_refused_before_the_code_is_shown(setting: Setting) -> None:
    with pytest.raises(LoginRefused, match="another provider"):
        await setting.finish(issuer="http://evil.example/api")
    assert setting.platform.count("POST /api/token") == 0


async def test_a_failing_platform_is_unavailable_not_a_refusal(setting: Setting) -> None:
    setting.platform.answers["POST /api/token"] = (503, {})
    with pytest.raises(PlatformUnavailable):
        await setting.finish()


async def test_a_login_begun_with_a_client_that_nobody_knows_is_refused(setting: Setting) -> None:
    with pytest.raises(LoginRefused, match="registered anew"):
        await setting.oidc.finish(code="c", issuer=None, client_id="gone", nonce="n", verifier="v")


async def test_a_platform_without_logout_has_no_logout_address(setting: Setting) -> None:
    assert await setting.oidc.logout_url("token") is None


async def test_a_logout_address_says_where_to_return() -> None:
    async with running_platform() as platform, _identity(platform.url) as identity:
        url = await identity.oidc.logout_url(None)
        assert url is not None
        assert url.startswith(platform.issuer + "/end-session?")
        query = parameters(url)
        assert query["post_logout_redirect_uri"] == OWN + "/"
        assert set(query) == {"post_logout_redirect_uri", "client_id"}
        url = await identity.oidc.logout_url("hint")
        assert url is not None
        assert parameters(url)["id_token_hint"] == "hint"


async def test_an_id_token_is_no_agents_token(setting: Setting) -> None:
    setting.answer_with()
    result = await setting.finish()
    with pytest.raises(TokenInvalid, match="audience"):
        await setting.oidc.agent(result.tokens.id_token)
