"""Connections that begin in the agent: announced on a control stream, and spliced with the stream that a proxy opens.

A control stream has one task, one for each of its listeners, and one for each connection that waits. They end with the
stream; what is spliced by then belongs to the agent and goes on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping

import attrs
import trio

from connect_trio import control
from connect_trio.agent.listening import CannotListen, Listener, ListenPolicy, open_listener
from connect_trio.control import (
    FROM_PROXY,
    Announce,
    ControlError,
    Failed,
    Listen,
    Listening,
    Message,
    Pace,
    Refuse,
    Unlisten,
    Unlistened,
    Withdraw,
)
from connect_trio.control_stream import ControlStream
from connect_trio.mux.codes import RejectCode
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.pump import splice
from connect_trio.transport.sockets import Socket

WAIT = 30.0  # seconds that an announced connection waits for its stream
MAX_WAITING = 1024  # connections that may wait in the whole agent
MAX_CONTROLS = 128
ACCEPTS = 256.0  # connections a second that one control stream announces, after as many at once
ACCEPT_PAUSE = 0.1  # seconds after an accept that failed, for want of files, it may be

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class _Waiting:
    """A connection that was announced; whoever takes it out of the announcer's table decides what becomes of it."""

    owner: ControlSession
    sock: Socket
    settled: trio.Event = attrs.field(factory=trio.Event)


class Announcer:
    """Serves streams of the kinds CONTROL and ANNOUNCED. `nursery` owns control streams and spliced connections."""

    kinds = (control.CONTROL, control.ANNOUNCED)

    def __init__(self, nursery: trio.Nursery, places: ListenPolicy | None = None) -> None:
        self.places = places or ListenPolicy()
        self.waiting: dict[str, _Waiting] = {}
        self.sessions: set[ControlSession] = set()
        self._nursery = nursery

    def on_open(self, core: CoreStream) -> None:
        """A new stream of one of `kinds`: called by the mux, must not wait."""
        try:
            metadata = control.decode_metadata_untrusted(core.ask.metadata)
        except ControlError as exc:
            core.reject(RejectCode.REFUSED, str(exc))
            return
        if core.ask.kind == control.CONTROL:
            self._open_control(core, metadata)
        else:
            self._open_announced(core, metadata)

    def knows_agent(self, path: str) -> bool:
        """Whether a forwarded SSH agent is there."""
        return any(session.has_agent(path) for session in self.sessions)

    def _open_control(self, core: CoreStream, metadata: Mapping[str, str]) -> None:
        version = metadata.get("version", "")
        if version != control.VERSION:
            text = f"this agent speaks version {control.VERSION} of control streams, not {version or 'an untold one'}"
            core.reject(RejectCode.UNSUPPORTED, text)
            return
        if len(self.sessions) >= MAX_CONTROLS:
            core.reject(RejectCode.OVERLOADED, f"there are {MAX_CONTROLS} control streams already")
            return
        core.accept()
        session = ControlSession(self, MuxStream(core))
        self.sessions.add(session)
        self._nursery.start_soon(session.run, name="control stream")

    def _open_announced(self, core: CoreStream, metadata: Mapping[str, str]) -> None:
        waiting = self.waiting.pop(metadata.get("reference", ""), None)
        if waiting is None:
            core.reject(RejectCode.REFUSED, "no connection waits under this reference, or not any more")
            return
        waiting.settled.set()
        core.accept()
        self._nursery.start_soon(splice, waiting.sock, MuxStream(core), self._nursery, name="announced connection")


