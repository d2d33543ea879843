"""An agent's tunnels with real servers, an edge and a registry: where they go, and where they go instead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from connect_trio.routing.registry import Route, epoch_of
from tests.support.stack import Server, Stack, open_stack
from tests.support.tables import SESSION
from tests.support.tools import listening_tool


async def places(stack: Stack) -> list[str]:
    """Where proxies find the tunnels, by slot."""
    return [route.address for route in await stack.registry.find(SESSION)]


async def until(stack: Stack, condition: Callable[[list[str]], bool]) -> list[str]:
    with trio.fail_after(60):
        while not condition(found := await places(stack)):
            await trio.sleep(0.01)
    return found


def at(*servers: Server) -> Callable[[list[str]], bool]:
    """Two tunnels, one at each of these."""
    return lambda found: sorted(found) == sorted(server.running.address for server in servers)


async def echoes(stack: Stack) -> None:
    stream = await stack.dial()
    with trio.fail_after(60):
        await stream.send_all(b"still there")
        assert await stream.receive_some() == b"still there"
    await stream.aclose()


async def start(stack: Stack, root: Path, port: int, **env: str) -> None:
    await stack.start_agent(root, CONNECT_TOOL_PORT=str(port), **env)


@pytest.mark.parametrize("websocket_only", ["false", "true"])
async def test_two_tunnels_are_at_two_servers(tmp_path: Path, websocket_only: str) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await start(stack, tmp_path, port, CONNECT_TUNNEL_WEBSOCKET_ONLY=websocket_only)
        await until(stack, at(*stack.servers))
        await echoes(stack)


async def test_a_tunnel_whose_server_stops_goes_to_the_third(tmp_path: Path) -> None:
    async with open_stack(servers=3) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        taken = await until(stack, lambda found: len(found) == 2)
        lost, kept = (next(s for s in stack.servers if s.running.address == address) for address in taken)
        (third,) = (server for server in stack.servers if server not in (lost, kept))
        await lost.stop()
        await until(stack, at(kept, third))
        await echoes(stack)


async def test_a_tunnel_whose_server_stops_goes_to_the_only_other_one(tmp_path: Path) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        await until(stack, at(*stack.servers))
        lost, kept = stack.servers
        await lost.stop()
        await until(stack, at(kept, kept))
        await echoes(stack)


async def test_two_tunnels_at_the_only_server_part_when_there_is_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_trio.agent.client.LOOK", 0.2)
    monkeypatch.setattr("connect_trio.sessions.RENEW", 0.2)
    async with open_stack(servers=1) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        (first,) = stack.servers
        await until(stack, at(first, first))
        second = await stack.start_server()
        found = await until(stack, at(first, second))
        assert found == [first.running.address, second.running.address], "the slot that servers prefer stays"
        await echoes(stack)


async def test_as_many_tunnels_as_are_set_use_all_servers(tmp_path: Path) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await start(stack, tmp_path, port, CONNECT_AGENT_TUNNELS="4")
        found = await until(stack, lambda found: len(found) == 4)
        assert len(set(found)) == 2


async def test_a_second_agent_takes_all_tunnels_over(tmp_path: Path) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        await until(stack, at(*stack.servers))
        older = max(route.epoch for route in await stack.registry.find(SESSION))

        await start(stack, tmp_path, port)
        with trio.fail_after(60):
            while any(route.epoch <= older for route in await stack.registry.find(SESSION)):
                await trio.sleep(0.01)
        await until(stack, at(*stack.servers))
        await echoes(stack)


# two agents


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, str]]:
    """Whom lines of the log with this message name."""
    names = ("session", "instance", "replaced", "newer", "reason")
    lines = [vars(record) for record in caplog.records if record.message == message]
    return [{name: line[name] for name in names if name in line} for line in lines]


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a while takes less."""
    monkeypatch.setattr("connect_trio.agent.client.STAND_BY", 0.3)
    monkeypatch.setattr("connect_trio.agent.client.HELD", 0.3)
    monkeypatch.setattr("connect_trio.sessions.RENEW", 0.2)


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("newer", [SESSION, f"{SESSION}.2"], ids=["same token", "newer token"])
async def test_a_second_agent_replaces_the_first_and_both_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quickly: None, newer: str, servers: int
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stack(servers) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        first = await stack.owner()
        await stack.start_agent(tmp_path, session=newer, CONNECT_TOOL_PORT=str(port))
        second = await stack.owner(but=first)
        waits = "another agent has this session, waiting until it has gone"
        with trio.fail_after(60):
            while not (told(caplog, waits) and len(await stack.registry.find(SESSION)) == 2):
                await trio.sleep(0.01)
        await trio.sleep(1.5)  # in which the first one asks some times whether it may come back
        assert await stack.owner() == second
        await echoes(stack)
    replaced = told(caplog, "a newer agent took the place of an older one of its session")
    assert {tuple(line.items()) for line in replaced} == {
        (("session", SESSION), ("instance", second), ("replaced", first))
    }
    (line,) = told(caplog, waits)
    assert (line["instance"], f"(instance {second[:8]})" in line["reason"]) == (first, True)
    assert not any(SESSION + "." in record.getMessage() + str(vars(record)) for record in caplog.records)


