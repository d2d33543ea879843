"""Connections between proxies and servers, both of which have proven that they hold the cluster's key.

A `Dialler` makes them, a `Door` lets them in; TLS, where there is any, goes round the proofs. Afterwards bytes flow as
over any connection. What is proven is who connected; without TLS, who sits on the way can still read and change bytes.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address

import trio

from connect_trio.mux.transport import Transport
from connect_trio.routing.names import join_address
from connect_trio.transport.complaints import Complaints
from connect_trio.transport.keyring import Keyring
from connect_trio.transport.proofs import (
    NONCE_SIZE,
    ClientHandshake,
    Handshake,
    Purpose,
    ServerHandshake,
    Untrusted,
)
from connect_trio.transport.secure import Secure, why
from connect_trio.transport.sockets import Connection, Socket, SocketTransport, keep_queue_short

PROOF_TIMEOUT = 5.0
"""Seconds in which a peer has to prove who it is, TLS included."""

MAX_STRANGERS = 2048
"""Connections to one port that have proven nothing yet; further ones are closed at once."""

Connect = Callable[[str, int], Awaitable[Connection]]
"""Makes a connection to (host, port). Raises OSError."""

logger = logging.getLogger(__name__)


async def connect_plain(host: str, port: int) -> Connection:
    """A `Connect` to what asks for no proof."""
    return Socket.adopt(await trio.open_tcp_stream(host, port))


def transport_of(connection: Connection) -> Transport:
    """What the mux runs on; the connection is not to be used otherwise any more."""
    if isinstance(connection, Secure):
        keep_queue_short(connection.socket)
        return connection
    assert isinstance(connection, Socket)
    return SocketTransport(connection)


class Dialler:
    """A proxy's side.

    instance: 16 bytes that name this process. tls: how to verify servers, None for connections without TLS; may be set
    anew, for connections that are made from then on.
    """

    def __init__(self, keyring: Keyring, *, instance: bytes, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self._keyring = keyring
        self._instance = instance

    async def link(self, host: str, port: int) -> Connection:
        """A connection to a server's port of links. Raises OSError."""
        return await self._dial(Purpose.LINK, host, port)

    async def tunnel(self, host: str, port: int, *, name: str | None = None) -> Connection:
        """A connection to a server's port of tunnels. name: whose certificate it shows, if not that of `host`.

        Raises OSError.
        """
        return await self._dial(Purpose.TUNNEL, host, port, name)

    async def _dial(self, purpose: Purpose, host: str, port: int, name: str | None = None) -> Connection:
        stream = await trio.open_tcp_stream(host, port)
        secure = None if self.tls is None else Secure.client(stream, self.tls, name or host)
        connection: Connection = Socket.adopt(stream) if secure is None else secure
        keys = self._keyring.keys(trio.current_time())
        handshake = ClientHandshake(keys, purpose, instance=self._instance, nonce=secrets.token_bytes(NONCE_SIZE))
        try:
            await _prove(connection, secure, handshake)
        except Untrusted as exc:
            connection.close()
            raise ConnectionError(f"it is not trusted: {exc}") from exc
        except BaseException:
            connection.close()
            raise
        return connection


class Door:
    """A server's side, of one port.

    instance: 16 bytes that name this process. tls: our certificate, None for connections without TLS.
    """

    def __init__(
        self, keyring: Keyring, purpose: Purpose, *, instance: bytes, tls: ssl.SSLContext | None = None
    ) -> None:
        self._keyring = keyring
        self._purpose = purpose
        self._instance = instance
        self._tls = tls
        self._strangers = 0
        self._complaints = Complaints()

    async def admit(self, sock: socket.socket) -> Connection | None:
        """The connection, once its peer has proven that it is a proxy of ours; None: it is closed, a line tells why.

        Takes the socket over.
        """
        peer = _name_of(sock)
        try:
            if self._strangers >= MAX_STRANGERS:
                sock.close()
                raise Untrusted(f"{MAX_STRANGERS} others have not proven anything yet either")
            self._strangers += 1
            try:
                return await self._admit(sock)
            finally:
                self._strangers -= 1
        except Untrusted as exc:
            self._complain(peer, str(exc))
            return None

    async def _admit(self, sock: socket.socket) -> Connection:
        try:
            secure = None if self._tls is None else Secure.server(sock, self._tls)
            connection: Connection = Socket(sock) if secure is None else secure
        except OSError as exc:  # gone already
            sock.close()
            raise Untrusted(f"it is gone ({exc.strerror})") from exc
        keys = self._keyring.keys(trio.current_time())
        nonce = secrets.token_bytes(NONCE_SIZE)
        try:
            await _prove(connection, secure, ServerHandshake(keys, self._purpose, instance=self._instance, nonce=nonce))
        except BaseException:
            connection.close()
            raise
        return connection

    def _complain(self, peer: str, reason: str) -> None:
        left_out = self._complaints.admit(trio.current_time())
        if left_out is not None:
            logger.warning(
                "not one of our proxies",
                extra={
                    "port": self._purpose.name.lower(),
                    "peer": peer,
                    "reason": reason,
                    "left_out": left_out or None,
                },
            )


async def _prove(connection: Connection, secure: Secure | None, handshake: Handshake) -> None:
    """Raises Untrusted, also for a connection that ends, breaks or is silent."""
    try:
        with trio.fail_after(PROOF_TIMEOUT):
            if secure is not None:
                await secure.handshake()
            await _converse(connection, handshake)
    except trio.TooSlowError as exc:
        raise Untrusted(f"it has proven nothing within {PROOF_TIMEOUT:g} s") from exc
    except (trio.BrokenResourceError, ssl.SSLError) as exc:
        raise Untrusted(why(exc)) from exc


async def _converse(connection: Connection, handshake: Handshake) -> None:
    heard = False
    saying = handshake.start()
    while True:
        if saying:
            await connection.send_all(saying)
        if not handshake.wanted:
            return
        await trio.lowlevel.checkpoint()  # a peer that sends bytewise must not outlast its deadline
        view = memoryview(bytearray(handshake.wanted))  # never more: what follows is not ours
        count = connection.receive_into_now(view)
        while count is None:
            await connection.wait_readable()
            count = connection.receive_into_now(view)
        if not count:
            raise Untrusted("it closed the connection within the handshake" if heard else handshake.silence)
        heard = True
        saying = handshake.receive(bytes(view[:count]))


def _name_of(sock: socket.socket) -> str:
    """host:port of the peer, IPv4 as such also where it came in by a socket for IPv6."""
    try:
        host, port = sock.getpeername()[:2]
        address = ip_address(host.partition("%")[0])
    except (OSError, ValueError):
        return "unknown"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return join_address(str(mapped or address), port)
