"""A proxy's end of many streams: `python -m benchmarks.many_streams_proxy OPTIONS`, for `benchmarks.many_streams`.

The opener that a proxy has, with a link to one server. Opens streams of which nobody reads what comes, so that memory
becomes scarce, then all others, and moves bytes both ways over each of these; then it gives up the former. Prints a
line of JSON after each of these steps, and goes on when it reads one.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import attrs
import trio

from benchmarks.memory_server import CLUSTER_KEY
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Hello
from connect_trio.mux.hub import Hub, open_hub
from connect_trio.mux.opener import Opener
from connect_trio.mux.session import MuxSession
from connect_trio.mux.stream import MuxStream
from connect_trio.mux.wire import Wire
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.trusted import Dialler, transport_of

PATIENCE = 600.0  # seconds for each step
INSTANCE = b"P" * 16
TEXT = random.Random(1).randbytes(1 << 16)


@attrs.frozen
class Options:
    """hogs: streams of which nobody reads. size: bytes that each other one sends and gets back, `rounds` times.
    together: streams that are opened, or that move bytes, at once. memory: the budget, bytes."""

    port: int
    agents: int
    streams: int
    hogs: int
    size: int
    rounds: int
    together: int
    memory: int


class Proxy:
    """slowest: seconds that the slowest exchange of one stream took."""

    def __init__(self, hub: Hub, options: Options) -> None:
        self._hub = hub
        self._options = options
        self.budget = Budget(options.memory)
        self._opener = Opener(budget=self.budget)
        self._opener.alarm = hub.alarm
        hub.add(self._opener)
        self._streams: list[MuxStream] = []
        self._peak = 0
        self._moved = 0
        self._slowest = 0.0

    async def connect(self) -> None:
        dialler = Dialler(Keyring([Key.of_text(CLUSTER_KEY)]), instance=INSTANCE)
        connection = await dialler.link("127.0.0.1", self._options.port)
        hello = Hello(peer=Peer.OPENER, instance=INSTANCE, generation=1)
        self._link = Wire(self._opener, hello, dialled=True, now=trio.current_time(), label="link")
        self._hub.nursery.start_soon(MuxSession(self._hub, self._link, transport_of(connection)).run)
        while self._link.peer is None:  # noqa: ASYNC110 - endpoints have no use for such an event
            await trio.sleep(0.002)

    async def watch(self) -> None:
        while True:
            self._peak = max(self._peak, self.budget.used)
            await trio.sleep(0.01)

    async def at_once(self, work: Callable[[int], Coroutine[Any, Any, None]], first: int, last: int) -> None:
        """Do it for each number, `together` at a time."""
        numbers = iter(range(first, last))

        async def some(numbers: Iterator[int]) -> None:
            for number in numbers:
                await work(number)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(min(self._options.together, last - first)):
                    nursery.start_soon(some, numbers)

    async def open(self, number: int) -> None:
        options = self._options
        core = self._opener.open(
            self._link,
            token=number.to_bytes(16, "big"),
            now=trio.current_time(),
            session=f"{number % options.agents:08x}",
            kind="hog" if number < options.hogs else "echo",
        )
        stream = MuxStream(core)
        self._streams.append(stream)
        await stream.wait_accepted()

    async def fill(self) -> None:
        """Wait until what nobody reads has come."""
        before = -1
        while self.budget.used != before:
            before = self.budget.used
            await trio.sleep(0.5)

    async def exchange(self, number: int) -> None:
        stream = self._streams[number]
        size = self._options.size
        for _ in range(self._options.rounds):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, TEXT[:size])
                got = b""
                while len(got) < size:
                    got += await stream.receive_some()
            if got != TEXT[:size]:
                raise AssertionError("a byte is wrong")
            self._moved += 2 * size
            self._slowest = max(self._slowest, trio.current_time() - began)

    def release(self) -> None:
        """Nobody waits for what the hogs said."""
        for stream in self._streams[: self._options.hogs]:
            stream.reset()
            stream.close_now()

    def report(self) -> None:
        opener = self._opener
        ended = sum(stream.core.end is not None for stream in self._streams[self._options.hogs :])
        print(
            json.dumps(
                {
                    "streams": len(opener.streams),
                    "ended": ended,
                    "refused": opener.counts.refused,
                    "share": min(opener.window, self.budget.share),
                    "used": self.budget.used,
                    "peak": self._peak,
                    "moved": self._moved,
                    "slowest": self._slowest,
                }
            ),
            flush=True,
        )


async def main(options: Options) -> None:
    async with open_hub() as hub:
        proxy = Proxy(hub, options)
        await proxy.connect()
        hub.nursery.start_soon(proxy.watch)

        async def said() -> None:
            proxy.report()
            await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)

        await said()
        await proxy.at_once(proxy.open, 0, options.hogs)
        await proxy.fill()
        await said()
        await proxy.at_once(proxy.open, options.hogs, options.streams)
        await said()
        await proxy.at_once(proxy.exchange, options.hogs, options.streams)
        await said()
        proxy.release()
        await proxy.at_once(proxy.exchange, options.hogs, options.streams)
        await said()


if __name__ == "__main__":
    trio.run(main, Options(**json.loads(sys.argv[1])))
