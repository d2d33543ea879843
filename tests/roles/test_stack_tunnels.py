"""An agent's tunnels with real servers, an edge and a registry: where they go, and where they go instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.support.stack import Server, Stack, open_stack
from tests.support.tables import SESSION
from tests.support.tools import listening_tool


async def places(stack: Stack) -> list[str]:
    """Where proxies find the tunnels, by slot."""
    return [route.address for route in await stack.registry.find(SESSION)]


async def until(stack: Stack, condition: Callable[[list[str]], bool]) -> list[str]:
    with trio.fail_after(10):
        while not condition(found := await places(stack)):
            await trio.sleep(0.01)
    return found


def at(*servers: Server) -> Callable[[list[str]], bool]:
    """Two tunnels, one at each of these."""
    return lambda found: sorted(found) == sorted(server.running.address for server in servers)


async def echoes(stack: Stack) -> None:
    stream = await stack.dial()
    with trio.fail_after(10):
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
        with trio.fail_after(10):
            while any(route.epoch <= older for route in await stack.registry.find(SESSION)):
                await trio.sleep(0.01)
        await until(stack, at(*stack.servers))
        await echoes(stack)
