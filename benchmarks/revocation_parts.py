"""What takes part in the measurement of revocations: visitors with something open, their tools, and their agents."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import trio

from benchmarks.targets import CannotMeasure
from connect_trio.agent.client import TunnelClient, TunnelRefused
from connect_trio.agent.dialling import TunnelDialler
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.places import Places
from connect_trio.agent.shell.programs import Setup
from connect_trio.agent.shell.serving import ShellServer
from connect_trio.agent.tool import Tool
from connect_trio.edge.boundaries import POLICY
from connect_trio.edge.login_ends import Logins, Visit
from connect_trio.edge.login_records import Login, digest
from connect_trio.identity.refresh import Tokens
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.mux.hub import Hub

HOST = "127.0.0.1"
PATIENCE = 30.0
_HEAD_END = b"\r\n\r\n"
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_STREAMING = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

KINDS = {"WebSocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", "response": b""}


async def serve_tool(*, task_status: trio.TaskStatus[int]) -> None:
    """Switches or begins an answer, and then says nothing more."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                head = b""
                while _HEAD_END not in head:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    head += data
                await stream.send_all(_SWITCHED if b"upgrade: websocket" in head.lower() else _STREAMING)
                while await stream.receive_some(65536):
                    pass
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host=HOST))
        task_status.started(listener.socket.getsockname()[1])


class Visitor:
    """Somebody who has logged in to one session. login: what that is called in the Store."""

    def __init__(self, subject: str, session: str) -> None:
        self.subject = subject
        self.session = session
        self.login = ""
        self._cookie = ""

    async def log_in(self, logins: Logins) -> None:
        now = time.time()
        login = Login(subject=self.subject, username=self.subject, created=now, issued=now)
        tokens = Tokens(id_token="none", refresh_token=None, client_id="none", nonce="none", auth_time=None, due=now)
        self.login = digest(await logins.begin(login, tokens))
        self._cookie = await logins.open_studio(Visit(self.login, login), self.session)

    async def open(self, kind: str, port: int) -> trio.SocketStream:
        """Something that stays open. Raises CannotMeasure."""
        host = f"a{self.session}.connect.localhost:{port}"
        head = f"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: connect_session={self._cookie}\r\n".encode()
        stream = await trio.open_tcp_stream(HOST, port)
        await stream.send_all(head + KINDS[kind] + b"\r\n")
        answer = b""
        with trio.move_on_after(PATIENCE):
            while _HEAD_END not in answer:
                data = await stream.receive_some(65536)
                if not data:
                    break
                answer += data
        if not answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")):
            raise CannotMeasure(f"a {kind} could not be opened: {answer[:500]!r}")
        return stream


async def until_ended(kind: str, stream: trio.SocketStream) -> float:
    """When it was over for its visitor (seconds of the monotonic clock). Raises CannotMeasure if it ended otherwise."""
    with trio.fail_after(PATIENCE):
        try:
            data = await stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
    ended = time.monotonic()
    if kind == "WebSocket" and data[:1] + data[2:4] != b"\x88" + POLICY.to_bytes(2, "big"):
        raise CannotMeasure(f"a WebSocket was not closed with {POLICY}, but by {data!r}")
    if kind != "WebSocket" and data:
        raise CannotMeasure(f"an answer was not cut, but went on: {data!r}")
    await trio.aclose_forcefully(stream)
    return ended


class Agents:
    """Agents as they are, but all in this process, and with one tunnel each."""

    def __init__(self, hub: Hub, tool_port: int, proxy_port: int, token: Callable[[str], str], folder: Path) -> None:
        """folder: where commands run."""
        self._hub = hub
        self._setup = Setup(environ={"PATH": os.defpath}, folder=folder, shell=Path("/bin/sh"))
        self._tool = Tool(tool_port, start_timeout=PATIENCE)
        self._url = f"http://connect.localhost:{proxy_port}"
        self._token = token
        self._over: dict[str, trio.Event] = {}

    async def start(self, nursery: trio.Nursery, session: str) -> None:
        """Returns when its tunnel is up."""
        shells = ShellServer(nursery, self._setup)
        acceptor = Acceptor(Forwarder(self._tool, nursery, shells).on_open, budget=Budget(64 << 20))
        acceptor.alarm = self._hub.alarm
        self._hub.add(acceptor)
        token = self._token(session)
        dialler = TunnelDialler(proxy_url=self._url, token=lambda: token, instance=secrets.token_bytes(16))
        self._over[session] = trio.Event()
        client = TunnelClient(self._hub, acceptor, dialler, Places())
        nursery.start_soon(self._run, session, client.run)
        with trio.fail_after(PATIENCE):
            await client.connected.wait()

    async def _run(self, session: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except TunnelRefused:
            self._over[session].set()

    async def until_ended(self, session: str) -> float:
        """When the agent was told that its session is over (seconds of the monotonic clock)."""
        with trio.fail_after(PATIENCE):
            await self._over[session].wait()
        return time.monotonic()

    async def watch_tool(self) -> None:
        await self._tool.watch()


def quantiles(times: list[float]) -> Mapping[str, float]:
    """p50, p99 and the longest."""
    ordered = sorted(times)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "max": ordered[-1],
    }
