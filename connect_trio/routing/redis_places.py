"""Where Redis is: one of several addresses, or what sentinels say; and one connection to it.

With `redis.py` and `redis_client.py` the only place that knows coredis.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import NoReturn

import anyio
import attrs
import trio
from anyio.abc import ByteStream
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import RedisError

from connect_trio.routing.names import join_address, split_address
from connect_trio.routing.redis_tls import TlsFileError, TlsFiles

CONNECT_TIMEOUT = 3.0
"""Seconds for the TCP connection, TLS included, and again for each command of Redis' handshake. A SYN that is lost is
sent again after 1 and 3 seconds."""

SENTINEL_TIMEOUT = 1.0
"""Seconds that one sentinel has, from dialling to its answer, before the next one is asked."""

EXPECTED = (OSError, RedisError, TlsFileError, anyio.BrokenResourceError, anyio.EndOfStream)
"""What making a connection may raise: TimeoutError and ssl.SSLError are kinds of OSError, and a handshake that another
program answers ends in any of the others."""

MASK = "***"


class NotUsable(RedisError):
    """Something answers, but it is not the Redis that is wanted; the text says why."""


@attrs.frozen(kw_only=True)
class Credentials:
    """An ACL user and its password. Without a user it is the password of `default`."""

    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    def hide(self, text: str) -> str:
        """`text` without the password: what is no Redis may repeat in an error what it was sent."""
        return text.replace(self.password, MASK) if self.password else text


NOBODY = Credentials()


class Connection(BaseConnection):
    """coredis' protocol over a stream that is already connected.

    coredis' own TCP connection leaves its internal streams unclosed when connecting fails, once per attempt.
    """

    def __init__(self, stream: ByteStream, address: str, *, who: Credentials, db: int = 0, timeout: float) -> None:
        super().__init__(
            TCPLocation(*split_address(address)),
            stream_timeout=timeout,
            client_name="connect",
            username=who.user,
            password=who.password,
            db=db,
        )
        self.address = address
        self._connected_stream = stream

    async def _connect(self) -> ByteStream:
        return self._connected_stream

    def describe(self) -> str:
        return f"connection to {self.address}"

    async def check_primary(self, _: BaseConnection) -> None:
        """Raises NotUsable unless this is a primary. HELLO says so, which needs no permission."""
        about = await self.create_request(b"HELLO", decode=False)
        if not isinstance(about, dict):
            raise NotUsable("it does not say what it is")
        mode, role = about.get(b"mode"), about.get(b"role")
        if mode == b"sentinel":
            raise NotUsable("it is a sentinel, and no name of a primary to ask it for is set")
        if mode == b"cluster":
            raise NotUsable("it is part of a Redis Cluster, which is not supported")
        if role != b"master":
            raise NotUsable("it is a replica")


async def dial(address: str, tls: ssl.SSLContext | None) -> ByteStream:
    """Raises what `EXPECTED` names."""
    host, port = split_address(address)
    if tls is None:
        return await anyio.connect_tcp(host, port)
    # Redis ends connections without TLS' closing message.
    return await anyio.connect_tcp(host, port, ssl_context=tls, tls_standard_compatible=False)


class Places:
    """Where to look for the primary.

    addresses: of Redis, in the order of preference; or of sentinels, if `sentinel` is the name that they know it by.
    sentinel_who: what sentinels are shown.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        sentinel: str | None = None,
        sentinel_who: Credentials = NOBODY,
        tls: TlsFiles | None = None,
    ) -> None:
        """Raises ValueError if an address is not host:port, or if there is none."""
        if not addresses:
            raise ValueError("no address of Redis")
        self._addresses = [join_address(*split_address(address)) for address in addresses]
        self._sentinel = sentinel
        self._who = sentinel_who
        self._tls = tls

    def __str__(self) -> str:
        addresses = ", ".join(self._addresses)
        return addresses if self._sentinel is None else f"{self._sentinel} (by sentinel {addresses})"

    @property
    def by_sentinel(self) -> bool:
        return self._sentinel is not None

    def context(self) -> ssl.SSLContext | None:
        """Raises TlsFileError."""
        return self._tls.context() if self._tls is not None else None

    async def look(self) -> Sequence[str]:
        """Addresses to try, in this order. Raises NotUsable with one line if no sentinel knows any."""
        if self._sentinel is None:
            return self._addresses
        troubles = []
        for address in list(self._addresses):
            try:
                found = await self._ask(address, self._sentinel)
            except EXPECTED as exc:
                await trio.lowlevel.checkpoint_if_cancelled()
                troubles.append(f"{address}: {self._who.hide(root_cause(exc))}")
                continue
            # The one that answers is asked first from now on.
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            return [found]
        raise NotUsable(f"no sentinel knows where {self._sentinel} is ({'; '.join(troubles)})")

    async def _ask(self, address: str, name: str) -> str:
        """The address of the primary, by one sentinel. Raises what `EXPECTED` names."""
        answer: object = None
        failure: BaseException | None = None
        try:
            with trio.move_on_after(SENTINEL_TIMEOUT) as patience:
                stream = await dial(address, self.context())
                connection = Connection(stream, address, who=self._who, timeout=SENTINEL_TIMEOUT)
                async with trio.open_nursery() as nursery:
                    await nursery.start(connection.run)
                    words = (b"GET-MASTER-ADDR-BY-NAME", name)
                    answer = await connection.create_request(b"SENTINEL", *words, decode=False)
                    nursery.cancel_scope.cancel()
        except* EXPECTED as group:
            failure = group
        if patience.cancel_called and answer is None:  # a handshake that is cancelled ends in another error
            raise TimeoutError(f"no answer within {SENTINEL_TIMEOUT:g} s")
        if failure is not None:
            _raise_first(failure)
        return _primary_in(answer)


def _primary_in(answer: object) -> str:
    """Raises NotUsable if a sentinel's answer names no address."""
    if isinstance(answer, list) and len(answer) == 2:
        try:
            host, port = (str(part, "ascii") for part in answer)
            return join_address(*split_address(join_address(host, int(port))))
        except (TypeError, ValueError) as exc:
            raise NotUsable(f"it answers with no address: {answer!r:.100}") from exc
    raise NotUsable("it knows no primary of this name")


def _raise_first(group: BaseException) -> NoReturn:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    raise group


def root_cause(exc: BaseException) -> str:
    """The innermost reason, which names what happened; the outer ones only say that something did."""
    while True:
        if isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        elif exc.__cause__ is not None and not isinstance(exc, (TlsFileError, NotUsable)):
            exc = exc.__cause__
        else:
            break
    if isinstance(exc, TlsFileError):
        return f"the file of TLS' {exc.which} cannot be used: {exc}"
    text = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        # trio's text repeats the address; errors of TLS and of names have numbers of their own.
        plain = exc.errno is not None and exc.errno > 0 and not isinstance(exc, ssl.SSLError)
        text = os.strerror(exc.errno) if plain and exc.errno else exc.strerror
    return " ".join(text.split()) or type(exc).__name__
