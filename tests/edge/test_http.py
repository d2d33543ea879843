"""A visitor's connection: Connect's own answers, errors, time-outs, limits, its end."""

from __future__ import annotations

import json
import logging
import math

import pytest
import trio
from trio.testing import MockClock

from connect_trio.dial import Failure
from connect_trio.edge.boundaries import POLICY, close_frame
from connect_trio.edge.context import Limits
from connect_trio.edge.gate import Reply
from connect_trio.edge.listener import open_listener
from tests.support.edge import OWN, SESSION, SWITCHED, answer, get, open_world, upgrade

HTML = "Accept: text/html,*/*"


LAZY = Limits(housekeeping=math.inf)  # nothing but the deadlines themselves makes the clock jump


@pytest.fixture
def clock() -> MockClock:
    """Jumps to the next deadline once nothing has happened for a while: sockets need a moment."""
    return MockClock(autojump_threshold=0.02)


async def test_a_refusal_of_the_gate_is_the_answer() -> None:
    async with open_world() as world:
        world.gate.verdict = Reply(status=302, headers=((b"Location", b"http://login.example/"),))
        client = await world.client()
        for _ in range(2):
            await client.send(get("/", "Content-Length: 3", method="POST") + b"abc")
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nDate: ")
            assert b"Content-Length: 0\r\n" in head
        assert not world.dialer.targets


async def test_the_gate_sees_the_request() -> None:
    async with open_world() as world:
        world.gate.verdict = Reply(status=403)
        await world.ask(get("/a?b", HTML, "X-One: 1", "x-one: 2", host="A23CE7967.connect.localhost"))
        request = world.gate.requests[0]
        assert (request.method, request.target, request.label) == (b"GET", b"/a?b", "a23ce7967")
        assert request.host == "a23ce7967.connect.localhost"
        assert request.headers[2:] == ((b"x-one", b"1"), (b"x-one", b"2"))
        assert (request.upgrade, request.wants_html) == (False, True)


async def test_a_refused_upload_is_not_read_and_its_refusal_arrives() -> None:
    async with open_world() as world:
        world.gate.verdict = Reply(status=401, body=b"no")
        client = await world.client()
        await client.send(get("/", "Content-Length: 1000000", method="POST") + b"x" * 300_000)
        head = await client.head()
        assert b"Connection: close\r\n" in head
        assert await client.rest() == b"no"


async def test_own_pages_are_served_on_connects_own_host_and_below_the_reserved_path() -> None:
    async with open_world() as world:
        world.gate.pages = {b"/": Reply(status=200, body=b"home"), b"/_connect/out": Reply(status=204)}
        client = await world.client()
        await client.send(get("/", host=OWN))
        await client.head()
        assert await client.exactly(4) == b"home"
        await client.send(get("/", host=OWN, method="HEAD"))
        assert b"Content-Length: 4\r\n" in await client.head()
        await client.send(get("/_connect/out"))
        assert b"Content-Length" not in await client.head()
        await client.send(get("/missing", host=OWN))
        assert (await client.head()).startswith(b"HTTP/1.1 404 ")


async def test_errors_are_json_for_programs_and_pages_for_browsers() -> None:
    async with open_world() as world:
        world.dialer.refusal = Failure(status=502, part="agent", text="The <agent> is away & gone.")
        head, _, body = (await world.ask(get())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n")
        error = json.loads(body)["error"]
        assert (error["status"], error["part"], error["message"]) == (502, "agent", "The <agent> is away & gone.")
        head, _, body = (await world.ask(get("/", HTML))).partition(b"\r\n\r\n")
        assert b"Content-Type: text/html; charset=utf-8\r\n" in head
        assert b"Content-Security-Policy: default-src 'none'; style-src 'sha256-" in head
        assert b"The &lt;agent&gt; is away &amp; gone." in body


async def test_the_id_of_an_error_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        world.dialer.refusal = Failure(status=504, part="server", text="Too slow.")
        found = await world.ask(get())
        error = json.loads(found.partition(b"\r\n\r\n")[2])["error"]
        assert f"[{error['id']}] visitor 127.0.0.1: 504, server: Too slow." in caplog.text


async def test_a_studio_that_starts_makes_browsers_come_back() -> None:
    async with open_world() as world:
        world.dialer.refusal = Failure(status=503, part="session", text="The Studio is starting.")
        found = await world.ask(get("/", HTML))
        assert b"\r\nRetry-After: 3\r\n" in found
        assert b'<meta http-equiv="refresh" content="3">' in found
        assert b"Retry-After" not in await world.ask(get("/", HTML, method="POST"))


async def test_a_connection_is_kept_after_a_failure_of_the_tool() -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.close()
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"closed the connection without an answer" in await client.until(b"}}\n")
        await client.send(get())
        tool = await world.tool.accept()
        await tool.head()
        tool.reset()
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")
        await client.until(b"}}\n")
        await client.send(get())
        tool = await world.tool.accept()
        await tool.send(answer(b"fine"))
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "text",
    [b"SSH-2.0-tool\r\n\r\n", b"\0\0\0", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, SWITCHED],
    ids=["SSH", "zeros", "no status", "an endless head", "a switch that nobody asked for"],
)
async def test_a_tool_that_does_not_speak_http_is_a_bad_gateway(text: bytes) -> None:
    async with open_world() as world:
        client, tool = await world.request(get())
        await tool.send(text)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")
        assert await tool.is_reset()


