"""Servers and proxies that are drained, with real agents and streams: nobody notices who can go elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from connect_trio.config import load_server
from connect_trio.dial import ToolStream
from connect_trio.mux.codes import GoawayCode
from connect_trio.roles import draining
from connect_trio.roles.server import run_server
from tests.roles.test_stack_tunnels import at, echoes, start, until
from tests.support.stack import Server, Stack, open_stack, server_environ
from tests.support.tables import SESSION
from tests.support.tools import listening_tool


async def draining_server(stack: Stack, grace: str) -> Server:
    """One more server, which takes this long to stop."""
    scope, ended = trio.CancelScope(), trio.Event()
    settings = load_server(server_environ() | {"CONNECT_DRAIN_GRACE": grace})

    async def serve(*, task_status: trio.TaskStatus[object]) -> None:
        with scope:
            await run_server(settings, registry=stack.registry, task_status=task_status)
        ended.set()

    stack.servers.append(Server(scope, ended, await stack.nursery.start(serve)))
    return stack.servers[-1]


async def talk(stream: ToolStream, quiet: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    """Say something and hear it, again and again, and never lose the way."""
    async with stream:
        task_status.started()
        while not quiet.is_set():
            with trio.fail_after(60):
                await stream.send_all(b"still there?")
                assert await stream.receive_some() == b"still there?"
            assert not stream.detached
            await trio.sleep(0.005)


async def test_a_server_that_is_drained_loses_no_conversation_and_pauses_none(tmp_path: Path) -> None:
    async with open_stack(servers=0) as stack, listening_tool() as port:
        first = await draining_server(stack, "20s")
        await start(stack, tmp_path, port)
        second = await draining_server(stack, "0s")
        streams = [await stack.dial() for _ in range(20)]
        quiet = trio.Event()
        async with trio.open_nursery() as nursery:
            for stream in streams:
                await nursery.start(talk, stream, quiet)
            first.scope.cancel()
            await until(stack, at(second, second))
            with trio.fail_after(60):
                await first.ended.wait()
            quiet.set()
        counts = stack.dialer.opener.counts
        assert (counts.moved, counts.detached) == (20, 0)
        await echoes(stack)


async def test_a_server_that_nobody_relieves_stops_before_its_grace_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "STALLED", 0.5)
    async with open_stack(servers=0) as stack, listening_tool() as port:
        only = await draining_server(stack, "1h")
        await start(stack, tmp_path, port)
        stream = await stack.dial()
        await only.stop()
        assert stream.detached
        assert await stack.registry.find(SESSION) == []
        await stack.start_server()
        with trio.fail_after(60):
            await stream.send_all(b"resumed")
            assert await stream.receive_some() == b"resumed"


async def test_an_idle_server_is_drained_at_once(tmp_path: Path) -> None:
    async with open_stack(servers=0) as stack:
        server = await draining_server(stack, "1h")
        await server.stop()


async def test_tunnels_through_a_proxy_that_stops_go_another_way_before_they_are_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_stack(servers=2) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        await until(stack, at(*stack.servers))
        before = {(route.slot, route.epoch) for route in await stack.registry.find(SESSION)}
        stream = await stack.dial()
        # The proxy says so on its links, and stays: what is asked for is that agents come again.
        with trio.fail_after(60):
            await draining.send_tunnels_away(stack.pool, stack.registry, [SESSION], 30)
            while [record.message for record in caplog.records].count("tunnel ended") < 2 or before & {
                (route.slot, route.epoch) for route in await stack.registry.find(SESSION)
            }:
                await trio.sleep(0.01)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        await echoes(stack)


async def test_only_the_proxy_itself_can_send_its_tunnels_away(tmp_path: Path) -> None:
    async with open_stack(servers=1, proxy=b"Q" * 16) as stack, listening_tool() as port:
        await start(stack, tmp_path, port)
        await until(stack, at(stack.servers[0], stack.servers[0]))
        await echoes(stack)
        before = await stack.registry.find(SESSION)
        stack.pool.say_goodbye(GoawayCode.VIA, 30)  # the links are another proxy's than the tunnels
        await echoes(stack)
        assert await stack.registry.find(SESSION) == before


async def test_a_drain_may_begin_before_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "STALLED", 0.2)
    async with trio.open_nursery() as nursery:
        from connect_trio.management.health import Health

        done: list[str] = []

        async def work() -> None:
            await trio.lowlevel.checkpoint()
            done.append("drained")

        health = Health()
        drain = draining.Drain(work, health, nursery)
        drain.begin()
        assert not (await health.look()).ready
        await drain.finish()
        await drain.finish()
        assert done == ["drained"]
