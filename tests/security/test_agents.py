"""Whose tunnel a session's visitors are led to: that of an agent with a token for it, and no older one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
import trio.testing

from connect_trio.edge.gate import Reply, TunnelGrant
from connect_trio.routing.names import HostNames
from tests.support.edge import SESSION, get, open_world
from tests.support.grants import granted_tunnel
from tests.support.login import NAMES, OWN_HOST, Proxy, platform, proxy
from tests.support.platform import PRIVATE, SHARED, RunningPlatform
from tests.support.tables import open_table
from tests.support.visitor import visitor_request
from tests.test_sessions_agents import refusal

__all__ = ["platform", "proxy"]

INSTANCE = "0123456789abcdef" * 2
TUNNEL = ("Upgrade: connect-mux", "Connection: Upgrade", f"X-Connect-Instance: {INSTANCE}")


async def ask(proxy: Proxy, names: HostNames, headers: Mapping[str, str], target: str) -> TunnelGrant | Reply:
    request = visitor_request(names, OWN_HOST, target, headers=headers, upgrade=True)
    return await proxy.gate.admit_tunnel(request)


@pytest.mark.parametrize("name", ["X-Connect-Session", "X-Connect-Label", "X-Connect-Studio", "Session"])
@pytest.mark.parametrize("target", ["/_connect/tunnel", f"/_connect/tunnel?session={SHARED}"])
async def test_an_agents_token_opens_no_other_session(
    proxy: Proxy, platform: RunningPlatform, name: str, target: str
) -> None:
    token = await platform.agent_token(PRIVATE)
    headers = {"authorization": f"Bearer {token}", "x-connect-instance": INSTANCE, name.lower(): SHARED}
    answer = await ask(proxy, NAMES, headers, target)
    assert isinstance(answer, TunnelGrant)
    assert answer.session == PRIVATE


@pytest.mark.parametrize("session", ["X-Connect-Session", "X_Connect_Session", "x-connect-session"])
async def test_an_agents_token_opens_no_other_session_at_the_server(session: str) -> None:
    """What the server believes is what the proxy has read in the token."""
    async with open_world() as world:
        server = await world.listen()
        world.servers.append(("127.0.0.1", server.port))
        world.gate.tunnel = TunnelGrant(grant=granted_tunnel(SESSION), instance=INSTANCE, issued=1_800_000_000)
        agent = await world.client()
        headers = (f"{session}: 00000001", "X-Connect-Issued: 1900000000", "X_Connect_Issued: 1900000000")
        await agent.send(get("/_connect/tunnel", *TUNNEL, *headers, host=OWN_HOST))
        head = await (await server.accept()).head()
        assert head.lower().count(b"-session:") == head.lower().count(b"-issued:") == 1
        assert f"X-Connect-Session: {SESSION}\r\n".encode() in head
        assert b"X-Connect-Issued: 1800000000\r\n" in head


async def test_a_stolen_token_that_is_older_takes_no_session_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its thief may count generations as far as a number goes."""
    async with open_table() as bench:
        agent = bench.tunnel(issued=1_800_000_001, generation=1, instance=b"A" * 16)
        await trio.testing.wait_all_tasks_blocked()
        for slot in range(4):
            thief = bench.tunnel(slot=slot, issued=1_800_000_000, generation=2**64 - 1, instance=b"B" * 16)
            await thief.ended.wait()
        assert agent.wire.closing is None
        assert set((await bench.owners()).values()) == {(b"A" * 16).hex()}


async def test_a_stolen_token_that_is_older_takes_no_session_over_by_a_name_that_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who knows an agent's id passes for it. So neither who is refused nor who is displaced learns another one's."""
    ids = [bytes([65 + number]) * 16 for number in range(3)]
    async with open_table() as bench:
        agents = [bench.tunnel(issued=1_800_000_000 + place, instance=ids[place]) for place in (1, 2, 0)]
        for agent in (agents[0], agents[2]):
            await agent.ended.wait()
        texts = [refusal(agent) for agent in (agents[0], agents[2])]
    assert all("newer agent" in text for text in texts)
    assert not any(instance.hex() in text for instance in ids for text in texts)


async def test_who_yields_counts_as_the_oldest() -> None:
    async with open_world() as world:
        server = await world.listen()
        world.servers.append(("127.0.0.1", server.port))
        agent = await world.client()
        await agent.send(get("/_connect/tunnel", *TUNNEL, "X-Connect-Yield: 1", host=OWN_HOST))
        assert b"X-Connect-Issued: 0\r\n" in await (await server.accept()).head()


@pytest.mark.parametrize("changes", [{"iat": 0}, {"iat": -5}, {"iat": 2**70}, {"iat": "1"}, {"iat": None}])
async def test_a_token_without_a_time_is_refused(
    proxy: Proxy, platform: RunningPlatform, changes: dict[str, object]
) -> None:
    claims = platform.keys.claims(await platform.agent_token(SHARED))
    assert claims is not None
    token = platform.keys.sign({**claims, **changes})
    answer = await ask(
        proxy, NAMES, {"authorization": f"Bearer {token}", "x-connect-instance": INSTANCE}, "/_connect/tunnel"
    )
    assert isinstance(answer, Reply)
    assert answer.status == 401
