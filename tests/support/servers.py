"""A server for links to reach: a real listener and switch, with agents that are only wires behind it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from connect_trio.dial import DialError, Failure, Target, ToolStream
from connect_trio.link_pool import LinkPool
from connect_trio.links import LinkDialer, open_links
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import StreamBroken
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.switch import Switch
from connect_trio.mux.wire import Wire
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.registry import Route
from connect_trio.transport.sockets import Socket, SocketTransport
from connect_trio.transport.trusted import connect_plain
from tests.support.grants import granted
from tests.support.mux import socket_transports
from tests.support.tables import SESSION, FlakyRegistry
from tests.support.tools import listener_on

TARGET = Target(grant=granted(SESSION))
_epochs = itertools.count(1)


@attrs.define
class ServerSide:
    """A server with at most one agent. links: sessions of the links that reached it. opened: streams at the agent."""

    hub: Hub
    switch: Switch
    listener: trio.SocketListener
    links: list[MuxSession] = attrs.field(factory=list)
    opened: list[CoreStream] = attrs.field(factory=list)
    tunnel: Wire | None = None
    acceptor: Acceptor | None = None
    _agent: MuxSession | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.socket.getsockname()[1]}"

    def route(self, slot: int = 0) -> Route:
        return Route(
            session=SESSION, slot=slot, address=self.address, connector="c0", epoch=next(_epochs), since=1_800_000_000.0
        )

    async def accept_links(self) -> None:
        while True:
            stream = await self.listener.accept()
            hello = Hello(peer=Peer.SWITCH, instance=b"S" * 16)
            wire = Wire(self.switch, hello, dialled=False, now=trio.current_time(), label="link at server")
            self.links.append(MuxSession(self.hub, wire, SocketTransport(Socket.adopt(stream))))
            self.hub.nursery.start_soon(self.links[-1].run)

    def start_agent(self, on_open: Callable[[CoreStream], None] = CoreStream.accept) -> None:
        """An agent starts and dials in, whose streams `on_open` answers."""

        def opened(core: CoreStream) -> None:
            self.opened.append(core)
            on_open(core)

        self.acceptor = Acceptor(opened)
        self.acceptor.alarm = self.hub.alarm
        self.hub.add(self.acceptor)
        self.dial_in(self.acceptor)

    def dial_in(self, acceptor: Acceptor) -> None:
        """This agent (perhaps another server's) opens a tunnel here."""
        near, far = socket_transports()
        now = trio.current_time()
        wire = Wire(acceptor, Hello(peer=Peer.ACCEPTOR, instance=b"A" * 16), dialled=True, now=now, label="agent")
        self.tunnel = Wire(self.switch, Hello(peer=Peer.SWITCH, instance=b"S" * 16), dialled=False, now=now)
        self._agent = MuxSession(self.hub, wire, near)
        self.hub.nursery.start_soon(self._agent.run)
        self.hub.nursery.start_soon(MuxSession(self.hub, self.tunnel, far).run)

    def cut_tunnel(self) -> None:
        """The agent lives, its tunnel does not."""
        assert self._agent is not None
        self._agent.close("the tunnel is cut")
        self.tunnel = None


@asynccontextmanager
async def open_server() -> AsyncIterator[ServerSide]:
    listener = listener_on()
    with listener.socket:
        async with open_hub() as hub:
            side: ServerSide

            def find(session: str, link: Wire) -> Wire | None:
                return side.tunnel if session == SESSION else None

            side = ServerSide(hub, Switch(find), listener)
            hub.nursery.start_soon(side.accept_links)
            yield side


@attrs.define
class Proxy:
    """The proxy's side: what visitors' code has, and what is behind it."""

    dialer: LinkDialer
    pool: LinkPool
    registry: FlakyRegistry

    async def publish(self, *routes: Route) -> None:
        for route in routes:
            assert await self.registry.publish(route, ttl=3600)


@asynccontextmanager
async def open_proxy(*, park: float = 10.0, patience: float = 600.0) -> AsyncIterator[Proxy]:
    registry = FlakyRegistry()
    cached = CachedRegistry(registry)
    links = open_links(cached, instance=b"P" * 16, connect=connect_plain, park=park, patience=patience)
    async with links as (dialer, pool):
        yield Proxy(dialer, pool, registry)


async def failure_of(proxy: Proxy, target: Target = TARGET) -> Failure:
    with pytest.raises(DialError) as caught:
        await proxy.dialer.dial(target)
    assert proxy.dialer.explain(caught.value) is caught.value.failure
    return caught.value.failure


async def broken(stream: ToolStream) -> StreamBroken:
    with pytest.raises(StreamBroken) as caught:
        await stream.receive_some()
    return caught.value


def route_to(address: str) -> Route:
    return Route(session=TARGET.session, slot=0, address=address, connector="c0", epoch=1, since=0.0)
