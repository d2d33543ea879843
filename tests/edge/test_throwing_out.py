"""What happens to what is open when it is ended: in each protocol's own words where it has some, and cut where not."""

from __future__ import annotations

import logging

import pytest
import trio

from connect_trio.edge.boundaries import POLICY, RESTART, close_frame
from connect_trio.edge.scopes import Cause, Kind
from connect_trio.identity.control_plane import STOPPED, UNKNOWN, Decision
from tests.edge.test_boundaries import BINARY, TEXT, frame
from tests.edge.test_drain import MASKED_CLOSE, open_websocket
from tests.edge.test_tunnels import open_tunnel
from tests.support.edge import OWN, SESSION, SWITCHED, World, eventually, get, open_world, upgrade
from tests.support.grants import granted

ALICE = granted(SESSION)
REVOKED = Decision(allowed=False, reason="It is private to bob.", session_state="running")
GOODBYE = close_frame(POLICY, "your access to this Studio has ended")


def revoke(world: World) -> None:
    world.edge.scopes.judge(ALICE, REVOKED)


async def test_a_websocket_is_closed_with_1008_and_the_tool_sees_its_end() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(TEXT, 3))
        await client.exactly(5)
        revoke(world)
        assert await client.exactly(len(GOODBYE)) == GOODBYE
        await client.send(MASKED_CLOSE)
        await client.stream.send_eof()
        assert await client.rest() == b"", "an orderly end"
        assert await tool.is_reset()
        await eventually(lambda: world.edge.scopes.live() == {})
        assert world.edge.scopes.counts == {(Kind.WEBSOCKET, Cause.ACCESS): 1}


async def test_nothing_of_who_was_thrown_out_reaches_the_tool() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(BINARY, 1000)[:500])
        await client.exactly(500)
        revoke(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tool.is_reset)  # read as it comes: a reset takes away what nobody has read
            await client.send(frame(TEXT, 50, masked=True))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await tool.send(frame(BINARY, 1000)[500:])
            assert await client.exactly(504) == frame(BINARY, 1000)[500:], "a frame that had begun"
            assert await client.exactly(len(GOODBYE)) == GOODBYE
        assert tool.unread == b""


async def test_who_does_not_answer_the_close_is_cut_soon() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        revoke(world)
        assert await tool.is_reset()
        assert await client.rest() == GOODBYE
        await eventually(lambda: world.edge.connections == 0)


async def test_a_tool_that_stalls_within_a_frame_keeps_nobody_in() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(TEXT, 100)[:50])
        await client.exactly(50)
        revoke(world)
        assert await client.is_reset()
        assert await tool.is_reset()


async def test_a_lost_way_to_the_tool_keeps_nobody_in() -> None:
    """The clocks of who waits for a way are held; of who is thrown out they are not."""
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.send(frame(TEXT, 100)[:50])
        await client.exactly(50)
        world.dialer.streams[0].lost = True
        revoke(world)
        assert await client.is_reset()


async def test_a_visitor_that_does_not_read_is_cut() -> None:
    async with open_world() as world:
        _client, tool = await open_websocket(world)
        with trio.move_on_after(0.3):
            await tool.send(frame(BINARY, 64 << 20))
        revoke(world)
        await eventually(lambda: world.edge.connections == 0)


async def test_who_was_told_of_a_restart_can_be_thrown_out_nevertheless() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 8)
            restart = close_frame(RESTART, "Connect is being restarted")
            assert await client.exactly(len(restart)) == restart
            revoke(world)
            await client.send(frame(TEXT, 3, masked=True))
            assert await tool.is_reset()
            assert world.edge.scopes.counts == {(Kind.WEBSOCKET, Cause.ACCESS): 1}


async def test_a_websocket_that_ends_in_that_moment_leaves_no_stream_behind() -> None:
    async with open_world() as world:
        client, tool = await open_websocket(world)
        await tool.stream.send_eof()
        assert await client.rest() == b""
        revoke(world)
        await client.stream.send_eof()
        assert await tool.is_reset()


async def test_other_protocols_have_no_words_and_are_cut() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Upgrade: tcp", "Connection: upgrade"))
        await tool.head()
        await tool.send(SWITCHED.replace(b"websocket", b"tcp"))
        await client.head()
        revoke(world)
        assert await client.is_reset()
        assert await tool.is_reset()


