"""The proxy's links: one TCP connection to each server that holds a tunnel, and streams opened over them.

A link is made when it is first needed and stays. Who dials waits until the agent has answered, so that a route that is
no longer true costs another look at the registry and not a visitor's request.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from connect_trio.dial import DialError, Failure, Target, ToolStream
from connect_trio.mux.codes import DetachCode, Peer, RejectCode, ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import FrameType, Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.mux.wire import Wire
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.names import split_address
from connect_trio.routing.registry import RegistryUnavailable, Route
from connect_trio.transport.sockets import Socket, SocketTransport

CONNECT_TIMEOUT = 5.0
PARK = 10.0  # seconds that a dial waits for an agent that is (re)connecting
PARK_POLL = 0.25
MAX_PARKED = 1000

logger = logging.getLogger(__name__)


class LinkStream(MuxStream, ToolStream):
    """A stream of the mux, as visitors' code knows it."""


@attrs.define(eq=False)
class _Dialling:
    """A link that is being made; those who need the same one wait for how it ends. Nothing set: it was given up."""

    ended: trio.Event = attrs.field(factory=trio.Event)
    wire: Wire | None = None
    error: OSError | None = None


class LinkPool:
    """Links by the address of their server."""

    def __init__(self, hub: Hub, opener: Opener, instance: bytes) -> None:
        self._hub = hub
        self._opener = opener
        self._instance = instance
        self._wires: dict[str, Wire] = {}
        self._dialling: dict[str, _Dialling] = {}

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
            dialling.wire = self._start(address, await _connect(address))
        except OSError as exc:
            dialling.error = exc
            raise
        finally:
            del self._dialling[address]
            dialling.ended.set()
        return dialling.wire

    def _start(self, address: str, sock: Socket) -> Wire:
        hello = Hello(peer=Peer.OPENER, instance=self._instance)
        wire = Wire(self._opener, hello, dialled=True, now=trio.current_time(), label=f"link {address}")
        session = MuxSession(self._hub, wire, SocketTransport(sock))
        self._wires[address] = wire
        self._hub.nursery.start_soon(self._run, address, session, name=f"link {address}")
        return wire

    async def _run(self, address: str, session: MuxSession) -> None:
        logger.info("link to server is up", extra={"server": address})
        try:
            reason = await session.run()
            logger.info("link to server ended", extra={"server": address, "reason": reason})
        finally:
            if self._wires.get(address) is session.wire:
                del self._wires[address]

    @property
    def count(self) -> int:
        return len(self._wires)


async def _connect(address: str) -> Socket:
    """Raises OSError."""
    try:
        host, port = split_address(address)
    except ValueError as exc:  # the registry is shared: others may write there
        raise OSError(f"{address!r} in the registry is {exc}") from exc
    with trio.move_on_after(CONNECT_TIMEOUT):
        return Socket.adopt(await trio.open_tcp_stream(host, port))
    raise TimeoutError(f"no answer within {CONNECT_TIMEOUT:g} s")


class LinkDialer:
    """A `dial.Dialer` over links and the registry."""

    def __init__(self, pool: LinkPool, opener: Opener, registry: CachedRegistry, *, park: float = PARK) -> None:
        self._pool = pool
        self._opener = opener
        self._registry = registry
        self._park = park
        self._parked = 0

    async def dial(self, target: Target) -> ToolStream:
        """A stream that the agent has accepted. Raises DialError."""
        failure = Failure(status=503, part="agent", text="the Studio's agent is not connected to Connect")
        stream, failure = await self._attempt(target, failure)
        if stream is not None:
            return stream
        if self._parked >= MAX_PARKED:
            raise DialError(failure)
        self._parked += 1
        give_up = trio.current_time() + self._park
        try:
            # Only the wait for a route is cut short: an agent that was asked may take its time to reach the tool.
            while trio.current_time() < give_up:
                await trio.sleep(PARK_POLL)
                stream, failure = await self._attempt(target, failure)
                if stream is not None:
                    return stream
        finally:
            self._parked -= 1
        raise DialError(failure)

    async def _attempt(self, target: Target, failure: Failure) -> tuple[LinkStream | None, Failure]:
        """Try each known route once. Raises DialError where another try would not help."""
        try:
            routes = await self._registry.find(target.session)
        except RegistryUnavailable as exc:
            return None, Failure(status=503, part="registry", text=f"Connect's registry does not answer: {exc}")
        for route in routes:
            try:
                return await self._open(route, target), failure
            except (OSError, LocalError) as exc:
                logger.warning("server cannot be reached", extra={"server": route.address, "reason": str(exc)})
                failure = Failure(status=502, part="server", text="the server that holds the tunnel cannot be reached")
            except StreamBroken as exc:
                if exc.end.cause is not FrameType.DETACH:
                    raise DialError(self.explain(exc)) from exc
                failure = self.explain(exc)
            self._registry.invalidate(target.session)
        return None, failure

    async def _open(self, route: Route, target: Target) -> LinkStream:
        wire = await self._pool.wire(route.address)
        stream = LinkStream(
            self._opener.open(
                wire,
                token=secrets.token_bytes(16),
                now=trio.current_time(),
                session=target.session,
                kind=target.kind,
                metadata=json.dumps(dict(target.metadata)).encode() if target.metadata else b"",
            )
        )
        try:
            await stream.wait_accepted()
        except BaseException:
            stream.reset("nobody waits for this stream any more")  # a mere end would leave the agent to serve it
            stream.close_now()
            raise
        return stream

    def explain(self, error: BaseException) -> Failure:
        """What to tell a visitor about an error of `dial` or of a stream."""
        if isinstance(error, DialError):
            return error.failure
        if not isinstance(error, StreamBroken):
            return Failure(status=502, part="agent", text="the connection to the Studio was lost")
        end = error.end
        if end.cause is FrameType.REJECT:
            return _rejected(end.code, end.text)
        if end.cause is FrameType.DETACH:
            if end.code == DetachCode.NO_ROUTE:
                return Failure(status=503, part="agent", text="the Studio's agent is not connected to Connect")
            return Failure(status=502, part="agent", text="the connection to the Studio's agent was lost")
        if end.code == ResetCode.DETACHED_TIMEOUT:
            return Failure(status=504, part="agent", text="the Studio's agent does not answer")
        return Failure(status=502, part="tool", text=end.text or "the tool closed the connection")


def _rejected(code: int, text: str) -> Failure:
    if code == RejectCode.UNREACHABLE:
        return Failure(status=502, part="tool", text=text or "the tool does not accept connections")
    if code in (RejectCode.OVERLOADED, RejectCode.BUDGET):
        return Failure(status=503, part="agent", text=text or "the Studio's agent is overloaded")
    return Failure(status=502, part="agent", text=text or "the Studio's agent refused the connection")


@asynccontextmanager
async def open_links(
    registry: CachedRegistry, *, instance: bytes, park: float = PARK
) -> AsyncIterator[tuple[LinkDialer, LinkPool]]:
    """A dialer and its links, which end with the block."""
    async with open_hub() as hub:
        opener = Opener()
        opener.alarm = hub.alarm
        hub.add(opener)
        pool = LinkPool(hub, opener, instance)
        yield LinkDialer(pool, opener, registry, park=park), pool
