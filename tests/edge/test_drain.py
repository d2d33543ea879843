"""An edge that is drained: what ends, in what order, and how."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from connect_trio.edge import listener
from connect_trio.edge.boundaries import RESTART, close_frame
from connect_trio.edge.gate import Reply
from tests.edge.test_boundaries import BINARY, CLOSE, TEXT, frame
from tests.edge.test_tunnels import open_tunnel
from tests.support.edge import OWN, SWITCHED, Peer, World, answer, eventually, get, open_world, upgrade

GOODBYE = close_frame(RESTART, "Connect is being restarted")
MASKED_CLOSE = frame(CLOSE, 2, masked=True)


async def open_websocket(world: World, early: bytes = b"") -> tuple[Peer, Peer]:
    client, tool = await world.request(upgrade())
    await tool.head()
    await tool.send(SWITCHED + early)
    await client.head()
    return client, tool


async def test_a_websocket_is_told_when_the_grace_is_nearly_over() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 2)
            await tool.send(frame(TEXT, 3))
            assert await client.exactly(5) == frame(TEXT, 3)
            await client.send(frame(TEXT, 3, masked=True))
            await tool.exactly(9)
            assert await client.exactly(len(GOODBYE)) == GOODBYE
            await client.send(MASKED_CLOSE)
            await client.stream.send_eof()
            assert await client.rest() == b"", "an orderly end"
            assert await tool.exactly(len(MASKED_CLOSE)) == MASKED_CLOSE
        assert world.edge.connections == 0


@pytest.mark.parametrize("early", [b"", frame(BINARY, 70_000)[:10]], ids=["later", "with the answer"])
@pytest.mark.parametrize("cut", [1, 3, 9, 20, 69_000])
async def test_a_frame_that_has_begun_is_passed_on_whole_and_no_other_one(cut: int, early: bytes) -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world, early)
        whole = frame(BINARY, 70_000)
        await tool.send(whole[len(early) : max(cut, len(early))])
        assert await client.exactly(max(cut, len(early))) == whole[: max(cut, len(early))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 2)
            await eventually(lambda: all(upgraded._farewell for upgraded in world.edge._context.upgraded))
            await tool.send(whole[max(cut, len(early)) :] + frame(TEXT, 100))
            assert await client.exactly(len(whole) - max(cut, len(early))) == whole[max(cut, len(early)) :]
            assert await client.rest() == GOODBYE
            await client.stream.send_eof()


async def test_a_visitor_that_does_not_answer_is_left_when_the_grace_is_over() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await world.edge.drain(0.2)
        assert await client.rest() == GOODBYE
        assert await tool.is_reset()


async def test_a_tool_that_stalls_within_a_frame_cuts_the_visitor_and_no_frame_is_forged() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(TEXT, 100)[:50])
        await client.exactly(50)
        await world.edge.drain(0.2)
        assert await client.is_reset()


async def test_a_websocket_that_the_tool_has_closed_gets_no_second_close() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(CLOSE, 2))
        await client.exactly(4)
        await world.edge.drain(0.2)
        with pytest.raises(trio.BrokenResourceError):
            assert await client.rest() == b""


async def test_an_answer_that_is_being_sent_is_finished() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b"12345")[:-3])
        await client.until(b"12")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 10)
            await eventually(lambda: world.edge._context.draining)
            await tool.send(b"345")
            assert await client.exactly(3) == b"345"
            await client.stream.send_eof()
            assert await client.rest() == b""


async def test_a_request_that_has_arrived_on_an_idle_connection_is_answered() -> None:
    async with open_world() as world:
        world.gate.pages[b"/page"] = Reply(status=200, body=b"here")
        client = await world.client()
        await eventually(lambda: world.edge.connections == 1)
        await trio.testing.wait_all_tasks_blocked()
        os.write(client.stream.socket.fileno(), get("/page", host=OWN))  # nobody has run since
        await world.edge.drain(10)
        answered = await client.rest()
    assert answered.endswith(b"here")
    assert b"Connection: close\r\n" in answered


async def test_an_answer_that_promised_to_keep_the_connection_is_followed_by_another_one() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(answer(b"12345")[:-3])
        assert b"Connection: close" not in await client.head()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 10)
            await eventually(lambda: world.edge._context.draining)
            await tool.send(b"345")
            assert await client.exactly(5) == b"12345"
            await client.send(get())
            await tool.head()
            await tool.send(answer(b"67"))
            assert b"Connection: close" in await client.head()
            assert await client.rest() == b"67"


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with open_world() as world:
        idle = await world.client()
        await eventually(lambda: world.edge.connections == 1)
        await world.edge.drain(0.4)
        assert await idle.rest() == b""


async def test_nobody_waits_for_tunnels_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "STALLED", 0.3)
    async with open_world() as world:
        agent, server = await open_tunnel(world)
        await server.head()
        await server.send(SWITCHED)
        await agent.head()
        with trio.fail_after(60):
            await world.edge.drain(60)
        assert await agent.rest() == b""


async def test_tunnels_that_are_replaced_are_waited_for() -> None:
    async with open_world() as world:
        agent, server = await open_tunnel(world)
        await server.head()
        await server.send(SWITCHED)
        await agent.head()
        assert world.edge.tunnels == ["23ce7967"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 60)
            await server.stream.send_eof()
            assert await agent.rest() == b""
            await agent.stream.send_eof()
        assert world.edge.tunnels == []
