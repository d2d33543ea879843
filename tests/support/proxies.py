"""A proxy as an agent meets it: a listener that does with each connection what a test says."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

import attrs
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connect_trio.agent.client import TunnelClient
from connect_trio.agent.dialling import TunnelDialler
from connect_trio.agent.places import Places
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.switch import Switch
from connect_trio.mux.transport import StreamTransport, Transport
from connect_trio.mux.wire import Wire
from connect_trio.transport.tunnels import TunnelRequest, accept_tunnel
from connect_trio.transport.websocket import HandshakeError
from tests.support.tools import listener_on

INSTANCE = b"\xab" * 16
Handler = Callable[[trio.abc.Stream], Awaitable[None]]


@attrs.define
class FakeProxy:
    """handlers: what to do with the next connections; the last one stays. dials: when each connection came.

    requests, tunnels: of the tunnels that `tunnel` has accepted.
    """

    hub: Hub
    port: int
    handlers: list[Handler] = attrs.field(factory=list)
    dials: list[float] = attrs.field(factory=list)
    requests: list[TunnelRequest] = attrs.field(factory=list)
    tunnels: list[MuxSession] = attrs.field(factory=list)
    tls: ssl.SSLContext | None = None
    dialled: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://connect.localhost:{self.port}"

    @property
    def carriers(self) -> list[bytes]:
        return [request.carrier for request in self.requests]

    async def handle(self, stream: trio.SocketStream) -> None:
        self.dials.append(trio.current_time())
        self.dialled.set()
        handler = self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0]
        carried: trio.abc.Stream = stream
        if self.tls is not None:
            carried = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        try:
            await handler(carried)
        except (HandshakeError, trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            await trio.aclose_forcefully(carried)

    async def dials_reach(self, count: int) -> None:
        while len(self.dials) < count:
            self.dialled = trio.Event()
            await self.dialled.wait()

    # what may happen to a connection

    async def tunnel(self, stream: trio.abc.Stream) -> None:
        """Accept it, as a server does."""
        request, opened = await accept_tunnel(StreamTransport(stream))
        self.requests.append(request)
        await self.carry(opened.transport, b"S" * 16, opened.early)

    def at(self, server: bytes, *, proxy: bytes | None = b"P" * 16) -> Handler:
        """Carry a tunnel to this server; through this proxy, which may be one that does not say who it is."""
        line = b"" if proxy is None else b"X-Connect-Proxy: %b\r\n" % proxy.hex().encode()

        async def handler(stream: trio.abc.Stream) -> None:
            head = await read_head(stream)
            self.requests.append(TunnelRequest(headers_of(head), b"connect-mux"))
            switched = b"HTTP/1.1 101 X\r\nUpgrade: connect-mux\r\nConnection: Upgrade\r\n%b\r\n" % line
            await stream.send_all(switched)
            await self.carry(StreamTransport(stream), server)

        return handler

    async def carry(self, transport: Transport, server: bytes, early: bytes = b"") -> None:
        hello = Hello(peer=Peer.SWITCH, instance=server)
        wire = Wire(Switch(lambda session, link: None), hello, dialled=False, now=trio.current_time(), label="tunnel")
        self.tunnels.append(MuxSession(self.hub, wire, transport))
        await self.tunnels[-1].run(early)

    async def mute_tunnel(self, stream: trio.abc.Stream) -> None:
        """Answer 101 and say nothing more."""
        request, _ = await accept_tunnel(StreamTransport(stream))
        self.requests.append(request)
        await trio.sleep_forever()

    def refuse(self, status: int, body: str = "") -> Handler:
        async def handler(stream: trio.abc.Stream) -> None:
            head = await read_head(stream)
            carrier = b"websocket" if b"Sec-WebSocket-Key" in head else b"connect-mux"
            self.requests.append(TunnelRequest(headers_of(head), carrier))
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body.encode()))

        return handler

    async def silent(self, stream: trio.abc.Stream) -> None:
        """Take the request, and never answer."""
        await read_head(stream)
        await trio.sleep_forever()

    async def hang_up(self, stream: trio.abc.Stream) -> None:
        """Read the request, and leave."""
        await read_head(stream)


async def read_head(stream: trio.abc.Stream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(4096)
        if not data:
            raise trio.BrokenResourceError("the client left")
        head += data
    return head


def headers_of(head: bytes) -> dict[bytes, bytes]:
    lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}


@asynccontextmanager
async def open_proxy(*, secure: bool = False) -> AsyncIterator[FakeProxy]:
    """A proxy that carries tunnels until told otherwise, for the length of the block."""
    listener = listener_on()
    async with open_hub() as hub:
        proxy = FakeProxy(hub, listener.socket.getsockname()[1], tls=server_context() if secure else None)
        proxy.handlers.append(proxy.tunnel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy.handle, [listener])
            yield proxy
            nursery.cancel_scope.cancel()


@attrs.define
class Agent:
    """A running client, or one for each slot. opened: streams that reached it. failed: what a `run` raised."""

    clients: list[TunnelClient]
    opened: list[CoreStream]
    ended: trio.Event
    failed: Exception | None = None

    @property
    def client(self) -> TunnelClient:
        return self.clients[0]

    async def connected(self) -> None:
        """All of its tunnels are or were up."""
        for client in self.clients:
            await client.connected.wait()


@asynccontextmanager
async def open_agent(
    url: str,
    *,
    tunnels: int = 1,
    token: Callable[[], str] = lambda: "the-token",
    tls: ssl.SSLContext | None = None,
    websocket_only: bool = False,
) -> AsyncIterator[Agent]:
    """Tunnel clients that run for the length of the block."""
    opened: list[CoreStream] = []

    def on_open(core: CoreStream) -> None:
        opened.append(core)
        core.accept()

    async with open_hub() as hub:
        acceptor = Acceptor(on_open)
        acceptor.alarm = hub.alarm
        hub.add(acceptor)
        dialler = TunnelDialler(proxy_url=url, token=token, instance=INSTANCE, tls=tls, websocket_only=websocket_only)
        places = Places()
        clients = [TunnelClient(hub, acceptor, dialler, places, slot=slot) for slot in range(tunnels)]
        agent = Agent(clients, opened, trio.Event())

        async def run(client: TunnelClient) -> None:
            try:
                await client.run()
            except Exception as exc:  # noqa: BLE001 - the test looks at it
                agent.failed = exc
            agent.ended.set()

        for client in clients:
            hub.nursery.start_soon(run, client)
        yield agent


# certificates


@cache
def _authority() -> tuple[bytes, bytes]:
    """A certificate for connect.localhost that signs itself, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a private authority")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("connect.localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with _file(b"".join(_authority())) as path:
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """One that trusts the private authority, and nobody else."""
    return ssl.create_default_context(cadata=_authority()[0].decode())


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)