async def test_interim_answers_without_end_are_a_bad_gateway() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", version="1.0"))
        await tool.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        assert (await client.head()).startswith(b"HTTP/1.1 502 ")


async def test_a_bug_costs_one_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        other, tool = await world.request(get())
        world.gate.failing = True
        found = await world.ask(get())
        assert found.startswith(b"HTTP/1.1 500 ")
        record = next(record for record in caplog.records if record.levelno == logging.ERROR)
        assert record.exc_info is not None
        assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["id"] in record.getMessage()
        await tool.send(answer(b""))
        assert (await other.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("nonsense", [b"PRI * HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"])
async def test_nonsense_of_strangers_warns_nobody(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_world() as world:
        assert (await world.ask(nonsense)).startswith(b"HTTP/1.1 50")
        assert not any(record.levelno >= logging.WARNING for record in caplog.records)


async def test_a_head_that_is_too_large_is_refused() -> None:
    async with open_world(limits=Limits(head_size=2000, linger=0.2)) as world:
        assert (await world.ask(get("/" + "x" * 3000))).startswith(b"HTTP/1.1 431 ")
        assert (await world.ask(get("/", "X: " + "x" * 3000)[:-2])).startswith(b"HTTP/1.1 431 ")
        _, tool = await world.request(get("/" + "x" * 1500))
        await tool.head()


async def test_trailers_and_chunk_headers_without_end_are_refused() -> None:
    async with open_world(limits=Limits(head_size=2000, linger=0.2)) as world:
        for text in (b"1;" + b"x" * 3000, b"0\r\nX: " + b"x" * 3000):
            client = await world.client()
            await client.send(get("/", "Transfer-Encoding: chunked", method="POST") + text)
            assert (await client.head()).startswith(b"HTTP/1.1 431 ")


async def test_a_slow_head_is_timed_out_however_steadily_it_comes(clock: MockClock) -> None:
    async with open_world(limits=LAZY, patience=math.inf) as world:
        client = await world.client()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in get("/", "X: " + "x" * 1000):
                    await client.send(bytes([byte]))
                    await trio.sleep(1.5)

            nursery.start_soon(drip)
            assert (await client.head()).startswith(b"HTTP/1.1 408 ")
            assert trio.current_time() < 17
            nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_closed_without_a_word(clock: MockClock) -> None:
    async with open_world(limits=LAZY, patience=math.inf) as world:
        start = trio.current_time()
        client = await world.client()
        assert await client.rest() == b""
        assert 74 < trio.current_time() - start < 77


async def test_a_tool_that_does_not_answer_is_timed_out(clock: MockClock) -> None:
    async with open_world(limits=LAZY, patience=math.inf) as world:
        client, tool = await world.request(get())
        await tool.head()
        await trio.sleep(590)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await trio.sleep(20)
        assert (await client.head()).startswith(b"HTTP/1.1 504 ")
        assert await tool.is_reset()


async def test_time_without_a_way_to_the_tool_is_not_held_against_it(clock: MockClock) -> None:
    async with open_world(limits=Limits(housekeeping=60), patience=math.inf) as world:
        client, tool = await world.request(get())
        await tool.head()
        world.dialer.streams[0].lost = True
        await trio.sleep(500)
        await client.stream.send_eof()
        await trio.sleep(3000)
        world.dialer.streams[0].lost = False
        await tool.send(answer(b"late"))
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_may_pause_for_hours(clock: MockClock) -> None:
    async with open_world(limits=LAZY, patience=math.inf) as world:
        client, tool = await world.request(get())
        await tool.head()
        await tool.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.head()
        await trio.sleep(10_000)
        await tool.send(b"1\r\nx\r\n0\r\n\r\n")
        await client.until(b"0\r\n\r\n")


async def test_an_upload_that_stalls_is_given_up(clock: MockClock) -> None:
    async with open_world(limits=LAZY, patience=math.inf) as world:
        _client, tool = await world.request(get("/", "Content-Length: 10", method="PUT"))
        await tool.head()
        await trio.sleep(1000)
        assert await tool.is_reset()


async def test_connections_beyond_the_limit_are_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    async with open_world(limits=Limits(connections=2)) as world:
        waiting, tool = await world.request(get())
        await tool.head()
        socket, socket_tool = await world.request(upgrade())
        await socket_tool.head()
        await socket_tool.send(SWITCHED)
        await socket.head()
        for _ in range(100):
            assert (await (await world.client()).rest()).startswith(b"HTTP/1.1 503 ")
        await tool.send(answer(b""))
        assert (await waiting.head()).startswith(b"HTTP/1.1 200 ")
    said = [record for record in caplog.records if "too many" in record.getMessage()]
    assert 0 < len(said) < 50, "the log is bounded"


async def test_who_asks_for_nothing_makes_room_for_who_does() -> None:
    """Whoever holds all connections open, with or without the beginning of a request, locks nobody out."""
    async with open_world(limits=Limits(connections=40)) as world:
        for _ in range(30):
            await world.client()
        slow = [await world.client() for _ in range(8)]
        for client in slow:
            await client.send(b"GET / HTTP/1.1\r\nHost: ")
        socket, socket_tool = await world.request(upgrade())
        await socket_tool.head()
        await socket_tool.send(SWITCHED)
        await socket.head()
        waiting, waiting_tool = await world.request(get())
        await waiting_tool.head()
        assert world.edge.connections == 40
        for _ in range(38):
            client = await world.client()
            await client.send(get("/_connect/nothing"))
            assert (await client.head()).startswith(b"HTTP/1.1 404 ")
            assert world.edge.connections <= 41
        for client in slow:
            assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        await waiting_tool.send(answer(b""))
        assert (await waiting.head()).startswith(b"HTTP/1.1 200 ")
        await socket_tool.send(b"\x82\x01x")
        assert await socket.exactly(3) == b"\x82\x01x"


async def test_the_end_of_a_session_ends_its_exchanges_and_upgraded_connections_only() -> None:
    async with open_world() as world:
        other, other_tool = await world.request(get("/", host="a00000001.connect.localhost"))
        waiting, tool = await world.request(get())
        await tool.head()
        socket, socket_tool = await world.request(upgrade())
        await socket_tool.head()
        await socket_tool.send(SWITCHED)
        await socket.head()
        streaming, streaming_tool = await world.request(get())
        await streaming_tool.head()
        await streaming_tool.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await streaming.head()
        assert world.edge.scopes.live() == {SESSION: 3, "00000001": 1}
        assert world.edge.scopes.end(SESSION, "it was stopped") == 3
        found = await waiting.rest()
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"The Studio has ended: it was stopped." in found
        assert await socket.rest() == close_frame(POLICY, "it was stopped")
        await socket.close()
        assert await streaming.is_reset()
        for ended in (tool, socket_tool, streaming_tool):
            assert await ended.is_reset()
        assert world.edge.scopes.live() == {"00000001": 1}
        await other_tool.send(answer(b""))
        assert (await other.head()).startswith(b"HTTP/1.1 200 ")


async def test_draining_ends_idle_connections_finishes_requests_and_accepts_nobody() -> None:
    async with open_world() as world:
        idle, running = await world.client(), None
        running, tool = await world.request(get())
        await tool.head()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.edge.drain, 10)
            assert await idle.rest() == b""
            with pytest.raises(OSError, match=r"refused|failed"):
                await trio.open_tcp_stream("127.0.0.1", world.port)
            await tool.send(answer(b"done"))
            assert b"Connection: close\r\n" in await running.head()
            assert await running.rest() == b"done"
        with trio.fail_after(60):
            await world.served.wait()


async def test_draining_cuts_what_is_left_after_its_grace() -> None:
    async with open_world() as world:
        client, tool = await world.request(get("/", "Upgrade: tcp", "Connection: upgrade"))
        await tool.head()
        await tool.send(SWITCHED.replace(b"websocket", b"tcp"))
        await client.head()
        await world.edge.drain(0.1)
        with trio.fail_after(60):
            await world.served.wait()
        assert await client.is_reset()
        assert await tool.is_reset()


def test_a_port_in_use_cannot_be_listened_on() -> None:
    with open_listener("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        open_listener("127.0.0.1", first.getsockname()[1])
    with (
        open_listener("127.0.0.1", 0, reuse_port=True) as first,
        open_listener("127.0.0.1", first.getsockname()[1], reuse_port=True) as second,
    ):
        assert first.getsockname() == second.getsockname()
