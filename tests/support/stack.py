"""Real servers, an edge and agents in one process over loopback; only login and Platform are left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from connect_trio.config import load_agent, load_server
from connect_trio.dial import Target, ToolStream
from connect_trio.edge.gate import Admission, Reply, TunnelGrant, VisitorRequest
from connect_trio.edge.listener import Edge, open_listener
from connect_trio.link_pool import LinkPool
from connect_trio.links import LinkDialer, open_links
from connect_trio.roles.agent import AgentRunning, run_agent
from connect_trio.roles.server import ServerRunning, run_server
from connect_trio.roles.trust import process_keyring
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.names import HostNames
from connect_trio.routing.registry import Registry
from connect_trio.transport.trusted import Dialler
from tests.support.grants import granted, granted_tunnel
from tests.support.tables import SESSION, FlakyRegistry


class TokenGate:
    """Lets every agent in whose token is the id of its session, and perhaps "." and when it was issued; nobody else."""

    async def admit(self, request: VisitorRequest) -> Admission | Reply:
        return Reply(status=403)

    def body_limit(self, request: VisitorRequest) -> int:
        return 0

    async def own_page(self, request: VisitorRequest) -> Reply | None:
        return None

    async def admit_tunnel(self, request: VisitorRequest) -> TunnelGrant | Reply:
        headers = dict(request.headers)
        token = headers.get(b"authorization", b"").removeprefix(b"Bearer ").decode()
        session, _, issued = token.partition(".")
        if len(session) != 8:
            return Reply(status=401, body=b'{"error": "the agent\'s token is refused: not a session"}')
        instance = headers[b"x-connect-instance"].decode()
        return TunnelGrant(grant=granted_tunnel(session), instance=instance, issued=int(issued or 1))


@attrs.define
class Role:
    """A running role. stop: cancel it and wait until it has ended."""

    scope: trio.CancelScope
    ended: trio.Event

    async def stop(self) -> None:
        self.scope.cancel()
        with trio.fail_after(60):
            await self.ended.wait()


@attrs.define
class Server(Role):
    running: ServerRunning


@attrs.define
class Stack:
    """registry: what everybody shares. servers: those that new tunnels go to."""

    nursery: trio.Nursery
    registry: FlakyRegistry
    dialer: LinkDialer
    pool: LinkPool
    port: int
    servers: list[Server] = attrs.field(factory=list)

    async def start_server(self) -> Server:
        scope, ended = trio.CancelScope(), trio.Event()
        running = await self.nursery.start(partial(serve_server, registry=self.registry, scope=scope, ended=ended))
        self.servers.append(Server(scope, ended, running))
        return self.servers[-1]

    async def start_agent(self, root: Path, *, session: str = SESSION, command: Sequence[str] = (), **env: str) -> Role:
        """An agent that serves `root`, or another tool; returns when its tunnel is up."""
        scope, ended = trio.CancelScope(), trio.Event()
        settings = load_agent(agent_environ(self.port, root, session) | env, command=tuple(command))

        async def run(*, task_status: trio.TaskStatus[AgentRunning]) -> None:
            with scope:
                await run_agent(settings, task_status=task_status)
            ended.set()

        await self.nursery.start(run)
        return Role(scope, ended)

    async def owner(self, *, of: int = 2, but: str = "") -> str:
        """The agent that has all of the session's slots, once one has; not `but`."""
        with trio.fail_after(60):
            while True:
                routes = await self.registry.find(SESSION)
                instances = {route.instance for route in routes}
                if len(routes) == of and len(instances) == 1 and but not in instances:
                    return instances.pop()
                await trio.sleep(0.01)

    async def dial(self, session: str = SESSION) -> ToolStream:
        with trio.fail_after(60):
            return await self.dialer.dial(Target(grant=granted(session)))

    async def ask(self, session: str = SESSION, target: str = "/") -> bytes:
        """What the tool answers to one HTTP request."""
        stream = await self.dial(session)
        with trio.fail_after(60):
            await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join([part async for part in stream])
        await stream.aclose()
        return answer


async def serve_server(
    *,
    registry: Registry,
    scope: trio.CancelScope,
    ended: trio.Event,
    task_status: trio.TaskStatus[ServerRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A server on free ports of loopback until `scope` is cancelled."""
    with scope:
        await run_server(load_server(server_environ()), registry=registry, task_status=task_status)
    ended.set()


def server_environ() -> dict[str, str]:
    """A server that stops at once; a drain has tests of its own."""
    ports = {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0"}
    return {"CONNECT_BIND_HOST": "127.0.0.1", "CONNECT_DRAIN_GRACE": "0s", **ports}


def own_dialler() -> Dialler:
    """How a proxy of this process connects to servers of this process."""
    return Dialler(process_keyring(), instance=b"P" * 16)


def agent_environ(port: int, root: Path, session: str = SESSION) -> dict[str, str]:
    return {
        "CONNECT_PROXY_URL": f"http://connect.localhost:{port}",
        "CONNECT_AGENT_TOKEN": session,
        "CONNECT_FILES_ROOT": str(root),
    }


@asynccontextmanager
async def open_stack(servers: int = 1, *, proxy: bytes = b"P" * 16) -> AsyncIterator[Stack]:
    """proxy: the id of who carries tunnels; links are those of the proxy PPP..."""
    registry = FlakyRegistry()
    listener = open_listener("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    dialler = own_dialler()
    links = open_links(CachedRegistry(registry), instance=b"P" * 16, connect=dialler.link)
    with listener:
        async with links as (dialer, pool), trio.open_nursery() as nursery:
            stack = Stack(nursery, registry, dialer, pool, port)

            async def pick_server() -> list[tuple[str, int]]:
                await trio.lowlevel.checkpoint()
                addresses = (server.running for server in stack.servers if not server.ended.is_set())
                return [("127.0.0.1", running.tunnel_port) for running in addresses]

            names = HostNames(f"http://connect.localhost:{port}")
            edge = Edge(
                gate=TokenGate(),
                dialer=dialer,
                names=names,
                pick_server=pick_server,
                connect=dialler.tunnel,
                instance=proxy,
            )
            for _ in range(servers):
                await stack.start_server()
            await nursery.start(edge.serve, [listener])
            yield stack
            nursery.cancel_scope.cancel()