async def test_an_agent_with_an_older_token_is_refused_however_late_it_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quickly: None
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stack() as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, session=f"{SESSION}.9", CONNECT_TOOL_PORT=str(port))
        first = await stack.owner()
        late = await stack.start_agent(tmp_path, session=f"{SESSION}.8", CONNECT_TOOL_PORT=str(port))
        await trio.sleep(1.5)
        assert await stack.owner() == first
        await echoes(stack)
        await late.stop()
    (line,) = told(caplog, "another agent has this session, waiting until it has gone")
    assert line["reason"] == f"a newer agent (instance {first[:8]}) of the same session is here"
    refused = told(caplog, "an agent is refused: a newer one of its session is here")
    assert {(each["instance"], each["newer"]) for each in refused} == {(line["instance"], first)}
    assert len(refused) <= 2, "one for each slot"


async def test_an_agent_that_made_way_comes_back_when_the_other_has_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quickly: None
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, session=f"{SESSION}.5", CONNECT_TOOL_PORT=str(port))
        first = await stack.owner()
        newer = await stack.start_agent(tmp_path, session=f"{SESSION}.6", CONNECT_TOOL_PORT=str(port))
        await stack.owner(but=first)
        await trio.sleep(1)
        await newer.stop()
        with trio.fail_after(60):
            while min([route.epoch for route in await stack.registry.find(SESSION)] * 2, default=0) < 5 << 64:
                await trio.sleep(0.01)
        assert await stack.owner() == first
        await echoes(stack)
        # It counts as its token says again, so that one with an older token is refused.
        await stack.start_agent(tmp_path, session=f"{SESSION}.4", CONNECT_TOOL_PORT=str(port))
        await trio.sleep(1)
        assert await stack.owner() == first
    assert told(caplog, "the other agent of this session has gone")[0]["instance"] == first


async def test_an_agent_that_made_way_has_all_its_slots_again_when_the_other_was_not_withdrawn(
    tmp_path: Path, quickly: None
) -> None:
    """The newer agent and its servers were killed together: its leases end, and the registry remembers them."""
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, session=f"{SESSION}.5", CONNECT_TOOL_PORT=str(port))
        first = await stack.owner()
        for slot in range(2):
            killed = Route(
                session=SESSION,
                slot=slot,
                address="killed:7777",
                connector="ff" * 16,
                epoch=epoch_of(6, slot),
                since=1.0,
                instance="ee" * 16,
            )
            assert await stack.registry.publish(killed, ttl=1.0)
        with trio.fail_after(20):
            while [each.epoch >> 64 for each in await stack.registry.find(SESSION)] != [5, 5]:
                await trio.sleep(0.01)
        assert await stack.owner() == first
        await echoes(stack)


async def test_two_agents_whose_tokens_are_renewed_do_not_take_the_session_from_each_other_for_ever(
    tmp_path: Path, quickly: None
) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        files = [tmp_path / "first", tmp_path / "second"]
        seen: list[str] = []

        async def renew(*, issued: int) -> None:
            for file in files:
                file.write_text(f"{SESSION}.{issued}")

        await renew(issued=1)
        for file in files:
            env = {"CONNECT_AGENT_TOKEN": "", "CONNECT_AGENT_TOKEN_FILE": str(file), "CONNECT_TOOL_PORT": str(port)}
            await stack.start_agent(tmp_path, **env)
            seen.append(await stack.owner(but=seen[0] if seen else ""))
        for issued in range(2, 6):
            await renew(issued=issued)
            await trio.sleep(0.4)
            seen.append(await stack.owner())
        assert seen[1:] == [seen[1]] * 5
        await echoes(stack)
