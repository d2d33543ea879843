"""Agents name the servers and proxies that their tunnels are to avoid: what a proxy makes of it."""

from __future__ import annotations

import json

import pytest

from connect_trio.edge.context import Limits
from tests.support.edge import OWN, PROXY, SWITCHED, Listener, Peer, World, answer, open_world, upgrade

ONE, TWO = "01" * 16, "02" * 16
CONFLICT = answer(b"", status="409 Conflict")
STOPPING = answer(b"", status="503 Service Unavailable")


def tunnel(*headers: str) -> bytes:
    return upgrade("/_connect/tunnel", "Authorization: Bearer secret", *headers, host=OWN)


def problem(found: bytes) -> tuple[int, str, str]:
    """Status, part and text of a refusal."""
    error = json.loads(found.partition(b"\r\n\r\n")[2])["error"]
    assert found.startswith(b"HTTP/1.1 %d " % error["status"])
    return error["status"], error["part"], error["message"]


async def two_servers(world: World) -> tuple[Listener, Listener]:
    first, second = await world.listen(), await world.listen()
    world.servers[:] = [("127.0.0.1", first.port), ("127.0.0.1", second.port)]
    return first, second


async def asked(world: World, *headers: str) -> Peer:
    agent = await world.client()
    await agent.send(tunnel(*headers))
    return agent


async def say(server: Listener, reply: bytes) -> bytes:
    """The next request of a tunnel, which the server answers with `reply`."""
    wire = await server.accept()
    head = await wire.head()
    await wire.send(reply)
    return head


async def test_the_next_server_is_asked_if_one_is_to_be_avoided() -> None:
    async with open_world() as world:
        first, second = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid: {ONE}", f"x-connect-avoid:{TWO} ,\t{ONE}")
        for server, reply in ((first, CONFLICT), (second, SWITCHED)):
            head = await say(server, reply)
            assert f"\r\nX-Connect-Avoid: {ONE}, {TWO}, {ONE}\r\n".encode() in head
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


async def test_a_server_to_avoid_is_better_than_none() -> None:
    async with open_world() as world:
        first, second = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid: {ONE}, {TWO}")
        for server in (first, second):
            await say(server, CONFLICT)
        for server, reply in ((first, STOPPING), (second, SWITCHED)):
            assert b"X-Connect-Avoid" not in await say(server, reply)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


async def test_a_server_that_refused_for_another_reason_is_not_asked_again() -> None:
    async with open_world(limits=Limits(server_wait=0)) as world:
        first, second = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid: {ONE}")
        for server, reply in ((first, STOPPING), (second, CONFLICT), (second, STOPPING)):
            await say(server, reply)
        status, part, text = problem(await agent.rest())
        assert (status, part) == (502, "server")
        assert [text.count(found) for found in ("answered 409", "answered 503")] == [1, 2]


async def test_an_agent_that_insists_is_refused_instead() -> None:
    async with open_world() as world:
        first, second = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid: {ONE}, {TWO}", "X-Connect-Avoid-Strictly: 1")
        for server in (first, second):
            assert b"Strictly" not in await say(server, CONFLICT)
        text = "There is no other server than those that the agent avoids."
        assert problem(await agent.rest()) == (409, "server", text)


async def test_an_agent_that_insists_gets_another_server_if_there_is_one() -> None:
    async with open_world() as world:
        first, second = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid: {ONE}", "X-Connect-Avoid-Strictly: 1")
        await say(first, CONFLICT)
        await say(second, SWITCHED)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


async def test_a_proxy_that_is_to_be_avoided_says_so() -> None:
    async with open_world() as world:
        found = await world.ask(tunnel(f"X-Connect-Avoid-Proxy: {ONE}, {PROXY.hex()}"))
        assert world.gate.requests == [], "nobody was asked about an agent that goes elsewhere"
        assert problem(found) == (409, "proxy", "The agent has a tunnel through this proxy already.")


async def test_other_proxies_that_are_to_be_avoided_do_not_matter() -> None:
    async with open_world() as world:
        first, _ = await two_servers(world)
        agent = await asked(world, f"X-Connect-Avoid-Proxy: {ONE}")
        assert b"Avoid" not in await say(first, SWITCHED)
        assert (await agent.head()).startswith(b"HTTP/1.1 101 ")


IDS = "it must be 1 to 8 ids of 32 lower-case hex digits, separated by commas."


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([f"{name}: {value}"], f"{name}: {IDS}")
        for name in ("x-connect-avoid", "x-connect-avoid-proxy")
        for value in (
            "",
            ",",
            f"{ONE},",
            f"{ONE},,{TWO}",
            f"{ONE} {TWO}",
            ONE[1:],
            ONE + "0",
            "AB" * 16,
            "xy" * 16,
            "\xe9" * 32,
            f'"{ONE}"',
            ", ".join([ONE] * 9),
            ",".join([ONE] * 1000),
        )
    ]
    + [
        ([f"X-Connect-Avoid: {ONE}"] * 9, f"x-connect-avoid: {IDS}"),
        ([f"X-Connect-Avoid: {ONE}", "X-Connect-Avoid:"], f"x-connect-avoid: {IDS}"),
    ]
    + [
        (headers, "x-connect-avoid-strictly: it must be 1, once, or not there.")
        for headers in (
            ["X-Connect-Avoid-Strictly: 0"],
            ["X-Connect-Avoid-Strictly:"],
            ["X-Connect-Avoid-Strictly: 1, 1"],
            ["X-Connect-Avoid-Strictly: 1"] * 2,
        )
    ]
    + [
        (headers, "x-connect-yield: it must be 1, once, or not there.")
        for headers in (["X-Connect-Yield: yes"], ["X-Connect-Yield:"], ["X-Connect-Yield: 1"] * 2)
    ],
)
async def test_a_wish_that_cannot_be_understood_is_one_clear_line(headers: list[str], text: str) -> None:
    async with open_world() as world:
        found = problem(await world.ask(tunnel(*headers)))
        assert found == (400, "request", f"This is not a valid request for a tunnel: {text}")


async def test_eight_ids_are_passed_on() -> None:
    async with open_world() as world:
        first, _ = await two_servers(world)
        await asked(world, "X-Connect-Avoid: " + ",".join([ONE, TWO] * 4))
        assert b"X-Connect-Avoid: " + ", ".join([ONE, TWO] * 4).encode() in await say(first, SWITCHED)


async def test_names_that_only_look_like_ours_are_not_believed() -> None:
    async with open_world() as world:
        first, _ = await two_servers(world)
        await asked(world, f"X_Connect_Avoid: {ONE}", f"X-Connect-Avoid-: {ONE}")
        assert b"void" not in await say(first, SWITCHED)
