"""Who is connected, as the edge sees it: requests, WebSockets, and whose bytes pass."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from connect_trio.edge.context import Limits
from connect_trio.identity.activity import Activity
from tests.support.edge import SESSION, World, answer, eventually, get, open_world, upgrade

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SUBJECT = "sub-alice"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world(limits=Limits(housekeeping=0.02, sample=0.05)) as opened:
        yield opened


def present(activity: Activity) -> int:
    """How many things the visitor has open."""
    return activity.visit(SESSION, SUBJECT).open


async def test_a_request_is_a_visit_while_it_lasts(world: World) -> None:
    client, tool = await world.request(get())
    await tool.head()
    assert present(world.edge.activity) == 1
    await tool.send(answer(b"done"))
    await client.until(b"done")
    await eventually(lambda: present(world.edge.activity) == 0)
    assert len(world.edge.activity) == 1, "its end is still to be told"


async def test_a_websocket_is_a_visit_until_it_ends(world: World) -> None:
    client, tool = await world.request(upgrade())
    await tool.head()
    await tool.send(SWITCHED)
    await client.head()
    assert present(world.edge.activity) == 1
    await client.close()
    await tool.close()
    await eventually(lambda: present(world.edge.activity) == 0)


async def test_whose_bytes_pass_is_active(world: World) -> None:
    client, tool = await world.request(upgrade())
    await tool.head()
    await tool.send(SWITCHED)
    await client.head()
    presence = world.edge.activity.visit(SESSION, SUBJECT)
    for sender, receiver in ((client, tool), (tool, client)):
        await trio.sleep(0.15)  # two samples
        before = presence.active
        await trio.sleep(0.15)
        assert presence.active == before, "nothing passes"
        await sender.send(b"\x82\x01x")
        await receiver.exactly(3)
        await eventually(lambda before=before: presence.active > before)  # type: ignore[misc]


async def test_whoever_is_not_let_in_is_nowhere(world: World) -> None:
    assert b" 404 " in await world.ask(get("/nothing", host="connect.localhost"))
    world.gate.failing = True
    assert b" 500 " in await world.ask(get())
    assert len(world.edge.activity) == 0
