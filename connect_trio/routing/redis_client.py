"""One supervised connection to Redis; with `redis.py` and `redis_places.py` the only place that knows coredis.

All commands share one connection, on which coredis pipelines them. Its pool is not used: a slot of the pool is lost
when a connection dies while it is lent out or when its making is cancelled, and both are ordinary here. So one task
owns the connection, makes the next one when it ends, and knows at any time why there is none.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import trio
from coredis.exceptions import AuthorizationError, NoScriptError, ReadOnlyError, RedisError

from connect_trio.routing.redis_outage import OutageLog
from connect_trio.routing.redis_places import (
    CONNECT_TIMEOUT,
    EXPECTED,
    NOBODY,
    Connection,
    Credentials,
    NotUsable,
    Places,
    dial,
    root_cause,
)
from connect_trio.routing.registry import RegistryUnavailable

COMMAND_TIMEOUT = 2.0
"""Seconds from a call to its answer, waiting for the connection included."""

PING_INTERVAL = 5.0
"""Seconds between two questions whether Redis is alive; a silent death shows in these plus COMMAND_TIMEOUT. With
sentinels, also between two questions whether the primary is still the one that we use."""

MAX_IN_FLIGHT = 1024
"""Commands that wait for an answer at the same time; further ones queue within their own time-out."""

# Back in use within 5 s of Redis' return: an attempt may have begun just before it, and time out.
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0
_STEADY = 1.0  # a connection that lasted this long (seconds) is followed by another one without a delay


class _OnStarted:
    """The `task_status` that coredis reports to: calls back when the handshake is done."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def started(self, value: object = None) -> None:
        self._callback()