class ControlSession:
    """One control stream: its listeners, and its connections that wait."""

    def __init__(self, announcer: Announcer, stream: MuxStream) -> None:
        self._announcer = announcer
        self._wire = ControlStream(stream, FROM_PROXY, reset=stream.reset)
        self._listeners: dict[str, Listener] = {}
        self._waiting = 0
        self._full = False
        self._pace = Pace(rate=ACCEPTS, burst=int(ACCEPTS), now=trio.current_time())
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Serve the stream until it ends; then nothing listens or waits for it any more."""
        try:
            async with trio.open_nursery() as self._nursery:
                cause = await self._wire.run(self._handle)
                self._nursery.cancel_scope.cancel()
        finally:
            for listener in self._listeners.values():
                listener.close()
            self._announcer.sessions.discard(self)
        if isinstance(cause, ControlError):
            logger.warning("a proxy breaks the control protocol", extra={"reason": str(cause)})
        else:
            logger.debug("a control stream ended", extra={"reason": str(cause or "closed by the proxy")})

    def has_agent(self, path: str) -> bool:
        return any(one.network == "agent" and one.address == path for one in self._listeners.values())

    def _handle(self, message: Message) -> None:
        if isinstance(message, Listen):
            self._listen(message)
        elif isinstance(message, Unlisten):
            self._unlisten(message.listener)
        elif isinstance(message, Refuse):
            self._refuse(message)

    def _listen(self, asked: Listen) -> None:
        if asked.listener in self._listeners:
            raise ControlError("listen: the listener's name is in use")
        try:
            if len(self._listeners) >= control.MAX_LISTENERS:
                raise CannotListen(f"there are {control.MAX_LISTENERS} listeners already")
            listener = open_listener(asked.network, asked.address, self._announcer.places)
        except CannotListen as exc:
            self._wire.post(Failed(asked.listener, str(exc)))
            return
        self._listeners[asked.listener] = listener
        self._wire.post(Listening(asked.listener, listener.address))
        self._nursery.start_soon(self._accept, asked.listener, listener, name="listener")

    def _unlisten(self, name: str) -> None:
        listener = self._listeners.pop(name, None)
        if listener is None:
            self._wire.post(Failed(name, "there is no such listener"))
            return
        listener.close()
        self._wire.post(Unlistened(name))

    def _refuse(self, refusal: Refuse) -> None:
        waiting = self._announcer.waiting.get(refusal.reference)
        if waiting is None or waiting.owner is not self:  # it has just stopped waiting
            return
        del self._announcer.waiting[refusal.reference]
        waiting.sock.abort()
        waiting.settled.set()
        logger.info("a connection was refused by the proxy", extra={"reason": refusal.reason})

    async def _accept(self, name: str, listener: Listener) -> None:
        while True:
            await self._wire.wait_room()
            await trio.sleep(self._pace.delay(trio.current_time()))
            try:
                sock, told = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as exc:
                logger.warning("a connection cannot be accepted", extra={"reason": str(exc)})
                await trio.sleep(ACCEPT_PAUSE)
                continue
            self._pace.take(trio.current_time())
            self._announce(sock, listener.network, {"listener": name, **told})

    def _announce(self, sock: Socket, kind: str, metadata: Mapping[str, str]) -> None:
        """Tell the proxy of a connection, which is ours from now on."""
        table = self._announcer.waiting
        full = self._waiting >= control.MAX_WAITING or len(table) >= MAX_WAITING
        if full:
            if not self._full:
                logger.warning("too many connections wait for a proxy; more are cut", extra={"waiting": len(table)})
            sock.abort()
        else:
            reference = secrets.token_hex(16)
            waiting = table[reference] = _Waiting(self, sock)
            self._waiting += 1
            self._wire.post(Announce(reference, kind, metadata))
            self._nursery.start_soon(self._watch, reference, waiting, name="waiting connection")
        self._full = full

    async def _watch(self, reference: str, waiting: _Waiting) -> None:
        """Cut a connection that nobody has opened or refused in time, or before the control stream ended."""
        try:
            with trio.move_on_after(WAIT):
                await waiting.settled.wait()
        finally:
            self._waiting -= 1
            if self._announcer.waiting.pop(reference, None) is not None:
                waiting.sock.abort()
                self._wire.post(Withdraw(reference))
