"""Agents at the gate: a signed token for a running session, or a clear no."""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs
import pytest

from connect_trio.edge.gate import Reply, TunnelGrant
from tests.support.grants import granted_tunnel
from tests.support.login import NAMES, OWN, Proxy, open_proxy, platform, proxy
from tests.support.platform import PRIVATE, SHARED, RunningPlatform
from tests.support.visitor import visitor_request

__all__ = ["platform", "proxy"]

INSTANCE = "0123456789abcdef" * 2


async def _ask(proxy: Proxy, headers: Mapping[str, str]) -> TunnelGrant | Reply:
    request = visitor_request(NAMES, "connect.localhost:8080", "/_connect/tunnel", headers=headers, upgrade=True)
    return await proxy.gate.admit_tunnel(request)


async def _refusal(proxy: Proxy, token: str, *, instance: str = INSTANCE) -> tuple[int, str, str]:
    answer = await _ask(proxy, {"authorization": f"Bearer {token}", "x-connect-instance": instance})
    assert isinstance(answer, Reply)
    document = json.loads(answer.body)
    assert token not in document["error"]
    return answer.status, document["code"], document["error"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_an_agent_gets_its_session(proxy: Proxy, platform: RunningPlatform, scheme: str) -> None:
    token = await platform.agent_token(PRIVATE)
    answer = await _ask(proxy, {"authorization": f"{scheme} {token}", "x-connect-instance": INSTANCE})
    claims = platform.keys.claims(token)
    assert claims is not None
    assert answer == TunnelGrant(grant=granted_tunnel(PRIVATE), instance=INSTANCE, issued=claims["iat"])


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic eDp5", "Bearer a b", "Bearer é"])
async def test_a_missing_token_is_a_401_that_says_so(proxy: Proxy, header: str | None) -> None:
    headers = {"x-connect-instance": INSTANCE} | ({"authorization": header} if header is not None else {})
    answer = await _ask(proxy, headers)
    assert isinstance(answer, Reply)
    assert answer.status == 401
    assert "token is missing" in json.loads(answer.body)["error"]
    assert any(name == b"WWW-Authenticate" for name, _ in answer.headers)


@pytest.mark.parametrize("token", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "z" * 9000])
async def test_a_wrong_token_is_a_401_that_does_not_repeat_it(proxy: Proxy, token: str) -> None:
    status, code, text = await _refusal(proxy, token)
    assert (status, code) == (401, "invalid_token")
    assert "refused" in text


async def test_a_token_of_another_platform_or_purpose_is_refused(proxy: Proxy, platform: RunningPlatform) -> None:
    claims = platform.keys.claims(await platform.agent_token(SHARED))
    assert claims is not None
    for changes in ({"aud": "another"}, {"iss": "http://evil.example/api"}, {"exp": 1}, {"sub": "x"}):
        status, code, _ = await _refusal(proxy, platform.keys.sign({**claims, **changes}))
        assert (status, code) == (401, "invalid_token")


async def test_two_tokens_are_none(proxy: Proxy, platform: RunningPlatform) -> None:
    token = await platform.agent_token(SHARED)
    request = visitor_request(NAMES, "connect.localhost:8080", "/_connect/tunnel", upgrade=True)
    twice = (*request.headers, *((b"authorization", f"Bearer {token}".encode()),) * 2)
    answer = await proxy.gate.admit_tunnel(attrs.evolve(request, headers=twice))
    assert isinstance(answer, Reply)
    assert answer.status == 401


@pytest.mark.parametrize("instance", ["", "x", INSTANCE[:-1], INSTANCE + "0", INSTANCE.upper(), "g" * 32])
async def test_an_agent_must_say_which_it_is(proxy: Proxy, platform: RunningPlatform, instance: str) -> None:
    status, code, _ = await _refusal(proxy, await platform.agent_token(SHARED), instance=instance)
    assert (status, code) == (400, "invalid_instance")


async def test_a_stopped_session_takes_no_tunnel(proxy: Proxy, platform: RunningPlatform) -> None:
    token = await platform.agent_token(SHARED)
    await platform.set_state(SHARED, "stop")
    assert (await _refusal(proxy, token))[:2] == (410, "session_ended")
    await platform.set_state(SHARED, "start")
    proxy.clock.offset += 3
    answer = await _ask(proxy, {"authorization": f"Bearer {token}", "x-connect-instance": INSTANCE})
    assert isinstance(answer, TunnelGrant)


async def test_a_session_that_platform_does_not_know_takes_no_tunnel(proxy: Proxy, platform: RunningPlatform) -> None:
    claims = platform.keys.claims(await platform.agent_token(SHARED))
    assert claims is not None
    token = platform.keys.sign({**claims, "sub": "deadbeef"})
    assert (await _refusal(proxy, token))[:2] == (410, "session_ended")


async def test_without_platform_an_agent_is_told_to_come_back(platform: RunningPlatform) -> None:
    token = await platform.agent_token(SHARED)
    await platform.stop()
    async with open_proxy(platform.url) as proxy:
        assert (await _refusal(proxy, token))[:2] == (503, "platform_unavailable")


async def test_a_tunnel_is_no_page(proxy: Proxy) -> None:
    request = visitor_request(NAMES, OWN.partition("//")[2], "/_connect/tunnel")
    assert await proxy.gate.own_page(request) is None