class RedisClient:
    """Sends commands over the connection that `run` maintains; `watch` and `tell` run beside it."""

    def __init__(
        self,
        places: Places,
        *,
        who: Credentials = NOBODY,
        db: int = 0,
        probe: str = "probe",
        command_timeout: float = COMMAND_TIMEOUT,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """probe: a key that may be written, to see whether Redis takes writes again."""
        self.address = str(places)
        self._places = places
        self._who = who
        self._db = db
        self._probe = probe
        self._timeout = command_timeout
        self._jitter = jitter
        self._outages = OutageLog()
        self._begin()

    def _begin(self) -> None:
        self._in_flight = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._connection: Connection | None = None
        self._trouble: str | None = None
        self._changed = trio.Event()

    @property
    def healthy(self) -> bool:
        """Whether there is a connection, as far as is known (at most PING_INTERVAL plus the time-out ago)."""
        return self._connection is not None and self._connection.usable

    def another(self) -> RedisClient:
        """A client with the same options and a connection of its own: `run` has to be called for it.

        It leaves it to this one to tell of outages.
        """
        client = copy.copy(self)
        client._outages = OutageLog(quiet=True)
        client._begin()
        return client

    async def connected(self) -> Connection:
        """Wait, as long as it takes, for a connection: for what is not a command with one answer."""
        while (connection := self._connection) is None or not connection.usable:
            await self._changed.wait()
        return connection

    async def command(self, *words: str | bytes | int, to: str) -> object:
        """Send one command and return its answer: bytes, int, None or a list of these. to: its purpose, for the log.

        While a first or an immediate second connection is being made, the call waits for it; when there is none and
        the last attempt failed, it fails at once. Raises RegistryUnavailable, and NoScriptError.
        """
        name = str(words[0])
        connection = None
        with trio.move_on_after(self._timeout):
            async with self._in_flight:
                connection = await self._wait_connection()
                return await self._ask(connection, name, *words[1:], to=to)
        reason = f"Redis at {self.address} did not answer {name} within {self._timeout:g} s"
        if connection is not None:
            # The answer may still come, but a connection that is this slow is better replaced than trusted.
            self._give_up(connection, reason)
        raise RegistryUnavailable(reason)

    async def wait_ready(self, timeout: float) -> None:
        """Wait until there is a connection. Raises RegistryUnavailable with the last trouble after `timeout` s."""
        with trio.move_on_after(timeout):
            while not self.healthy:
                await self._changed.wait()
            return
        raise RegistryUnavailable(self._trouble or f"Redis at {self.address} did not answer within {timeout:g} s")

    async def run(self) -> None:
        """Keep a connection until cancelled: reconnect at once, then with back-off and jitter."""
        failures = 0
        while True:
            began = trio.current_time()
            trouble = await self._connect_and_stay()
            was_there = self._connection is not None
            failures = 0 if was_there and trio.current_time() - began >= _STEADY else failures + 1
            self._set(None, trouble if failures else None)
            if failures > was_there:  # a single loss is none yet, and the next attempt knows better why
                self._outages.away(trouble)
            if failures:
                delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 1, 10))
                await trio.sleep(delay * (0.5 + self._jitter() / 2))

    async def watch(self) -> None:
        """Ask for a sign of life now and then, so that a silent death is noticed without a caller; and the end of it
        when Redis refuses writes, for the next visitor who needs one may be long in coming.

        Sentinels may have made another one the primary while this one cannot be reached by them, but by us.
        """
        while True:
            await trio.sleep(PING_INTERVAL)
            connection = self._connection
            if connection is None or not connection.usable:
                continue
            try:
                await self.command("PING", to="answer PING")
                if self._places.by_sentinel and connection.address not in await self._places.look():
                    self._give_up(connection, f"Redis at {connection.address} is no longer the primary")
                if self._outages.refusing:
                    await self.command("SET", self._probe, b"", "PX", 1000, to="write")
                    self._outages.writable()
            except (RegistryUnavailable, NotUsable):
                continue  # told already; and sentinels that are away take no Redis from us

    async def tell(self) -> None:
        """Log that an outage is over, when a connection has lasted."""
        while True:
            connection, changed = self._connection, self._changed
            with trio.move_on_after(_STEADY):
                await changed.wait()
            if connection is not None and connection is self._connection and connection.usable:
                self._outages.back()
                await self._changed.wait()

    async def _connect_and_stay(self) -> str:
        """Make a connection and return when it is over: the reason, in one line."""
        try:
            addresses = await self._places.look()
        except NotUsable as exc:
            return str(exc)
        troubles = []
        for address in addresses:
            try:
                await self._stay_at(address)
            except EXPECTED as exc:
                # A handshake that is cancelled ends in an error, too.
                await trio.lowlevel.checkpoint_if_cancelled()
                troubles.append(f"{address}: {self._who.hide(root_cause(exc))}")
            if self._connection is not None:
                return f"the connection to Redis at {address} was lost"
        return f"cannot connect to Redis at {'; at '.join(troubles)}"

    async def _stay_at(self, address: str) -> None:
        """Connect and return when the connection is over. Raises what `EXPECTED` names."""
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await dial(address, self._places.context())
        except trio.TooSlowError as exc:
            raise TimeoutError(f"no connection within {CONNECT_TIMEOUT:g} s") from exc
        connection = Connection(stream, address, who=self._who, db=self._db, timeout=CONNECT_TIMEOUT)
        connection.register_connect_callback(connection.check_primary)
        await connection.run(task_status=_OnStarted(lambda: self._set(connection, None)))

    def _set(self, connection: Connection | None, trouble: str | None) -> None:
        if connection is not None:
            self._outages.connected(connection.address)
        self._connection = connection
        self._trouble = trouble
        self._changed.set()
        self._changed = trio.Event()

    def _give_up(self, connection: Connection, reason: str) -> None:
        if connection.usable:
            self._outages.away(reason)
        connection.invalidate(reason)

    async def _wait_connection(self) -> Connection:
        while True:
            if self._connection is not None and self._connection.usable:
                return self._connection
            if self._trouble is not None:
                raise RegistryUnavailable(self._trouble)
            await self._changed.wait()

    async def _ask(self, connection: Connection, name: str, *arguments: str | bytes | int, to: str) -> object:
        """Send and wait. NOSCRIPT is left as it is, everything else that goes wrong is translated."""
        try:
            answer = await connection.create_request(name.encode(), *arguments, decode=False)
        except NoScriptError:
            raise
        except Exception as exc:
            reason = root_cause(exc)
            if isinstance(exc, RedisError) and connection.usable:
                if isinstance(exc, ReadOnlyError):  # demoted while we were connected
                    self._give_up(connection, f"Redis at {connection.address} is a replica now")
                else:
                    self._outages.refused(to, reason, forbidden=isinstance(exc, AuthorizationError))
                raise RegistryUnavailable(f"Redis at {self.address} refused a command: {reason}") from exc
            # Whatever ended the connection's task is handed to every waiting command, single or in a group.
            raise RegistryUnavailable(f"Redis at {self.address} failed: {reason}") from exc
        self._outages.accepted(to)
        return answer
