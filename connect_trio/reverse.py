"""Connections that begin in the agent, as their owner at the proxy sees them (`ssh -R`, a forwarded SSH agent).

    async with open_reverse(dialer, grant, serve) as reverse:
        listener = await reverse.listen("tcp", "127.0.0.1:0")

Each connection to the listener reaches `serve` as a stream. All of them end with the block. When the control stream is
lost the listeners are gone, but connections go on; see docs/control.md.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from connect_trio import control
from connect_trio.control import (
    FROM_AGENT,
    Announce,
    ControlError,
    Failed,
    Listen,
    Listening,
    Message,
    Refuse,
    Unlisten,
    Unlistened,
    Withdraw,
)
from connect_trio.control_stream import ControlStream
from connect_trio.dial import Dialer, DialError, Failure, Target, ToolStream
from connect_trio.identity.grants import Grant

ANSWER = 30.0  # seconds that the agent has to answer a request
OPENING = 30.0  # seconds until a stream for an announced connection must be there: the agent waits no longer
MAX_CONNECTIONS = 64

_ANSWERS: dict[type[Message], type[Message]] = {Listen: Listening, Unlisten: Unlistened}

logger = logging.getLogger(__name__)


class ListenError(Exception):
    """The agent does not listen there; the text says why."""


@attrs.frozen(kw_only=True)
class Connection:
    """A connection that began in the agent, and the stream that carries it.

    kind: "tcp" or "unix". metadata: what the agent tells, such as the "peer". listener: whose it is; None where the
    agent names none that is still open.
    """

    stream: ToolStream
    kind: str
    metadata: Mapping[str, str]
    listener: Listener | None


Handler = Callable[[Connection], Awaitable[None]]


@attrs.define(eq=False)
class Listener:
    """Something that listens in the agent. address: where exactly."""

    network: str
    address: str
    _name: str
    _owner: Reverse

    async def aclose(self) -> None:
        """Listen there no more; returns when the agent has said so, or does not answer. May be called twice."""
        await self._owner.unlisten(self._name)


@attrs.define(eq=False)
class _Answer:
    """What the agent says to a request, once `came` is set."""

    request: Listen | Unlisten
    came: trio.Event = attrs.field(factory=trio.Event)
    message: Message | None = None


class Reverse:
    """The owner's end of one control stream; made by `open_reverse`."""

    def __init__(
        self,
        dialer: Dialer,
        grant: Grant,
        stream: ToolStream,
        on_connection: Handler,
        nursery: trio.Nursery,
        max_connections: int,
    ) -> None:
        self._dialer = dialer
        self._grant = grant
        self._session = grant.session
        self._wire = ControlStream(stream, FROM_AGENT, reset=stream.reset)
        self._on_connection = on_connection
        self._nursery = nursery
        self._max = max_connections
        self._names = itertools.count(1)
        self._listeners: dict[str, Listener] = {}
        self._asked: dict[str, _Answer] = {}
        self._connections: set[str] = set()
        self._opening: dict[str, trio.CancelScope] = {}
        self._ended = trio.Event()
        self.failure: Failure | None = None

    @property
    def connections(self) -> int:
        """How many connections are open, or are being opened."""
        return len(self._connections)

    async def wait_ended(self) -> Failure:
        """Wait until the control stream is lost; why it was."""
        await self._ended.wait()
        assert self.failure is not None
        return self.failure

    async def listen(self, network: str, address: str) -> Listener:
        """Listen in the agent. network: "tcp" or "unix"; address: as docs/control.md writes it.

        Raises ListenError where the agent does not, DialError when the control stream is lost.
        """
        name = str(next(self._names))
        message: Message | None = None
        try:
            message = await self._ask(Listen(name, network, address))
        finally:
            if message is None:  # it may come to listen yet, for nobody
                self._listeners.pop(name, None)
                self._wire.post(Unlisten(name))
        if isinstance(message, Listening):
            return self._listeners[name]
        raise ListenError(message.reason if isinstance(message, Failed) else "the agent does not answer")

    async def unlisten(self, name: str) -> None:
        """Close a listener by its name; `Listener.aclose` is the way to call this."""
        if self._listeners.pop(name, None) is None or self.failure is not None:
            return
        await self._ask(Unlisten(name))

    async def _ask(self, request: Listen | Unlisten) -> Message | None:
        """The agent's answer, None if there is none in time. Raises DialError, ListenError."""
        if self.failure is not None:
            raise DialError(self.failure)
        answer = self._asked[request.listener] = _Answer(request)
        try:
            try:
                self._wire.post(request)
            except ValueError as exc:
                raise ListenError(f"this cannot be asked for: {exc}") from exc
            with trio.move_on_after(ANSWER):
                await answer.came.wait()
        finally:
            del self._asked[request.listener]
        if answer.message is None and self.failure is not None:
            raise DialError(self.failure)
        return answer.message

    # what the agent says

    async def run(self) -> None:
        """Serve the control stream until it is lost."""
        cause = await self._wire.run(self._handle)
        if cause is None:
            self.failure = Failure(status=502, part="agent", text="the Studio's agent has ended the control stream")
        elif isinstance(cause, ControlError):
            self.failure = Failure(status=502, part="agent", text=f"the agent breaks the control protocol: {cause}")
        else:
            self.failure = self._dialer.explain(cause)
        logger.warning("a control stream is lost", extra={"session": self._session, "reason": self.failure.text})
        for scope in self._opening.values():  # the agent has cut their connections
            scope.cancel()
        for answer in self._asked.values():
            answer.came.set()
        self._ended.set()

    def _handle(self, message: Message) -> None:
        if isinstance(message, Announce):
            self._announced(message)
        elif isinstance(message, Withdraw):
            if scope := self._opening.get(message.reference):
                scope.cancel()
        elif isinstance(message, Listening | Failed | Unlistened):
            self._answered(message)

    def _answered(self, message: Listening | Failed | Unlistened) -> None:
        name = message.listener
        answer = self._asked.get(name)
        if answer is None or answer.message is not None:  # nobody waits for it any more
            return
        if not isinstance(message, Failed) and not isinstance(message, _ANSWERS[type(answer.request)]):
            raise ControlError(f"{type(message).__name__.lower()}: it answers no such question")
        if isinstance(message, Listening) and isinstance(answer.request, Listen):
            # Now, and not when the caller wakes: its first connection may be announced in the very next message.
            self._listeners[name] = Listener(answer.request.network, message.address, name, self)
        answer.message = message
        answer.came.set()

    def _announced(self, announced: Announce) -> None:
        if announced.reference in self._connections:
            raise ControlError("announce: the reference is in use")
        if len(self._connections) >= self._max:
            self._refuse(announced, f"there are {self._max} connections already")
            return
        self._connections.add(announced.reference)
        self._opening[announced.reference] = trio.CancelScope()
        self._nursery.start_soon(self._serve, announced, name="reverse connection")

    def _refuse(self, announced: Announce, reason: str) -> None:
        logger.info("a connection is refused", extra={"session": self._session, "reason": reason})
        self._wire.post(Refuse(announced.reference, reason))

    # one connection

    async def _serve(self, announced: Announce) -> None:
        try:
            stream = None
            with self._opening[announced.reference]:
                stream = await self._open(announced)
            del self._opening[announced.reference]
            if stream is not None:
                listener = self._listeners.get(announced.metadata.get("listener", ""))
                await self._hand_over(
                    Connection(stream=stream, kind=announced.kind, metadata=announced.metadata, listener=listener)
                )
        finally:
            self._opening.pop(announced.reference, None)
            self._connections.discard(announced.reference)

    async def _open(self, announced: Announce) -> ToolStream | None:
        """The stream of a connection; None if there is none, which the agent knows then."""
        target = Target(grant=self._grant, kind=control.ANNOUNCED, metadata={"reference": announced.reference})
        try:
            with trio.fail_after(OPENING):
                return await self._dialer.dial(target)
        except DialError as exc:
            self._refuse(announced, exc.failure.text)
        except trio.TooSlowError:
            self._refuse(announced, f"no stream could be had within {OPENING:g} s")
        return None

    async def _hand_over(self, connection: Connection) -> None:
        """Let the handler have it. Whatever it raises ends this connection only."""
        served = False
        try:
            try:
                await self._on_connection(connection)
                served = True
            except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as group:
                reason = "; ".join(str(exc) or type(exc).__name__ for exc in group.exceptions)
                logger.info("a connection was lost", extra={"session": self._session, "reason": reason})
            except* Exception:
                logger.exception("a connection could not be served", extra={"session": self._session})
        finally:
            if not served:
                connection.stream.reset("the connection's other end is gone")
            await trio.aclose_forcefully(connection.stream)


@asynccontextmanager
async def open_reverse(
    dialer: Dialer, grant: Grant, on_connection: Handler, *, max_connections: int = MAX_CONNECTIONS
) -> AsyncIterator[Reverse]:
    """A control stream to the agent of a session, for the length of the block. Raises DialError if there can be none.

    grant: of whose connections these are. on_connection: called for each connection in a task of its own; beyond
    `max_connections` at once they are refused. The stream is closed when it returns; what it raises is logged, and
    resets the stream.
    """
    metadata = {"version": control.VERSION}
    stream = await dialer.dial(Target(grant=grant, kind=control.CONTROL, metadata=metadata))
    async with trio.open_nursery() as nursery:
        reverse = Reverse(dialer, grant, stream, on_connection, nursery, max_connections)
        nursery.start_soon(reverse.run, name="control stream")
        try:
            yield reverse
        finally:
            nursery.cancel_scope.cancel()
