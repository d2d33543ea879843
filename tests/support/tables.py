"""A server's table of tunnels with agents and proxies that are only wires."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from connect_trio.routing.memory import MemoryRegistry
from connect_trio.routing.registry import RegistryUnavailable, Route
from connect_trio.sessions import TunnelTable
from connect_trio.transport.sockets import Socket, SocketTransport
from tests.support.dialled import INSTANCE, DialledTunnel
from tests.support.mux import socket_transports

SESSION, OTHER = "23ce7967", "5f0c1d2e"
CONNECTOR, ADDRESS = "c0" * 16, "server:7777"
_numbers = itertools.count(1)


class FlakyRegistry(MemoryRegistry):
    """A registry that may be away, or only for some methods. calls: (time, method) of each call, also of those that
    failed. mute: whether it tells of no changes."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.away_for: set[str] = set()
        self.delay = 0.0
        self.mute = False
        self.calls: list[tuple[float, str]] = []

    async def _call(self, name: str) -> None:
        self.calls.append((trio.current_time(), name))
        await trio.sleep(self.delay)
        if self.away or name in self.away_for:
            raise RegistryUnavailable("the registry is away")

    async def publish(self, route: Route, *, ttl: float) -> bool:
        await self._call("publish")
        return await super().publish(route, ttl=ttl)

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        await self._call("renew")
        return await super().renew(routes, ttl=ttl)

    async def withdraw(self, route: Route) -> bool:
        await self._call("withdraw")
        return await super().withdraw(route)

    async def find(self, session: str) -> Sequence[Route]:
        await self._call("find")
        return await super().find(session)

    def _tell(self, session: str) -> None:
        if not self.mute:
            super()._tell(session)

    def count(self, name: str) -> int:
        return sum(1 for _, called in self.calls if called == name)


@attrs.define(eq=False)
class AgentSide:
    """An agent's end of a tunnel; it accepts every stream. ended: why its wire ended."""

    session: MuxSession
    wire: Wire
    server_wire: Wire
    accepted: list[CoreStream] = attrs.field(factory=list)
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.define
class Bench:
    hub: Hub
    table: TunnelTable
    registry: FlakyRegistry
    opener: Opener
    played: list[trio.SocketStream] = attrs.field(factory=list)

    def tunnel(
        self,
        session: str = SESSION,
        *,
        slot: int = 0,
        generation: int = 1,
        instance: bytes = b"A" * 16,
        peer: Peer = Peer.ACCEPTOR,
        authorised: bytes | None = None,
        issued: int = 0,
        via: str | None = None,
    ) -> AgentSide:
        """An agent dials in. authorised: the instance that its token was shown for, if it is another one. issued: when
        its token was. via: the proxy that it comes through."""
        near, far = socket_transports()
        accepted: list[CoreStream] = []

        def on_open(core: CoreStream) -> None:
            accepted.append(core)
            core.accept()

        acceptor = Acceptor(on_open)
        acceptor.alarm = self.hub.alarm
        self.hub.add(acceptor)
        now = trio.current_time()
        hello = Hello(peer=peer, instance=instance, slot=slot, generation=generation)
        wire = Wire(acceptor, hello, dialled=True, now=now, label="agent")
        server_wire = Wire(self.table.switch, server_hello(), dialled=False, now=now, label="tunnel")
        mux = MuxSession(self.hub, server_wire, far)
        side = AgentSide(MuxSession(self.hub, wire, near), wire, server_wire, accepted)
        self.table.expect(session, mux, server_wire, (authorised or instance).hex(), issued=issued, via=via)

        async def serve() -> None:
            try:
                await mux.run()
            finally:
                self.table.gone(server_wire)

        async def dial() -> None:
            await side.session.run()
            side.ended.set()

        self.hub.nursery.start_soon(serve)
        self.hub.nursery.start_soon(dial)
        return side

    def raw_tunnel(self, session: str = SESSION, *, instance: str = INSTANCE) -> DialledTunnel:
        """An agent dials in that the test plays, from its HELLO on."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        wire = Wire(self.table.switch, server_hello(), dialled=False, now=trio.current_time(), label="raw tunnel")
        mux = MuxSession(self.hub, wire, SocketTransport(Socket(ours)))
        self.table.expect(session, mux, wire, instance, issued=0)

        async def serve() -> None:
            try:
                await mux.run()
            finally:
                self.table.gone(wire)

        self.hub.nursery.start_soon(serve)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        self.played.append(stream)
        return DialledTunnel(stream)

    def link(self) -> Wire:
        """A proxy dials in."""
        near, far = socket_transports()
        now = trio.current_time()
        wire = Wire(self.opener, Hello(peer=Peer.OPENER, instance=b"P" * 16), dialled=True, now=now, label="link")
        server_wire = Wire(self.table.switch, server_hello(), dialled=False, now=now, label="server's link")
        self.hub.nursery.start_soon(MuxSession(self.hub, server_wire, far).run)
        self.hub.nursery.start_soon(MuxSession(self.hub, wire, near).run)
        return wire

    def open(self, link: Wire, session: str = SESSION) -> MuxStream:
        token = next(_numbers).to_bytes(16, "big")
        return MuxStream(self.opener.open(link, token=token, now=trio.current_time(), session=session, kind="http"))

    async def routes(self, session: str = SESSION) -> list[Route]:
        """What the registry holds, asked behind its back; without the agents' instances (`owners`)."""
        found = await MemoryRegistry.find(self.registry, session)
        return [attrs.evolve(route, instance="") for route in found]

    async def owners(self, session: str = SESSION) -> dict[int, str]:
        """Whose route each slot has, by instance."""
        return {route.slot: route.instance for route in await MemoryRegistry.find(self.registry, session)}


def server_hello() -> Hello:
    return Hello(peer=Peer.SWITCH, instance=b"S" * 16)


@asynccontextmanager
async def open_table(
    *, keep_routes: bool = True, registry: FlakyRegistry | None = None, connector: str = CONNECTOR
) -> AsyncIterator[Bench]:
    """registry: shared with another server, which has another connector."""
    registry = registry or FlakyRegistry()
    table = TunnelTable(registry, address=ADDRESS, connector=connector, clock=lambda: 1_800_000_000.0)
    async with open_hub() as hub:
        opener = Opener()
        opener.alarm = hub.alarm
        hub.add(opener)
        if keep_routes:
            hub.nursery.start_soon(table.keep_routes)
            hub.nursery.start_soon(table.sweep_forever)
        bench = Bench(hub, table, registry, opener)
        yield bench
        for stream in bench.played:
            stream.socket.close()
