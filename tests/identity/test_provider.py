"""Discovery and keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from joserfc.jwk import KeySet

from connect_trio.devplatform.keys import KeyRing
from connect_trio.identity.client import PlatformUnavailable, open_platform_client
from connect_trio.identity.provider import Provider
from connect_trio.identity.tokens import UnknownKey
from tests.support.platform import running_platform, shared_keys
from tests.support.scripted import ScriptedPlatform, scripted_platform

DISCOVERY = "GET /api/.well-known/openid-configuration"
JWKS = "GET /api/jwks"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Setting:
    platform: ScriptedPlatform
    provider: Provider
    clock: Clock


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    clock = Clock()
    async with (
        scripted_platform() as platform,
        open_platform_client(platform_url=platform.url, clock=clock) as client,
    ):
        platform.serve_metadata()
        platform.answers[JWKS] = (200, dict(shared_keys().published()))
        yield Setting(platform, Provider(client, clock=clock), clock)


@asynccontextmanager
async def _development() -> AsyncIterator[tuple[Provider, KeyRing, Clock]]:
    keys, clock = KeyRing(), Clock()
    async with (
        running_platform(keys=keys) as platform,
        open_platform_client(platform_url=platform.url, clock=clock) as client,
    ):
        yield Provider(client, clock=clock), keys, clock


def _count(keys: KeySet) -> int:
    return len(keys.keys)


def _has(kid: str | None) -> Callable[[KeySet], str]:
    def verify(keys: KeySet) -> str:
        if kid not in {key.kid for key in keys}:
            raise UnknownKey("not there")
        return "verified"

    return verify


async def test_the_development_platform_is_understood() -> None:
    async with _development() as (provider, _, _):
        metadata = await provider.metadata()
        assert metadata.issuer == provider.issuer
        assert metadata.names_issuer
        assert metadata.end_session_endpoint == provider.issuer + "/end-session"


async def test_metadata_and_keys_are_read_once(setting: Setting) -> None:
    for _ in range(3):
        await setting.provider.metadata()
        await setting.provider.verified(_count)
    assert setting.platform.asked == [DISCOVERY, JWKS]


async def test_a_rotated_key_is_found_without_a_restart() -> None:
    async with _development() as (provider, keys, clock):
        await provider.verified(_count)
        keys.rotate()
        kid = keys.published()["keys"][0]["kid"]
        clock.now += 6
        assert await provider.verified(_has(kid)) == "verified"


async def test_unknown_keys_make_us_ask_at_most_every_five_seconds(setting: Setting) -> None:
    for _ in range(10):
        with pytest.raises(UnknownKey):
            await setting.provider.verified(_has("made up"))
    assert setting.platform.count(JWKS) == 1
    setting.clock.now += 5
    with pytest.raises(UnknownKey):
        await setting.provider.verified(_has("made up"))
    assert setting.platform.count(JWKS) == 2


async def test_old_metadata_and_keys_serve_while_platform_is_away(setting: Setting) -> None:
    await setting.provider.verified(_count)
    setting.platform.answers.clear()
    setting.platform.answers[DISCOVERY] = setting.platform.answers[JWKS] = (500, {})
    setting.clock.now += 86400
    assert await setting.provider.verified(_count) == 1
    assert (await setting.provider.metadata()).issuer == setting.provider.issuer


async def test_keys_that_could_not_be_read_are_tried_again_after_a_minute(setting: Setting) -> None:
    """Or a key that Platform has withdrawn would count for as long again."""
    await setting.provider.verified(_count)
    published = setting.platform.answers[JWKS]
    setting.platform.answers[JWKS] = (404, {})
    setting.clock.now += 600
    for _ in range(3):
        assert await setting.provider.verified(_count) == 1
    assert setting.platform.count(JWKS) == 2
    setting.platform.answers[JWKS] = published
    setting.clock.now += 60
    await setting.provider.verified(_count)
    assert setting.platform.count(JWKS) == 3
    setting.clock.now += 599
    await setting.provider.verified(_count)
    assert setting.platform.count(JWKS) == 3


async def test_a_made_up_key_holds_nobody_up_who_has_a_known_one(setting: Setting) -> None:
    await setting.provider.verified(_count)
    setting.platform.answers[JWKS] = None  # Platform is slow, and somebody makes us ask
    setting.clock.now += 6
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_refused, setting.provider)
        with trio.fail_after(5):
            while setting.platform.count(JWKS) < 2:
                await trio.sleep(0.01)
        with trio.move_on_after(0) as at_once:
            assert await setting.provider.verified(_count) == 1
            await setting.provider.metadata()
        assert not at_once.cancelled_caught
        setting.platform.late.set()


async def _refused(provider: Provider) -> None:
    with pytest.raises(UnknownKey):
        await provider.verified(_has("made up"))


@pytest.mark.parametrize("issuer", ["http://evil.example/api", None, 7, ""])
async def test_another_issuers_document_is_not_used(setting: Setting, issuer: object) -> None:
    setting.platform.serve_metadata(issuer=issuer)
    with pytest.raises(PlatformUnavailable, match="another issuer"):
        await setting.provider.metadata()


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("value", [None, 7, "", "javascript:alert(1)", "/token", "http://[x", "http://x/\r\ny"])
async def test_an_unusable_endpoint_is_named(setting: Setting, name: str, value: object) -> None:
    setting.platform.serve_metadata(**{name: value})
    with pytest.raises(PlatformUnavailable, match=name):
        await setting.provider.metadata()


@pytest.mark.parametrize("answer", [(404, {}), (200, []), (200, b"<html>")])
async def test_a_platform_without_configuration_is_unavailable(setting: Setting, answer: tuple[int, object]) -> None:
    setting.platform.answers[DISCOVERY] = answer
    with pytest.raises(PlatformUnavailable, match="OpenID configuration"):
        await setting.provider.metadata()


async def test_a_platform_without_keys_is_unavailable(setting: Setting) -> None:
    setting.platform.answers[JWKS] = (200, {"keys": []})
    with pytest.raises(PlatformUnavailable, match="no usable keys"):
        await setting.provider.verified(_count)


@pytest.mark.parametrize("path", ["", "/realms/a-b"])
async def test_the_issuer_may_be_elsewhere_below_platform(setting: Setting, path: str) -> None:
    issuer = setting.platform.url + path
    setting.platform.serve_metadata(issuer=issuer)
    found = setting.platform.answers.pop("GET /api/.well-known/openid-configuration")
    setting.platform.answers[f"GET {path}/.well-known/openid-configuration"] = found
    async with open_platform_client(platform_url=setting.platform.url + "/") as client:
        assert (await Provider(client, path=path, clock=setting.clock).metadata()).issuer == issuer
