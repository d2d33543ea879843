"""Agents with many streams each: `python -m benchmarks.many_streams_agents PORT AGENTS`, for `benchmarks.many_streams`.

Each agent has one tunnel and a budget of its own. A stream of the kind `hog` is given all that its credit allows; one
of the kind `echo` gets back what it says. Prints a line of JSON when all tunnels are up, and another one, with how many
streams were opened and refused, for each line that it reads.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import trio

from benchmarks.memory_server import CLUSTER_KEY
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.halves import FRAME
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.session import MuxSession
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from connect_trio.roles.open_files import raise_limit
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.trusted import Dialler, transport_of
from connect_trio.transport.tunnels import dial_tunnel

MEMORY = 256 << 20  # as an agent has by default
PATIENCE = 120.0
ZEROS = bytes(FRAME)


class Hog:
    """Says whatever it may."""

    def __init__(self, core: CoreStream) -> None:
        self._core = core
        core.observer = self
        core.accept()

    def readable(self) -> None:
        """It does not listen."""

    def writable(self) -> None:
        while room := self._core.room:
            self._core.write(ZEROS[:room])


class Echo:
    """Says what it hears."""

    def __init__(self, core: CoreStream) -> None:
        self._core = core
        core.observer = self
        core.accept()

    def readable(self) -> None:
        core = self._core
        while core.receive.queue and (room := core.room):
            core.write(core.receive.take_some(min(room, FRAME)))
            core.took()

    def writable(self) -> None:
        self.readable()


KINDS = {"hog": Hog, "echo": Echo}


def serve(count: dict[str, int], core: CoreStream) -> None:
    count["opened"] += 1
    KINDS[core.ask.kind](core)


async def dial(hub: Hub, dialler: Dialler, port: int, number: int, acceptor: Acceptor) -> None:
    acceptor.alarm = hub.alarm
    hub.add(acceptor)
    instance = number.to_bytes(16, "big")
    headers = [
        (b"X-Connect-Session", b"%08x" % number),
        (b"X-Connect-Instance", instance.hex().encode()),
        (b"X-Connect-Issued", b"0"),
    ]
    inner = transport_of(await dialler.tunnel("127.0.0.1", port))
    opened = await dial_tunnel(inner, host="localhost", target="/_connect/tunnel", headers=headers, raw=True)
    hello = Hello(peer=Peer.ACCEPTOR, instance=instance, generation=1, name="agent")
    wire = Wire(acceptor, hello, dialled=True, now=trio.current_time(), label="tunnel")
    hub.nursery.start_soon(MuxSession(hub, wire, opened.transport).run, opened.early)
    while wire.peer is None and not wire.gone:  # noqa: ASYNC110 - endpoints have no use for such an event
        await trio.sleep(0.002)


async def main(port: int, agents: int) -> None:
    raise_limit()
    count = {"opened": 0}
    async with open_hub() as hub:
        acceptors = [Acceptor(partial(serve, count), budget=Budget(MEMORY)) for _ in range(agents)]
        dialler = Dialler(Keyring([Key.of_text(CLUSTER_KEY)]), instance=b"P" * 16)
        with trio.fail_after(PATIENCE):
            for number, acceptor in enumerate(acceptors):
                await dial(hub, dialler, port, number, acceptor)
        print(json.dumps({"agents": agents}), flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps({**count, "refused": sum(each.counts.refused for each in acceptors)}), flush=True)


if __name__ == "__main__":
    trio.run(partial(main, int(sys.argv[1]), int(sys.argv[2])))
