"""The role `proxy`: what it needs to start, agents through it, and how it takes its leave."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from connect_trio.agent.client import TunnelRefused
from connect_trio.config import load_agent, load_proxy, load_server
from connect_trio.dial import Target
from connect_trio.edge import listener
from connect_trio.links import LinkDialer, open_links
from connect_trio.mux.budget import Budget
from connect_trio.roles import proxy as proxy_module
from connect_trio.roles.agent import run_agent
from connect_trio.roles.life import Life, living
from connect_trio.roles.listeners import CannotListen, listen, port_of
from connect_trio.roles.proxy import ProxyRunning, StorageUnusable, run_proxy
from connect_trio.roles.server import run_server
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.grants import granted
from tests.support.names import Names
from tests.support.platform import SHARED, RunningPlatform, running_platform
from tests.support.stack import agent_environ, own_dialler, server_environ
from tests.support.tools import dead_port, listening_tool


def proxy_environ(root: Path, **changes: str) -> dict[str, str]:
    return {
        "CONNECT_REDIS_ADDRESS": f"127.0.0.1:{dead_port()}",
        "CONNECT_HTTP_HOST": "127.0.0.1",
        "CONNECT_HTTP_PORT": "0",
        "CONNECT_PROXY_URL": "http://connect.localhost:8080",
        "CONNECT_TUNNEL_URL": "127.0.0.1:7070",
        "PLATFORM_URL": f"http://127.0.0.1:{dead_port()}",
        "CONNECT_STORAGE_ROOT": str(root / "storage"),
        "CONNECT_DRAIN_GRACE": "0s",
        **changes,
    }


@attrs.frozen
class Chain:
    """A Platform, a server and a proxy. dialer: a way to the agent beside the proxy."""

    nursery: trio.Nursery
    platform: RunningPlatform
    proxy: ProxyRunning
    proxy_scope: trio.CancelScope
    proxy_ended: trio.Event
    dialer: LinkDialer

    async def start_agent(self, root: Path, token: str, **environ: str) -> None:
        settings = load_agent(agent_environ(self.proxy.http_port, root, token) | environ)
        await self.nursery.start(run_agent, settings)


@asynccontextmanager
async def open_chain(tmp_path: Path, *, servers: str = "127.0.0.1", **changes: str) -> AsyncIterator[Chain]:
    registry, store = MemoryRegistry(), MemoryStore()
    links = open_links(CachedRegistry(registry), instance=b"P" * 16, connect=own_dialler().link)
    async with running_platform() as platform, links as (dialer, _), trio.open_nursery() as nursery:
        server = await nursery.start(partial(run_server, load_server(server_environ()), registry=registry))
        environ = {"PLATFORM_URL": platform.url, "CONNECT_TUNNEL_URL": f"{servers}:{server.tunnel_port}"}
        settings = load_proxy(proxy_environ(tmp_path, **environ, **changes))
        scope, ended = trio.CancelScope(), trio.Event()

        async def proxy(*, task_status: trio.TaskStatus[ProxyRunning]) -> None:
            with scope:
                await run_proxy(settings, registry=registry, store=store, task_status=task_status)
            ended.set()

        running = await nursery.start(proxy)
        yield Chain(nursery, platform, running, scope, ended, dialer)
        nursery.cancel_scope.cancel()


async def test_an_agent_with_a_token_of_platform_is_let_in(tmp_path: Path) -> None:
    async with open_chain(tmp_path) as chain, listening_tool() as port:
        with trio.fail_after(60):
            token = await chain.platform.agent_token(SHARED)
            await chain.start_agent(tmp_path, token, CONNECT_TOOL_PORT=str(port))
            stream = await chain.dialer.dial(Target(grant=granted(SHARED)))
            await stream.send_all(b"through everything")
            assert await stream.receive_some() == b"through everything"


async def test_an_agent_with_a_wrong_token_is_told_why(tmp_path: Path) -> None:
    async with open_chain(tmp_path) as chain:
        settings = load_agent(agent_environ(chain.proxy.http_port, tmp_path, "wrong"))
        with pytest.RaisesGroup(
            pytest.RaisesExc(TunnelRefused, match="^Connect refuses this agent: the agent's token is refused: "),
            flatten_subgroups=True,
        ):
            await run_agent(settings)


async def test_an_agent_of_a_stopped_session_is_told_so(tmp_path: Path) -> None:
    async with open_chain(tmp_path) as chain:
        token = await chain.platform.agent_token(SHARED)
        await chain.platform.set_state(SHARED, "stop")
        settings = load_agent(agent_environ(chain.proxy.http_port, tmp_path, token))
        with pytest.RaisesGroup(
            pytest.RaisesExc(TunnelRefused, match=f"^Connect refuses this session: the session {SHARED} was stopped$"),
            flatten_subgroups=True,
        ):
            await run_agent(settings)


async def test_what_runs_has_time_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "STALLED", 3600.0)
    life = Life()
    with living(life), trio.fail_after(60):
        async with open_chain(tmp_path, CONNECT_DRAIN_GRACE="1h") as chain, listening_tool() as port:
            token = await chain.platform.agent_token(SHARED)
            await chain.start_agent(tmp_path, token, CONNECT_TOOL_PORT=str(port))
            stream = await chain.dialer.dial(Target(grant=granted(SHARED)))
            chain.proxy_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(b"not cut yet")
            assert await stream.receive_some() == b"not cut yet"
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", chain.proxy.http_port)
            life.hurry()  # as after the grace
            await chain.proxy_ended.wait()
            assert stream.detached, "its agent's tunnels passed through this proxy"


async def test_a_second_port_serves_too(tmp_path: Path) -> None:
    settings = load_proxy(proxy_environ(tmp_path, CONNECT_HTTP_EXTRA_PORT="0", CONNECT_HTTP_REUSE_PORT="true"))
    start = partial(run_proxy, settings, registry=MemoryRegistry(), store=MemoryStore())
    async with trio.open_nursery() as nursery:
        running = await nursery.start(start)
        assert running.extra_port not in (None, running.http_port)
        for port in (running.http_port, running.extra_port):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /nothing HTTP/1.1\r\nHost: connect.localhost\r\nConnection: close\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("variable", ["CONNECT_HTTP_PORT", "CONNECT_HTTP_EXTRA_PORT"])
async def test_a_port_in_use_is_named(tmp_path: Path, variable: str) -> None:
    with listen("127.0.0.1", 0, variable="X") as taken:
        settings = load_proxy(proxy_environ(tmp_path, **{variable: str(port_of(taken))}))
        with pytest.RaisesGroup(
            pytest.RaisesExc(CannotListen, match=f"is in use.*{variable}$"), flatten_subgroups=True
        ):
            await run_proxy(settings, registry=MemoryRegistry(), store=MemoryStore())
    gc.collect()


async def test_a_storage_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("a file is in the way")
    settings = load_proxy(proxy_environ(tmp_path))
    with pytest.RaisesGroup(
        pytest.RaisesExc(StorageUnusable, match="^CONNECT_STORAGE_ROOT=.* cannot be used"), flatten_subgroups=True
    ):
        await run_proxy(settings, registry=MemoryRegistry(), store=MemoryStore())


async def test_a_registry_that_is_not_there_is_named(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    settings = load_proxy(proxy_environ(tmp_path))
    with pytest.RaisesGroup(
        pytest.RaisesExc(RegistryUnavailable, match=settings.redis_address), flatten_subgroups=True
    ):
        await run_proxy(settings)
    gc.collect()


@pytest.mark.parametrize("checkpoints", range(0, 45, 3))
async def test_stopping_at_any_moment_leaves_nothing(tmp_path: Path, checkpoints: int) -> None:
    settings = load_proxy(proxy_environ(tmp_path))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_proxy, settings, registry=MemoryRegistry(), store=MemoryStore()))
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    gc.collect()


async def test_the_settings_bound_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, int]] = []

    def open_links_seen(*args: Any, patience: float, budget: Budget, **kwargs: Any) -> Any:
        bounds.append((patience, budget.limit))
        return open_links(*args, patience=patience, budget=budget, **kwargs)

    monkeypatch.setattr(proxy_module, "open_links", open_links_seen)
    environ = proxy_environ(tmp_path, CONNECT_RESUME_TIMEOUT="90s", CONNECT_STREAM_MEMORY="64MiB")
    async with trio.open_nursery() as nursery:
        run = partial(run_proxy, load_proxy(environ), registry=MemoryRegistry(), store=MemoryStore())
        await nursery.start(run)
        nursery.cancel_scope.cancel()
    assert bounds == [(90.0, 64 << 20)]


async def test_a_tunnel_goes_to_a_server_that_only_now_has_a_name(tmp_path: Path) -> None:
    names = Names(known={"connect.localhost": ["127.0.0.1"]})
    trio.socket.set_custom_hostname_resolver(names)
    async with open_chain(tmp_path, servers="servers.example") as chain, listening_tool() as port:
        with trio.fail_after(60):
            token = await chain.platform.agent_token(SHARED)
            chain.nursery.start_soon(partial(chain.start_agent, tmp_path, token, CONNECT_TOOL_PORT=str(port)))
            while "servers.example" not in names.asked:
                await trio.sleep(0.01)
            names.known["servers.example"] = ["fd00::dead", "127.0.0.1"]
            stream = await chain.dialer.dial(Target(grant=granted(SHARED)))
            await stream.aclose()