@pytest.mark.parametrize("asked", [get(), upgrade()], ids=["http", "websocket"])
async def test_who_waits_for_an_answer_is_told_why_there_is_none(asked: bytes) -> None:
    async with open_world() as world:
        client, tool = await world.request(asked)
        await tool.head()
        revoke(world)
        found = await client.rest()
        assert found.startswith(b"HTTP/1.1 403 ")
        assert b"Your access to this Studio has ended. It is private to bob." in found
        assert await tool.is_reset()


async def test_an_answer_that_has_begun_is_cut_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await client.head()
        revoke(world)
        assert await client.is_reset()
        assert await tool.is_reset()
    (record,) = [record for record in caplog.records if record.message == "what was open is ended"]
    told = vars(record)
    assert (told["session"], told["subject"], told["http"]) == (SESSION, "sub-alice", 1)
    assert told["reason"] == "your access to this Studio has ended: It is private to bob."


async def test_only_what_is_the_visitors_is_ended() -> None:
    async with open_world() as world:
        alice, _ = await open_websocket(world)
        world.gate.subject = "sub-bob"
        bob, tool = await open_websocket(world)
        revoke(world)
        assert await alice.rest() == GOODBYE
        await tool.send(frame(TEXT, 3))
        assert await bob.exactly(5) == frame(TEXT, 3)


async def test_the_end_of_a_login_ends_what_is_open_of_it_alone() -> None:
    async with open_world() as world:
        world.gate.login = "first"
        one, _ = await open_websocket(world)
        waiting, tool = await world.request(get())
        await tool.head()
        world.gate.login = "second"
        other, other_tool = await open_websocket(world)
        assert world.edge.scopes.logins() == {"first", "second"}
        assert world.edge.scopes.end_login("first", "your login has ended") == 2
        assert await one.rest() == close_frame(POLICY, "your login has ended")
        found = await waiting.rest()
        assert found.startswith(b"HTTP/1.1 401 ")
        assert b"Your login has ended." in found
        await other_tool.send(frame(TEXT, 3))
        await other.exactly(5)


async def test_a_tunnel_ends_with_its_session_after_the_visitors_were_told() -> None:
    async with open_world() as world:
        agent, server = await open_tunnel(world)
        await server.head()
        await server.send(SWITCHED)
        await agent.head()
        client, _ = await open_websocket(world)
        assert world.edge.scopes.live() == {SESSION: 2}
        assert world.edge.scopes.grants() == {ALICE}, "an agent is no visitor"
        assert world.edge.scopes.end(SESSION, "the session was stopped") == 2
        assert await client.rest() == close_frame(POLICY, "the session was stopped")
        await server.send(b"last words")
        assert await agent.exactly(10) == b"last words"
        assert await server.is_reset()
        assert await agent.rest() == b""


async def test_an_agent_that_waits_for_a_server_hears_that_its_session_has_ended() -> None:
    async with open_world() as world:
        agent = await world.client()
        await agent.send(upgrade("/_connect/tunnel", "Authorization: Bearer secret", host=OWN))
        await eventually(lambda: world.edge.scopes.live() == {SESSION: 1})
        world.edge.scopes.end(SESSION, "the session was stopped")
        found = await agent.rest()
        assert found.startswith(b"HTTP/1.1 410 "), "an agent that hears this does not come back"
        assert b"the session was stopped" in found


async def test_a_session_that_one_visitor_cannot_see_is_not_over_for_all() -> None:
    async with open_world() as world:
        alice, _ = await open_websocket(world)
        world.gate.subject = "sub-bob"
        await open_websocket(world)
        world.edge.scopes.judge(ALICE, Decision(allowed=False, reason=None, session_state=UNKNOWN))
        assert await alice.rest() == close_frame(POLICY, "the session no longer exists")
        await eventually(lambda: world.edge.scopes.live() == {SESSION: 1})
        world.edge.scopes.judge(ALICE, Decision(allowed=True, reason=None, session_state=STOPPED))
        await eventually(lambda: world.edge.scopes.live() == {})


@pytest.mark.parametrize("state", ["starting", "", "whatever"])
async def test_a_state_that_is_no_end_ends_nothing(state: str) -> None:
    async with open_world() as world:
        await open_websocket(world)
        world.edge.scopes.judge(ALICE, Decision(allowed=True, reason=None, session_state=state))
        assert world.edge.scopes.counts == {}
