"""An edge on loopback between raw byte clients and raw byte tools, so that tests read as transcripts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import attrs
import trio

from connect_trio.dial import DialError, Failure, Target, ToolStream
from connect_trio.edge.context import Limits
from connect_trio.edge.gate import Admission, Gate, Reply, TunnelGrant, VisitorRequest
from connect_trio.edge.listener import Edge, open_listener
from connect_trio.mux.buffers import Buffer, Pool
from connect_trio.routing.names import HostNames
from connect_trio.transport.trusted import connect_plain
from tests.support.grants import granted, granted_tunnel

OWN = "connect.localhost:8080"
STUDIO = "a23ce7967.connect.localhost:8080"
SESSION = "23ce7967"
POLICY = b"Content-Security-Policy: frame-ancestors 'self'\r\n"
"""What is added to a tool's answers."""
PROXY = b"P" * 16  # the edge's process
PATIENCE = 60  # seconds until a test that waits in vain fails


class Peer:
    """A raw connection, seen from a client or a tool, with a buffer to read from in pieces."""

    def __init__(self, stream: trio.SocketStream, patience: float = PATIENCE) -> None:
        self.stream = stream
        self._patience = patience
        self._received = b""

    @property
    def unread(self) -> bytes:
        """What has come and was not asked for."""
        return self._received

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_bytewise(self, data: bytes) -> None:
        """One byte per segment, each received before the next one is sent."""
        for i in range(len(data)):
            await self.stream.send_all(data[i : i + 1])
            await trio.testing.wait_all_tasks_blocked(0.0002)

    async def until(self, mark: bytes) -> bytes:
        """What comes up to and including `mark`."""
        with trio.fail_after(self._patience):
            while mark not in self._received:
                data = await self.stream.receive_some()
                assert data, f"ended after {self._received!r}, before {mark!r}"
                self._received += data
        end = self._received.index(mark) + len(mark)
        found, self._received = self._received[:end], self._received[end:]
        return found

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        with trio.fail_after(self._patience):
            while len(self._received) < count:
                data = await self.stream.receive_some()
                assert data, f"ended after {len(self._received)} of {count} bytes"
                self._received += data
        found, self._received = self._received[:count], self._received[count:]
        return found

    async def rest(self) -> bytes:
        """Everything until an orderly end; trio.BrokenResourceError if it ends with a reset."""
        with trio.fail_after(self._patience):
            async for data in self.stream:
                self._received += data
        found, self._received = self._received, b""
        return found

    async def is_reset(self) -> bool:
        """Whether the connection ends with a reset instead of an orderly end."""
        try:
            await self.rest()
        except trio.BrokenResourceError:
            return True
        return False

    def reset(self) -> None:
        """Close with a reset."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.stream.socket.close()

    async def close(self) -> None:
        await self.stream.aclose()


class Listener:
    """A listening peer, whose connections the test accepts one by one. peers: everything to close in the end."""

    def __init__(self, listener: trio.SocketListener, peers: list[Peer], patience: float = PATIENCE) -> None:
        self.listener = listener
        self.port: int = listener.socket.getsockname()[1]
        self._peers = peers
        self._patience = patience

    async def accept(self) -> Peer:
        with trio.fail_after(self._patience):
            peer = Peer(await self.listener.accept(), self._patience)
        self._peers.append(peer)
        return peer


class SocketToolStream(ToolStream):
    """A ToolStream that is a plain TCP connection. lost: whether it says that its way to the tool is lost."""

    pool = Pool(65536)
    expendable = False
    lost = False

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._ended = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._ended = self._ended or not data
        return data

    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]:
        buffer = self.pool.take()
        try:
            count = await self._stream.socket.recv_into(buffer.view)
        except OSError as exc:
            buffer.drop()
            raise trio.BrokenResourceError(str(exc)) from exc
        except BaseException:
            buffer.drop()
            raise
        self._ended = self._ended or not count
        return buffer.view[:count], buffer

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()

    async def wait_accepted(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_attached(self) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def detached(self) -> bool:
        return self.lost

    @property
    def healthy(self) -> bool:
        return not (self._ended or self._closed)

    def reset(self, text: str = "") -> None:
        if not self._closed:
            Peer(self._stream).reset()
        self._closed = True


class FakeDialer:
    """Dials one tool on loopback. refusal: what `dial` fails with instead. targets: what was dialled."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refusal: Failure | None = None
        self.targets: list[Target] = []
        self.streams: list[SocketToolStream] = []

    async def dial(self, target: Target) -> ToolStream:
        self.targets.append(target)
        if self.refusal is not None:
            raise DialError(self.refusal)
        stream = SocketToolStream(await trio.open_tcp_stream("127.0.0.1", self.port))
        self.streams.append(stream)
        return stream

    def explain(self, error: BaseException) -> Failure:
        return Failure(status=502, part="tool", text=f"The tool's connection broke ({error}).")


