"""One supervised connection to Redis; with `redis.py` the only place that knows coredis.

All commands share one connection, on which coredis pipelines them. Its pool is not used: a slot of the pool is lost
when a connection dies while it is lent out or when its making is cancelled, and both are ordinary here. So one task
owns the connection, makes the next one when it ends, and knows at any time why there is none.
"""

from __future__ import annotations

import copy
import logging
import random
import ssl
from collections.abc import Callable

import anyio
import trio
from anyio.abc import ByteStream
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import RedisError

from connect_trio.routing.names import split_address
from connect_trio.routing.registry import RegistryUnavailable

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
"""Seconds for the TCP connection, TLS included, and again for each command of Redis' handshake."""

COMMAND_TIMEOUT = 2.0
"""Seconds from a call to its answer, waiting for the connection included."""

PING_INTERVAL = 5.0
"""Seconds between two questions whether Redis is alive; a silent death shows in these plus COMMAND_TIMEOUT."""

MAX_IN_FLIGHT = 1024
"""Commands that wait for an answer at the same time; further ones queue within their own time-out."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0
_STEADY = 1.0  # a connection that lasted this long (seconds) is followed by another one without a delay


class _Connection(BaseConnection):
    """coredis' protocol over a stream that is already connected.

    coredis' own TCP connection leaves its internal streams unclosed when connecting fails, once per attempt.
    """

    def __init__(self, stream: ByteStream, location: TCPLocation, *, user: str | None, password: str | None, db: int):
        super().__init__(
            location, stream_timeout=CONNECT_TIMEOUT, client_name="connect", username=user, password=password, db=db
        )
        self._connected_stream = stream

    async def _connect(self) -> ByteStream:
        return self._connected_stream

    def describe(self) -> str:
        return f"connection to {self.location}"


class _OnStarted:
    """The `task_status` that coredis reports to: calls back when the handshake is done."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def started(self, value: object = None) -> None:
        self._callback()


class RedisClient:
    """Sends commands over the connection that `run` maintains."""

    def __init__(
        self,
        address: str,
        *,
        user: str | None = None,
        password: str | None = None,
        db: int = 0,
        tls: ssl.SSLContext | None = None,
        command_timeout: float = COMMAND_TIMEOUT,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Raises ValueError if `address` is not host:port."""
        self.address = address
        self._location = TCPLocation(*split_address(address))
        self._user = user
        self._password = password
        self._db = db
        self._tls = tls
        self._timeout = command_timeout
        self._jitter = jitter
        self._begin()

    def _begin(self) -> None:
        self._in_flight = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._connection: _Connection | None = None
        self._trouble: str | None = None
        self._changed = trio.Event()

    @property
    def healthy(self) -> bool:
        """Whether there is a connection, as far as is known (at most PING_INTERVAL plus the time-out ago)."""
        return self._connection is not None and self._connection.usable

    def another(self) -> RedisClient:
        """A client with the same options and a connection of its own: `run` has to be called for it."""
        client = copy.copy(self)
        client._begin()
        return client

    async def connected(self) -> BaseConnection:
        """Wait, as long as it takes, for a connection: for what is not a command with one answer."""
        while (connection := self._connection) is None or not connection.usable:
            await self._changed.wait()
        return connection

    async def command(self, *words: str | bytes | int) -> object:
        """Send one command and return its answer: bytes, int, None or a list of these.

        While a first or an immediate second connection is being made, the call waits for it; when there is none and
        the last attempt failed, it fails at once. Raises RegistryUnavailable, and RedisError where Redis is there
        and refuses this command (`redis.py` translates it).
        """
        name = str(words[0])
        connection = None
        with trio.move_on_after(self._timeout):
            async with self._in_flight:
                connection = await self._wait_connection()
                return await self._ask(connection, name, *words[1:])
        if connection is not None:
            # The answer may still come, but a connection that is this slow is better replaced than trusted.
            connection.invalidate(f"no answer to {name}")
        raise RegistryUnavailable(f"Redis at {self.address} did not answer {name} within {self._timeout:g} s")

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
            failures = 0 if self._connection and trio.current_time() - began >= _STEADY else failures + 1
            self._set(None, trouble if failures else None)
            if failures:
                level = logging.WARNING if failures == 1 else logging.DEBUG
                logger.log(level, "%s", trouble, extra={"failures": failures})
                delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 1, 10))
                await trio.sleep(delay * (0.5 + self._jitter() / 2))

    async def watch(self) -> None:
        """Ask for a sign of life now and then, so that a silent death is noticed without a caller."""
        while True:
            await trio.sleep(PING_INTERVAL)
            if self.healthy:
                try:
                    await self.command("PING")
                except (RegistryUnavailable, RedisError) as exc:
                    logger.info("Redis does not answer: %s", exc)

    async def _connect_and_stay(self) -> str:
        """Make a connection and return when it is over: the reason, in one line."""
        try:
            stream = await self._dial()
            connection = _Connection(stream, self._location, user=self._user, password=self._password, db=self._db)
            await connection.run(task_status=_OnStarted(lambda: self._set(connection, None)))
        except (OSError, RedisError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            # A handshake that is cancelled ends in an error, too.
            await trio.lowlevel.checkpoint_if_cancelled()
            return f"cannot connect to Redis at {self.address}: {_root_cause(exc)}"
        return f"the connection to Redis at {self.address} was lost"

    async def _dial(self) -> ByteStream:
        """Raises OSError, of which TimeoutError and ssl.SSLError are kinds, and anyio's errors in the TLS handshake."""
        host, port = self._location.host, self._location.port
        with anyio.fail_after(CONNECT_TIMEOUT):
            if self._tls is None:
                return await anyio.connect_tcp(host, port)
            # Redis ends connections without TLS' closing message.
            return await anyio.connect_tcp(host, port, ssl_context=self._tls, tls_standard_compatible=False)

    def _set(self, connection: _Connection | None, trouble: str | None) -> None:
        if connection is not None:
            logger.info("connected to Redis at %s", self.address)
        self._connection = connection
        self._trouble = trouble
        self._changed.set()
        self._changed = trio.Event()

    async def _wait_connection(self) -> _Connection:
        while True:
            if self._connection is not None and self._connection.usable:
                return self._connection
            if self._trouble is not None:
                raise RegistryUnavailable(self._trouble)
            await self._changed.wait()

    async def _ask(self, connection: _Connection, name: str, *arguments: str | bytes | int) -> object:
        """Send and wait. A refusal by a living Redis is left as it is, everything else is translated."""
        try:
            return await connection.create_request(name.encode(), *arguments, decode=False)
        except Exception as exc:
            if isinstance(exc, RedisError) and connection.usable:
                raise
            # Whatever ended the connection's task is handed to every waiting command, single or in a group.
            raise RegistryUnavailable(f"Redis at {self.address} failed: {_root_cause(exc)}") from exc


def tls_context(*, verify: bool = True, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """The TLS settings for Redis. Raises OSError and ssl.SSLError (an OSError) for files that cannot be used."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


def _root_cause(exc: BaseException) -> str:
    """The innermost reason, which names what happened; the outer ones only say that something did."""
    while True:
        if isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        elif exc.__cause__ is not None:
            exc = exc.__cause__
        else:
            break
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return text or type(exc).__name__
