"""Control streams under test: either end real, the other one played by the test word by word."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import trio
import trio.testing

from connect_trio import control
from connect_trio.agent.announcing import Announcer
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.listening import ListenPolicy
from connect_trio.agent.tool import Tool, free_port
from connect_trio.control import FROM_AGENT, FROM_PROXY, Announce, Decoder, Listen, Listening, Message
from connect_trio.dial import DialError, Failure, Target, ToolStream
from connect_trio.mux.stream import MuxStream, StreamBroken
from connect_trio.reverse import Connection, Listener, Reverse, open_reverse
from tests.support.grants import granted
from tests.support.mux import Chain, open_chain
from tests.support.tables import SESSION

REFERENCE = "0123456789abcdef" * 2
_tokens = itertools.count(1)

M = TypeVar("M", bound=Message)


class ChainStream(MuxStream, ToolStream):
    """A stream of a chain, as a dialer gives it."""


def open_stream(chain: Chain, kind: str, metadata: bytes = b"") -> ChainStream:
    token = next(_tokens).to_bytes(16, "big")
    now = trio.current_time()
    return ChainStream(
        chain.opener.open(chain.wire, token=token, now=now, session=SESSION, kind=kind, metadata=metadata)
    )


@attrs.define
class ChainDialer:
    """A `dial.Dialer` over the one wire of a chain."""

    chain: Chain
    dialled: list[Target] = attrs.field(factory=list)

    async def dial(self, target: Target) -> ToolStream:
        self.dialled.append(target)
        stream = open_stream(self.chain, target.kind, encoded(target.metadata))
        try:
            await stream.wait_accepted()
        except BaseException as exc:
            stream.reset("nobody waits for this stream any more")
            stream.close_now()
            if isinstance(exc, StreamBroken):
                raise DialError(self.explain(exc)) from exc
            raise
        return stream

    def explain(self, error: BaseException) -> Failure:
        return Failure(status=502, part="agent", text=error.end.text if isinstance(error, StreamBroken) else str(error))


def encoded(metadata: Mapping[str, str]) -> bytes:
    return json.dumps(dict(metadata)).encode() if metadata else b""


class Talker:
    """One end of a control stream, played by a test."""

    def __init__(self, stream: MuxStream, hears: tuple[type[Message], ...]) -> None:
        self.stream = stream
        self._decoder = Decoder(hears)

    async def say(self, *messages: Message) -> None:
        await self.stream.send_all(b"".join(map(control.encode, messages)))

    async def hear(self, kind: type[M]) -> M:
        """The next message, which must be of this type."""
        with trio.fail_after(60):
            while (message := self._decoder.maybe_message()) is None:
                data = await self.stream.receive_some()
                assert data, "the control stream has ended"
                self._decoder.receive_data(data)
        assert isinstance(message, kind), f"{message} where {kind.__name__} should be"
        return message

    async def hear_end(self) -> str:
        """How the other end ended the stream: the text of its reset, "" for an orderly end."""
        with trio.fail_after(60):
            try:
                while await self.stream.receive_some():
                    continue
            except StreamBroken as exc:
                return exc.end.text
        return ""


@attrs.define
class AgentBench:
    """A real agent's forwarder behind a switch; the test is the proxy."""

    chain: Chain
    announcer: Announcer
    scope: trio.CancelScope
    clients: list[trio.SocketStream] = attrs.field(factory=list)

    def control(self, metadata: Mapping[str, str] | None = None) -> Talker:
        chosen = {"version": control.VERSION} if metadata is None else metadata
        return Talker(open_stream(self.chain, control.CONTROL, encoded(chosen)), FROM_AGENT)

    def announced(self, reference: str) -> ChainStream:
        return open_stream(self.chain, control.ANNOUNCED, encoded({"reference": reference}))

    async def listen(
        self, owner: Talker, network: str = "tcp", address: str = "127.0.0.1:0", *, name: str = "1"
    ) -> str:
        """A listener; its address."""
        await owner.say(Listen(name, network, address))
        return (await owner.hear(Listening)).address

    async def connect(self, address: str) -> trio.SocketStream:
        """A client that is closed with the bench."""
        self.clients.append(await connect(address))
        return self.clients[-1]

    async def announce_one(self, owner: Talker, address: str) -> tuple[trio.SocketStream, Announce]:
        """A client that connected, and how it was announced."""
        client = await self.connect(address)
        return client, await owner.hear(Announce)

    async def until_nothing_waits(self) -> None:
        with trio.fail_after(60):
            while self.announcer.waiting or self.announcer.sessions:
                await trio.sleep(0.01)