@attrs.define
class FakeGate:
    """Admits everybody as alice, or answers with `verdict`. pages: path -> reply of Connect's own, whose bodies
    `body_limits` are read."""

    verdict: Reply | None = None
    pages: dict[bytes, Reply] = attrs.field(factory=dict)
    body_limits: dict[bytes, int] = attrs.field(factory=dict)
    tunnel: TunnelGrant | Reply = TunnelGrant(  # noqa: RUF009
        grant=granted_tunnel(SESSION), instance="0f", issued=1_700_000_000
    )
    requests: list[VisitorRequest] = attrs.field(factory=list)
    failing: bool = False
    subject: str = "sub-alice"
    username: str = "alice"
    login: str | None = None

    async def admit(self, request: VisitorRequest) -> Admission | Reply:
        self.requests.append(request)
        if self.failing:
            raise RuntimeError("the gate has a bug")
        if self.verdict is not None:
            return self.verdict
        label = request.label
        assert label is not None
        return Admission(
            grant=granted(label[1:], self.subject),
            username=self.username,
            key=f"{label} {self.subject}",
            strip_cookies=frozenset({b"connect_session"}),
            login=self.login,
        )

    def body_limit(self, request: VisitorRequest) -> int:
        return self.body_limits.get(request.target.partition(b"?")[0], 0)

    async def own_page(self, request: VisitorRequest) -> Reply | None:
        self.requests.append(request)
        return self.pages.get(request.target.partition(b"?")[0])

    async def admit_tunnel(self, request: VisitorRequest) -> TunnelGrant | Reply:
        self.requests.append(request)
        return self.tunnel


@attrs.define(kw_only=True)
class World:
    """An edge, the tool behind it, and the way in. picked: how many servers there were each time one was looked for."""

    edge: Edge
    gate: FakeGate
    dialer: FakeDialer
    tool: Listener
    port: int
    servers: list[tuple[str, int]]
    picked: list[int]
    served: trio.Event
    peers: list[Peer]
    listeners: list[trio.SocketListener]
    patience: float

    async def client(self) -> Peer:
        peer = Peer(await trio.open_tcp_stream("127.0.0.1", self.port), self.patience)
        self.peers.append(peer)
        return peer

    async def listen(self) -> Listener:
        """One more listening peer."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.listeners.extend(listeners)
        return Listener(listeners[0], self.peers)

    async def request(self, data: bytes) -> tuple[Peer, Peer]:
        """A client that sent `data`, and the tool's side of its connection."""
        client = await self.client()
        await client.send(data)
        return client, await self.tool.accept()

    async def ask(self, data: bytes) -> bytes:
        """What the edge itself answers to `data` until it closes the connection."""
        client = await self.client()
        await client.send(data)
        with contextlib.suppress(trio.BrokenResourceError):
            await client.stream.send_eof()
        return await client.rest()


@contextlib.asynccontextmanager
async def open_world(
    *,
    limits: Limits | None = None,
    trusted: Sequence[str] = (),
    url: str = f"http://{OWN}",
    domain: str | None = None,
    ancestors: Sequence[str] = (),
    paths: bool = False,
    patience: float = PATIENCE,
    gate: Gate | None = None,
) -> AsyncIterator[World]:
    """An edge that is running for the length of the block.

    domain: of the Studios, if it is not the host of `url`. ancestors: origins that may frame them. paths: whether they
    are below paths, too. patience: seconds until a wait of the test fails. gate: a real one, instead of `World.gate`.
    """
    peers: list[Peer] = []
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tool = Listener(listeners[0], peers, patience)
    fake, dialer = FakeGate(), FakeDialer(tool.port)
    servers: list[tuple[str, int]] = []
    picked: list[int] = []

    async def pick_server() -> Sequence[tuple[str, int]]:
        await trio.lowlevel.checkpoint()
        picked.append(len(servers))
        return servers

    edge = Edge(
        gate=gate or fake,
        dialer=dialer,
        names=HostNames(url, domain),
        pick_server=pick_server,
        connect=connect_plain,
        instance=PROXY,
        limits=limits or Limits(linger=0.2, housekeeping=0.02, half_closed=5),
        trusted_proxies=trusted,
        frame_ancestors=ancestors,
        path_routing=lambda: paths,
    )
    listener = open_listener("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    served = trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await edge.serve([listener], task_status=task_status)
        served.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        try:
            yield World(
                edge=edge,
                gate=fake,
                dialer=dialer,
                tool=tool,
                port=port,
                servers=servers,
                picked=picked,
                served=served,
                peers=peers,
                listeners=listeners,
                patience=patience,
            )
        finally:
            nursery.cancel_scope.cancel()
            for peer in peers:
                peer.stream.socket.close()
            for opened in listeners:
                opened.socket.close()


def get(path: str = "/", *headers: str, host: str = STUDIO, method: str = "GET", version: str = "1.1") -> bytes:
    """A request head."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def upgrade(path: str = "/ws", *headers: str, host: str = STUDIO) -> bytes:
    """A WebSocket's request head."""
    fixed = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    return get(path, *fixed, *headers, host=host)


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A tool's answer of known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fails after PATIENCE."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)
