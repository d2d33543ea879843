"""What an idle tunnel and an idle stream cost the server: how much its resident memory grows by a thousand of each."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from benchmarks.memory_server import CLUSTER_KEY
from benchmarks.targets import HERE, STOP, CannotMeasure
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.transport import Transport
from connect_trio.mux.wire import Handler, Wire
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.trusted import Dialler, transport_of
from connect_trio.transport.tunnels import dial_tunnel

WARM_UP = 50  # of each kind, which do not count: what the first ones bring along is no cost of the others
TOGETHER = 8
PATIENCE = 120.0
INSTANCE = bytes(16)


@attrs.frozen
class Server:
    pid: int
    link_port: int
    tunnel_port: int
    dialler: Dialler

    @property
    def resident(self) -> float:
        """KiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def idle_memory(count: int) -> dict[str, float]:
    """KiB of the server's resident memory by what is idle there. Raises CannotMeasure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 2 * WARM_UP + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    result = {}
    for name, raw in (("tunnel, raw", True), ("tunnel, WebSocket", False)):
        with _server() as server:
            result[name] = trio.run(_tunnels, server, count, raw)
    with _server() as server:
        result["stream"] = trio.run(_streams, server, count)
    return result


@contextmanager
def _server() -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.memory_server"]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        line = process.stdout.readline() if process.stdout is not None else b""
        if not line:
            raise CannotMeasure("the server to be weighed does not start")
        link_port, tunnel_port = json.loads(line)
        try:
            keyring = Keyring([Key.of_text(CLUSTER_KEY)])
            yield Server(process.pid, link_port, tunnel_port, Dialler(keyring, instance=INSTANCE))
        finally:
            process.kill()
            process.wait(STOP)


async def _tunnels(server: Server, count: int, raw: bool) -> float:
    with trio.fail_after(PATIENCE):
        async with open_hub() as hub:
            acceptor = _acceptor(hub)
            before = 0.0
            for first, last in ((0, WARM_UP), (WARM_UP, WARM_UP + count)):
                before = server.resident
                for begin in range(first, last, TOGETHER):
                    async with trio.open_nursery() as nursery:
                        for number in range(begin, min(begin + TOGETHER, last)):
                            nursery.start_soon(_dial, hub, acceptor, server, number, raw)
            return (server.resident - before) / count


async def _streams(server: Server, count: int) -> float:
    with trio.fail_after(PATIENCE):
        async with open_hub() as hub:
            await _dial(hub, _acceptor(hub), server, 0, True)
            opener = Opener()
            opener.alarm = hub.alarm
            hub.add(opener)
            connection = await server.dialler.link("127.0.0.1", server.link_port)
            link = await _start(hub, opener, transport_of(connection), Peer.OPENER, b"")
            before, streams = 0.0, []
            for number in range(WARM_UP + count):
                if number == WARM_UP:
                    before = server.resident
                token = number.to_bytes(16, "big")
                core = opener.open(link, token=token, now=trio.current_time(), session=_session(0), kind="idle")
                streams.append(MuxStream(core))
                await streams[-1].wait_accepted()
            return (server.resident - before) / count


def _acceptor(hub: Hub) -> Acceptor:
    def accept(stream: CoreStream) -> None:
        stream.accept()

    acceptor = Acceptor(accept)
    acceptor.alarm = hub.alarm
    hub.add(acceptor)
    return acceptor


def _session(number: int) -> str:
    return f"{number:08x}"


async def _dial(hub: Hub, acceptor: Acceptor, server: Server, number: int, raw: bool) -> None:
    """A tunnel for a session of its own, as it comes from a proxy that has checked the agent's token."""
    inner = transport_of(await server.dialler.tunnel("127.0.0.1", server.tunnel_port))
    headers = [
        (b"X-Connect-Session", _session(number).encode()),
        (b"X-Connect-Instance", INSTANCE.hex().encode()),
        (b"X-Connect-Issued", b"0"),
    ]
    opened = await dial_tunnel(inner, host="localhost", target="/_connect/tunnel", headers=headers, raw=raw)
    await _start(hub, acceptor, opened.transport, Peer.ACCEPTOR, opened.early)


async def _start(hub: Hub, handler: Handler, transport: Transport, peer: Peer, early: bytes) -> Wire:
    """A wire that is up: HELLO went both ways."""
    hello = Hello(peer=peer, instance=INSTANCE, generation=1)
    wire = Wire(handler, hello, dialled=True, now=trio.current_time())
    hub.nursery.start_soon(MuxSession(hub, wire, transport).run, early)
    while wire.peer is None:  # noqa: ASYNC110 - endpoints of applications have no use for such an event
        await trio.sleep(0.001)
    return wire
