"""SSH clients that make load and measure: a process of its own, `python -m benchmarks.ssh_clients`, on asyncio.

Takes orders, one JSON object in a line of stdin each ({"do": METHOD OF Clients, ...its arguments}), and answers each
with a JSON object in a line of stdout. The first line of stdin is the `Place`. Each connection comes from an address of
loopback of its own (127.0.0.0/8), as an edge counts strangers by address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import asyncssh
import attrs

from connect_trio.roles.open_files import raise_limit

PATIENCE = 60.0  # seconds that anything may take
BETWEEN_KEYS = 0.02
BETWEEN_COMMANDS = 0.05
AGAIN = 0.1  # seconds until what was closed is opened again
RAW_TERMINAL = "stty raw -echo; echo ready; exec cat"

Answer = dict[str, Any]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Place:
    """Where to log in. labels: of Studios, which take turns. number: of this process among others, 0 to 200."""

    port: int
    user: str
    labels: Sequence[str]
    key: str
    number: int
    host: str = "127.0.0.1"


class Clients:
    """All methods without an underscore are orders."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._sources = 0
        self._held: list[asyncssh.SSHClientConnection] = []
        self._channels: list[asyncssh.SSHClientProcess[bytes]] = []
        self._flood: list[asyncio.Task[None]] = []
        self._times: list[float] = []
        self._failures: Counter[str] = Counter()
        self._standing = self._cut = 0
        self._since = 0.0

    async def hold(self, count: int, at_once: int) -> Answer:
        """Log in so many times more and stay; how many did, how long that took, and why others did not."""
        since, before = time.monotonic(), len(self._held)
        failures: Counter[str] = Counter()

        async def one(number: int) -> None:
            try:
                self._held.append(await self._log_in(number))
            except (asyncssh.Error, OSError) as exc:
                failures[f"{type(exc).__name__}: {exc}"] += 1

        await _some([one(number) for number in range(count)], at_once)
        return {"up": len(self._held) - before, "seconds": time.monotonic() - since, "failures": failures}

    async def live(self) -> Answer:
        """How many of those who stayed are still in."""
        return {"live": sum(not connection.is_closed() for connection in self._held)}

    async def keep(self, count: int) -> Answer:
        """All others leave."""
        leaving, self._held = self._held[count:], self._held[:count]
        for connection in leaving:
            connection.close()
        await _some([connection.wait_closed() for connection in leaving], 100)
        return await self.live()

    async def open_channels(self, connections: int, each: int) -> Answer:
        """So many on so many connections, each a command that echoes a line of its own; then one more on each."""
        held = self._held[:connections]
        since = time.monotonic()
        await _some([self._fill(connection, each) for connection in held], 8)
        seconds = time.monotonic() - since
        echoed = sum(await _some([_echoes(channel) for channel in self._channels], 100))
        refusals: Counter[str] = Counter()

        async def one_more(connection: asyncssh.SSHClientConnection) -> None:
            try:
                self._channels.append(await connection.create_process("exec cat", encoding=None))
            except asyncssh.ChannelOpenError as exc:
                refusals[exc.reason] += 1

        await _some([one_more(connection) for connection in held], len(held))
        again = sum(await _some([_echoes(channel) for channel in self._channels], 100))
        return {
            "open": len(self._channels),
            "echoed": echoed,
            "seconds": seconds,
            "refused": refusals.total(),
            "refusals": list(refusals),
            "echoed_after": again,
        }

    async def close_channels(self) -> Answer:
        for channel in self._channels:
            channel.close()
        await _some([channel.wait_closed() for channel in self._channels], 100)
        self._channels.clear()
        return {}

    async def start_logins(self, at_once: int) -> Answer:
        """Log in and leave, as fast as it goes, until `stop`."""
        self._since = time.monotonic()
        self._flood = [asyncio.create_task(self._keep_logging_in(number)) for number in range(at_once)]
        return {}

    async def start_half_open(self, count: int) -> Answer:
        """Connections that never log in, half of which say a version; those that are closed come again."""
        self._since = time.monotonic()
        self._flood = [asyncio.create_task(self._keep_half_open(number)) for number in range(count)]
        while self._standing + self._cut < count:  # noqa: ASYNC110 - an event for two counts is no clearer
            await asyncio.sleep(0.01)
        return await self.standing()

    async def standing(self) -> Answer:
        return {"standing": self._standing, "cut": self._cut}

    async def stop(self) -> Answer:
        """End what was started; what it did, and in how many seconds."""
        seconds = time.monotonic() - self._since
        answer = {"logins": len(self._times), "times": self._times, "failures": self._failures, "seconds": seconds}
        answer |= {"standing": self._standing, "cut": self._cut}
        for task in self._flood:
            task.cancel()
        await asyncio.gather(*self._flood, return_exceptions=True)
        self._flood, self._times, self._failures = [], [], Counter()
        self._standing = self._cut = 0
        return answer

    async def probe(self, seconds: float) -> Answer:
        """What somebody who is in waits for: seconds of each key's echo, and of each `true`."""
        connection = self._held[0]
        keys: list[float] = []
        commands: list[float] = []
        over = time.monotonic() + seconds

        async def type_keys() -> None:
            terminal = {"term_type": "xterm", "term_size": (80, 24)}
            async with connection.create_process(RAW_TERMINAL, encoding=None, **terminal) as shell:
                await shell.stdout.readuntil(b"ready")
                await shell.stdout.readline()
                while time.monotonic() < over or not keys:
                    since = time.perf_counter()
                    shell.stdin.write(b"k")
                    if await shell.stdout.read(1) != b"k":
                        raise ValueError("a key came back wrong")
                    keys.append(time.perf_counter() - since)
                    await asyncio.sleep(BETWEEN_KEYS)
                shell.close()

        async def run_commands() -> None:
            while time.monotonic() < over or not commands:
                since = time.perf_counter()
                done = await connection.run("true", check=True)
                commands.append(time.perf_counter() - since)
                if done.stdout or done.stderr:
                    raise ValueError("`true` said something")
                await asyncio.sleep(BETWEEN_COMMANDS)

        await asyncio.gather(type_keys(), run_commands())
        return {"keys": keys, "commands": commands}

    def _source(self) -> tuple[str, int]:
        self._sources += 1
        high, low = divmod(self._sources, 250)
        return f"127.{10 + self._place.number}.{high % 250}.{1 + low}", 0

    async def _log_in(self, number: int) -> asyncssh.SSHClientConnection:
        place = self._place
        return await asyncssh.connect(
            place.host,
            place.port,
            local_addr=self._source(),
            config=None,
            username=f"{place.user}@{place.labels[number % len(place.labels)]}",
            client_keys=[place.key],
            known_hosts=None,
            agent_path=None,
            login_timeout=PATIENCE,
        )

    async def _fill(self, connection: asyncssh.SSHClientConnection, count: int) -> None:
        for _ in range(count):
            self._channels.append(await connection.create_process("exec cat", encoding=None))

    async def _keep_logging_in(self, number: int) -> None:
        while True:
            since = time.perf_counter()
            try:
                connection = await self._log_in(number)
            except (asyncssh.Error, OSError) as exc:
                self._failures[f"{type(exc).__name__}: {exc}"] += 1
                await asyncio.sleep(AGAIN)
                continue
            self._times.append(time.perf_counter() - since)
            connection.abort()
            await connection.wait_closed()

    async def _keep_half_open(self, number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._stand(says=b"SSH-2.0-half_open\r\n" if number % 2 else b"")
            self._cut += 1
            await asyncio.sleep(AGAIN)

    async def _stand(self, says: bytes) -> None:
        """One connection without a login, until it is closed."""
        reader, writer = await asyncio.open_connection(self._place.host, self._place.port, local_addr=self._source())
        try:
            writer.write(says)
            await reader.read(1)
            self._standing += 1
            try:
                while await reader.read(4096):
                    pass
            finally:
                self._standing -= 1
        finally:
            writer.close()


async def _echoes(channel: asyncssh.SSHClientProcess[bytes]) -> bool:
    """Whether a line comes back as it was."""
    line = f"line of {id(channel)}\n".encode()
    channel.stdin.write(line)
    return await asyncio.wait_for(channel.stdout.readline(), PATIENCE) == line


async def _some(all_of_them: Sequence[Coroutine[Any, Any, T]], at_once: int) -> list[T]:
    """Their results, with only so many running at a time."""
    limit = asyncio.Semaphore(max(1, at_once))

    async def one(each: Awaitable[T]) -> T:
        async with limit:
            return await each

    return list(await asyncio.gather(*map(one, all_of_them)))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    place = Place(**json.loads(sys.stdin.readline()))
    clients = Clients(place)
    print("{}", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order: dict[str, Any] = json.loads(line)
        act: Callable[..., Awaitable[Answer]] = getattr(clients, order.pop("do"))
        print(json.dumps(await act(**order)), flush=True)


if __name__ == "__main__":
    raise_limit()
    asyncssh.set_log_level("ERROR")
    asyncio.run(_serve())
