"""Parts of a stack that are asked to stop while people work: nobody is thrown out who can go elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio_websocket

from tests.support import survival_tool
from tests.support.e2e import MODES, PATIENCE, DevStack, dev_stack, with_tool
from tests.support.parts import require
from tests.support.visits import Visitor, web_socket

TOOL = [sys.executable, "-P", str(Path(survival_tool.__file__)), "{port}"]
CONVERSATIONS = 20
RESTART = 1012
GRACE = 4.0
GOODBYE = min(2.0, GRACE / 4)
"""Seconds at the end of the grace in which WebSockets are closed, as docs/operations.md says."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """Two servers, two proxies; a drain may take longer than the development stack's usually does."""
    require("redis-server")
    root = tmp_path_factory.mktemp("drain")
    environ = {"CONNECT_DRAIN_GRACE": f"{GRACE:g}s"}
    with dev_stack(*with_tool("processes", TOOL), root=root, name="drain", env=environ) as stack:
        yield stack


@asynccontextmanager
async def conversations(stack: DevStack, proxy: int) -> AsyncIterator[list[trio_websocket.WebSocketConnection]]:
    """WebSockets of alice to her private Studio, all through one proxy."""
    alice = Visitor(via=int(stack.document["proxies"][proxy].rpartition(":")[2]))
    url = stack.private["url"] + "echo"
    await trio.to_thread.run_sync(alice.log_in, stack.private["url"] + "nothing", "alice")
    async with AsyncExitStack() as stack_of_sockets:
        yield [await stack_of_sockets.enter_async_context(web_socket(alice, url)) for _ in range(CONVERSATIONS)]


async def echoes(socket: trio_websocket.WebSocketConnection, text: bytes) -> None:
    with trio.fail_after(PATIENCE):
        await socket.send_message(text)
        assert await socket.get_message() == text


async def stays_nearly_until(end: float, socket: trio_websocket.WebSocketConnection) -> None:
    """It works until it is closed with a code, which is not before the grace is nearly over."""
    with pytest.raises(trio_websocket.ConnectionClosed) as closed:
        await echo_for_ever(socket)
    assert time.monotonic() >= end - GOODBYE
    assert closed.value.reason is not None
    assert closed.value.reason.code == RESTART


async def echo_for_ever(socket: trio_websocket.WebSocketConnection) -> None:
    while True:
        await echoes(socket, b"still there")
        await trio.sleep(0.1)


async def another(stack: DevStack, role: str, number: int, before: int) -> None:
    """The process that was asked to stop has stopped, and another one is there."""
    with trio.fail_after(PATIENCE):
        while len(pids := stack.pids(role)) < 2 or pids[number] == before:
            await trio.sleep(0.05)


@pytest.mark.parametrize("number", range(2))
async def test_no_conversation_is_lost_with_a_server_that_is_drained(stack: DevStack, number: int) -> None:
    async with conversations(stack, 0) as sockets:
        for socket in sockets:
            await echoes(socket, b"before")
        pid = stack.pids("server")[number]
        os.kill(pid, signal.SIGTERM)
        gone = trio.Event()

        async def talk(socket: trio_websocket.WebSocketConnection) -> None:
            while not gone.is_set():
                await echoes(socket, b"meanwhile")
                await trio.sleep(0.02)
            await echoes(socket, b"afterwards")

        async with trio.open_nursery() as nursery:
            for socket in sockets:
                nursery.start_soon(talk, socket)
            await another(stack, "server", number, pid)
            gone.set()


async def test_a_proxy_that_is_drained_closes_websockets_with_a_code_at_the_end(stack: DevStack) -> None:
    async with conversations(stack, 0) as leaving, conversations(stack, 1) as staying:
        pid = stack.pids("proxy")[0]
        since = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        await until_ready(stack, "proxy", 0, 503)
        for socket in staying:
            await echoes(socket, b"not of its business")
        async with trio.open_nursery() as nursery:
            for socket in leaving:
                nursery.start_soon(stays_nearly_until, since + GRACE, socket)
        await another(stack, "proxy", 0, pid)
        for socket in staying:
            await echoes(socket, b"at another proxy")


async def test_every_process_is_managed(stack: DevStack) -> None:
    assert {role: len(urls) for role, urls in stack.document["management"].items()} == {"server": 2, "proxy": 2}
    for role in ("server", "proxy"):
        for number in range(2):
            await until_ready(stack, role, number, 200)
            url = stack.document["management"][role][number]
            assert status_of(url + "/livez") == 200
            assert status_of(url + "/metrics") == 401
            key = {"Authorization": f"Bearer {stack.document['management_key']}"}
            with urllib.request.urlopen(urllib.request.Request(url + "/metrics", headers=key)) as answer:
                assert f'connect_info{{role="{role}",' in answer.read().decode()


async def until_ready(stack: DevStack, role: str, number: int, status: int) -> None:
    url = stack.document["management"][role][number] + "/readyz"
    with trio.fail_after(PATIENCE):
        while await trio.to_thread.run_sync(status_of, url) != status:
            await trio.sleep(0.05)


def status_of(url: str) -> int:
    """0 where nobody listens."""
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code
    except OSError:
        return 0


def test_one_process_has_no_management_port(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with dev_stack(*MODES["single"], root=tmp_path / "root", name="drain-single") as single:
        assert single.document["management"] == {}
