"""The proxy's links: one connection to each server that holds a tunnel.

A link is made when it is first needed and stays.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import attrs
import trio

from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Wire
from connect_trio.routing.names import split_address
from connect_trio.transport.sockets import Connection
from connect_trio.transport.trusted import Connect, transport_of

CONNECT_TIMEOUT = 5.0  # seconds until a server has proven who it is
DISTRUST = 10.0  # seconds for which a server that could not be reached, or was lost, is asked after the others
MAX_DISTRUSTED = 1000
DISTRUSTED = 2

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class _Dialling:
    """A link that is being made; those who need the same one wait for how it ends. Nothing set: it was given up."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    wire: Wire | None = None
    error: OSError | None = None


class LinkPool:
    """Links by the address of their server. connect: makes the connection that a link runs on."""

    def __init__(self, hub: Hub, opener: Opener, instance: bytes, connect: Connect) -> None:
        self._hub = hub
        self._opener = opener
        self._instance = instance
        self._connect = connect
        self._wires: dict[str, Wire] = {}
        self._sessions: dict[Wire, tuple[str, MuxSession]] = {}
        self._dialling: dict[str, _Dialling] = {}
        self._distrusted: OrderedDict[str, float] = OrderedDict()

    async def wire(self, address: str) -> Wire:
        """The link to the server at "host:port", dialled if there is none. Raises OSError, also for no answer."""
        while True:
            wire = self._wires.get(address)
            if wire is not None and wire.closing is None:
                return wire
            dialling = self._dialling.get(address)
            if dialling is None:
                return await self._dial(address)
            await dialling.ended.wait()
            if dialling.wire is not None:
                return dialling.wire
            if dialling.error is not None:
                raise OSError(str(dialling.error)) from dialling.error

    async def _dial(self, address: str) -> Wire:
        """Dial once for all who ask at the same time, so that nobody waits for more than one CONNECT_TIMEOUT."""
        dialling = self._dialling[address] = _Dialling()
        try:
            dialling.wire = self._start(address, await self._reach(address))
        except OSError as exc:
            dialling.error = exc
            self._distrust(address)
            raise
        finally:
            del self._dialling[address]
            dialling.ended.set()
        return dialling.wire

    async def _reach(self, address: str) -> Connection:
        """Raises OSError."""
        try:
            host, port = split_address(address)
        except ValueError as exc:  # the registry is shared: others may write there
            raise OSError(f"{address!r} in the registry is {exc}") from exc
        with trio.move_on_after(CONNECT_TIMEOUT):
            return await self._connect(host, port)
        raise TimeoutError(f"no answer within {CONNECT_TIMEOUT:g} s")

    def _start(self, address: str, connection: Connection) -> Wire:
        hello = Hello(peer=Peer.OPENER, instance=self._instance)
        wire = Wire(self._opener, hello, dialled=True, now=trio.current_time(), label=f"link {address}")
        session = MuxSession(self._hub, wire, transport_of(connection))
        self._wires[address] = wire
        self._sessions[wire] = address, session
        self._distrusted.pop(address, None)
        self._hub.nursery.start_soon(self._run, address, session, name=f"link {address}")
        return wire

    async def _run(self, address: str, session: MuxSession) -> None:
        logger.info("link to server is up", extra={"server": address})
        try:
            reason = await session.run()
            logger.info("link to server ended", extra={"server": address, "reason": reason})
        finally:
            self._distrust(address)
            del self._sessions[session.wire]
            if self._wires.get(address) is session.wire:
                del self._wires[address]

    @property
    def count(self) -> int:
        return len(self._wires)

    def addresses(self) -> set[str]:
        """The servers that a link is up to."""
        return set(self._wires)

    def say_goodbye(self, code: GoawayCode, grace: float) -> None:
        """Tell all servers that this proxy will stop; links stay as they are."""
        for wire in self._wires.values():
            wire.goaway(code, "this proxy will stop", grace=grace)

    def address_of(self, wire: Wire) -> str | None:
        """Where a link leads to, as long as it is not over."""
        known = self._sessions.get(wire)
        return known[0] if known is not None else None

    def trust(self, address: str) -> int:
        """What to try first: 0 where a link is up, 1 where nothing is known, 2 where there was trouble just now."""
        wire = self._wires.get(address)
        if wire is not None and wire.closing is None and not wire.gone:
            return 0
        since = self._distrusted.get(address)
        return 1 if since is None or trio.current_time() - since > DISTRUST else DISTRUSTED

    def _distrust(self, address: str) -> None:
        self._distrusted[address] = trio.current_time()
        self._distrusted.move_to_end(address)
        if len(self._distrusted) > MAX_DISTRUSTED:
            self._distrusted.popitem(last=False)

    def close(self, reason: str) -> None:
        """End all links; what their outboxes hold goes out if the kernel takes it now."""
        for _, session in list(self._sessions.values()):
            session.close(reason, GoawayCode.SHUTDOWN)