@asynccontextmanager
async def agent_bench(directory: Path | None = None) -> AsyncIterator[AgentBench]:
    async with open_chain(switched=True) as chain, trio.open_nursery() as nursery:
        announcer = Announcer(nursery, ListenPolicy(directory=directory))
        forwarder = Forwarder(Tool(free_port(), start_timeout=60), nursery, announcer)

        nursery.start_soon(chain.hand_over, forwarder.on_open)
        bench = AgentBench(chain, announcer, nursery.cancel_scope)
        try:
            yield bench
        finally:
            nursery.cancel_scope.cancel()
            for client in bench.clients:
                client.socket.close()


async def connect(address: str) -> trio.SocketStream:
    """A client of a listener, by the address that the agent told."""
    if address.startswith("/"):
        return await trio.open_unix_socket(address)
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


@attrs.define
class ProxyBench:
    """A dialer to an agent that the test plays."""

    chain: Chain
    dialer: ChainDialer

    async def accept(self) -> MuxStream:
        with trio.fail_after(60):
            core = await self.chain.accepted.receive()
        core.accept()
        return MuxStream(core)

    async def accept_control(self) -> Talker:
        return Talker(await self.accept(), FROM_PROXY)


@asynccontextmanager
async def proxy_bench() -> AsyncIterator[ProxyBench]:
    async with open_chain() as chain:
        yield ProxyBench(chain, ChainDialer(chain))


def announce(reference: str = REFERENCE, **metadata: str) -> Announce:
    return Announce(reference, "tcp", metadata)


def fresh() -> str:
    """A reference that no test has used yet."""
    return f"{next(_tokens):032x}"


@attrs.define
class Owner:
    """An owner whose agent the test plays. connections: those that its handler was given; it keeps them all."""

    bench: ProxyBench
    agent: Talker
    reverse: Reverse
    connections: list[Connection]

    async def listen(self) -> tuple[Listener, str]:
        """A listener that the agent grants, and its name."""
        granted: list[Listener] = []

        async def ask() -> None:
            granted.append(await self.reverse.listen("tcp", "127.0.0.1:0"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            asked = await self.agent.hear(Listen)
            await self.agent.say(Listening(asked.listener, "127.0.0.1:40000"))
        return granted[0], asked.listener

    async def connect(self, **metadata: str) -> tuple[MuxStream, Connection]:
        """A connection: the agent's end of its stream, and what the handler got."""
        await self.agent.say(announce(fresh(), **metadata))
        theirs = await self.bench.accept()
        await trio.testing.wait_all_tasks_blocked()
        return theirs, self.connections[-1]


@asynccontextmanager
async def owner_of(bench: ProxyBench, *, max_connections: int = 64, served: bool = True) -> AsyncIterator[Owner]:
    connections: list[Connection] = []

    async def keep(connection: Connection) -> None:
        connections.append(connection)
        await trio.sleep_forever()

    async def fail(connection: Connection) -> None:
        raise RuntimeError("the handler is broken")

    agents: list[Talker] = []

    async def accept() -> None:
        agents.append(await bench.accept_control())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        handler = keep if served else fail
        async with open_reverse(bench.dialer, granted(SESSION), handler, max_connections=max_connections) as reverse:
            with trio.fail_after(600):
                yield Owner(bench, agents[0], reverse, connections)
