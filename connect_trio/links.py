"""Streams to agents for visitors' code: over links, found by way of the registry.

Who dials waits until the agent has answered, so that a route that is no longer true costs another look at the registry
and not a visitor's request. From then on a stream that loses its way waits for another one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from connect_trio.dial import DialError, Failure, Target, ToolStream
from connect_trio.link_pool import LinkPool
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import DetachCode, RejectCode, ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import FrameType
from connect_trio.mux.hub import open_hub
from connect_trio.mux.opener import PATIENCE, Opener
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.routing.cache import CachedRegistry
from connect_trio.transport.trusted import Connect
from connect_trio.ways import Ways

PARK = 10.0  # seconds that a dial waits for an agent that is (re)connecting
MAX_PARKED = 1000


class LinkStream(MuxStream, ToolStream):
    """A stream of the mux, as visitors' code knows it."""


class LinkDialer:
    """A `dial.Dialer` over links and the registry. opener: of all its streams. parked: dials that wait for an agent."""

    def __init__(self, ways: Ways, opener: Opener, *, park: float = PARK) -> None:
        self._ways = ways
        self.opener = opener
        self._park = park
        self.parked = 0

    async def dial(self, target: Target) -> ToolStream:
        """A stream that the agent has accepted. Raises DialError."""
        metadata = json.dumps(dict(target.metadata)).encode() if target.metadata else b""
        try:
            core = self.opener.prepare(
                token=secrets.token_bytes(16), session=target.session, kind=target.kind, metadata=metadata
            )
        except LocalError as exc:
            raise DialError(
                Failure(status=503, part="proxy", text=f"Connect takes no more connections: {exc}")
            ) from exc
        stream = LinkStream(core)
        self._ways.seek(stream.core)
        try:
            await self._wait(stream, target)
        except BaseException:
            stream.reset("nobody waits for this stream any more")  # a mere end would leave the agent to serve it
            stream.close_now()
            raise
        return stream

    async def _wait(self, stream: LinkStream, target: Target) -> None:
        """Only the wait for a way is cut short: an agent that was asked may take its time to reach the tool."""
        core = stream.core
        give_up = trio.current_time() + self._park
        parked = False
        try:
            while not core.accepted and core.end is None:
                if core.trial is not None or not self._ways.in_vain(target.session):
                    await stream.wait_change()
                    continue
                if trio.current_time() >= give_up or (not parked and self.parked >= MAX_PARKED):
                    raise DialError(self._why(target, core.lost))
                if not parked:
                    self.parked, parked = self.parked + 1, True
                with trio.move_on_at(give_up):
                    await stream.wait_change()
        finally:
            self.parked -= parked
        try:
            stream.check_alive()
        except StreamBroken as exc:
            raise DialError(self.explain(exc)) from exc

    def _why(self, target: Target, lost: int) -> Failure:
        if lost in (0, DetachCode.NO_ROUTE, DetachCode.DRAINING):
            return self._ways.failure(target.session)
        return Failure(status=502, part="agent", text="the connection to the Studio's agent was lost")

    def explain(self, error: BaseException) -> Failure:
        """What to tell a visitor about an error of `dial` or of a stream."""
        if isinstance(error, DialError):
            return error.failure
        if not isinstance(error, StreamBroken):
            return Failure(status=502, part="agent", text="the connection to the Studio was lost")
        end = error.end
        if end.cause is FrameType.REJECT:
            return _rejected(end.code, end.text)
        if end.code == ResetCode.DETACHED_TIMEOUT:
            return Failure(status=504, part="agent", text="the Studio's agent does not answer")
        if end.code == ResetCode.SHUTDOWN:
            return Failure(status=503, part="agent", text=end.text or "the Studio's agent was stopped")
        if end.code == ResetCode.UNKNOWN:
            return Failure(status=502, part="agent", text="the Studio's agent was started anew")
        if end.code == ResetCode.BUDGET:
            return Failure(status=503, part="proxy", text="Connect's memory was needed for others meanwhile")
        return Failure(status=502, part="tool", text=end.text or "the tool closed the connection")


def _rejected(code: int, text: str) -> Failure:
    if code == RejectCode.UNREACHABLE:
        return Failure(status=502, part="tool", text=text or "the tool does not accept connections")
    if code in (RejectCode.OVERLOADED, RejectCode.BUDGET):
        return Failure(status=503, part="agent", text=text or "the Studio's agent is overloaded")
    return Failure(status=502, part="agent", text=text or "the Studio's agent refused the connection")


@asynccontextmanager
async def open_links(
    registry: CachedRegistry,
    *,
    instance: bytes,
    connect: Connect,
    park: float = PARK,
    patience: float = PATIENCE,
    budget: Budget | None = None,
) -> AsyncIterator[tuple[LinkDialer, LinkPool]]:
    """A dialer and its links, which end with the block; as long the registry's changes are followed.

    instance: 16 bytes that name this process. connect: makes connections to servers.
    patience: seconds that a stream may be without a way. budget: memory of all streams together.
    """
    async with open_hub() as hub:
        opener = Opener(patience=patience, budget=budget)
        opener.alarm = hub.alarm
        hub.add(opener)
        pool = LinkPool(hub, opener, instance, connect)
        ways = Ways(pool, opener, registry, hub.nursery)
        hub.nursery.start_soon(registry.changes, ways.changed, name="changes of routes")
        try:
            yield LinkDialer(ways, opener, park=park), pool
        finally:
            for core in list(opener.streams):  # nobody comes back for them: agents need not wait
                core.reset(ResetCode.SHUTDOWN, "the proxy stops")
            pool.close("the proxy stops")
