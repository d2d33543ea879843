"""Agents that do nothing but live: `python -m benchmarks.idle_agents PORT TUNNELS` opens tunnels at a server's port.

Opens them as a proxy would that has checked the agents' tokens: it holds the cluster's key. Each agent has two tunnels,
in two slots. Prints a line of JSON when all are up, and another one for each line that it reads.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial

import attrs
import trio

from benchmarks.memory_server import CLUSTER_KEY
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Liveness, Wire
from connect_trio.roles.open_files import raise_limit
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.trusted import Dialler, transport_of
from connect_trio.transport.tunnels import dial_tunnel

SLOTS = 2
TOGETHER = 32  # dials at once
PATIENCE = 300.0
PROXY = b"P" * 16


@attrs.define
class Crowd:
    """up: tunnels that were greeted. lost: those that ended. pongs: answers to pings of idle tunnels."""

    hub: Hub
    acceptor: Acceptor
    dialler: Dialler
    port: int
    up: int = 0
    lost: int = 0
    pongs: int = 0

    async def dial(self, number: int) -> None:
        """Tunnel `number` of all: two in a row are one agent's, for a session of its own."""
        agent, slot = divmod(number, SLOTS)
        inner = transport_of(await self.dialler.tunnel("127.0.0.1", self.port))
        instance = agent.to_bytes(16, "big")
        headers = [
            (b"X-Forwarded-For", b"192.0.2.1"),
            (b"X-Connect-Session", b"%08x" % agent),
            (b"X-Connect-Instance", instance.hex().encode()),
            (b"X-Connect-Issued", b"0"),
            (b"X-Connect-Via", PROXY.hex().encode()),
        ]
        opened = await dial_tunnel(
            inner, host="connect.localhost", target="/_connect/tunnel", headers=headers, raw=True
        )
        hello = Hello(peer=Peer.ACCEPTOR, instance=instance, slot=slot, generation=1 + slot, name="agent")
        liveness = Liveness(idle_ping=20 + 10 * random.random())  # as agents do
        wire = Wire(self.acceptor, hello, dialled=True, now=trio.current_time(), liveness=liveness, label="tunnel")
        wire.ponged = self._ponged
        self.hub.nursery.start_soon(self._carry, MuxSession(self.hub, wire, opened.transport), opened.early)
        while wire.peer is None and not wire.gone:  # noqa: ASYNC110 - endpoints have no use for such an event
            await trio.sleep(0.002)
        self.up += wire.peer is not None

    async def _carry(self, mux: MuxSession, early: bytes) -> None:
        await mux.run(early)
        self.lost += 1

    def _ponged(self, payload: bytes) -> None:
        self.pongs += 1

    def report(self) -> None:
        print(json.dumps({"up": self.up, "lost": self.lost, "pongs": self.pongs}), flush=True)


async def main(port: int, tunnels: int) -> None:
    raise_limit()
    async with open_hub() as hub:
        acceptor = Acceptor(CoreStream.accept)
        acceptor.alarm = hub.alarm
        hub.add(acceptor)
        crowd = Crowd(hub, acceptor, Dialler(Keyring([Key.of_text(CLUSTER_KEY)]), instance=PROXY), port)
        numbers = iter(range(tunnels))

        async def dial_some() -> None:
            for number in numbers:
                await crowd.dial(number)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(TOGETHER):
                    nursery.start_soon(dial_some)
        crowd.report()
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            crowd.report()


if __name__ == "__main__":
    trio.run(partial(main, int(sys.argv[1]), int(sys.argv[2])))
