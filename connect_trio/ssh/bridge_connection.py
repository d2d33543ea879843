"""One connection between asyncssh and a `Visitor`: login, channels, and the bounds that asyncssh does not keep.

What is overridden here is of asyncssh 2.24.1, which is pinned; tests/ssh/ has a test for each reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar, TypeVarTuple

import asyncssh
import attrs
import trio
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_GLOBAL_REQUEST,
    MSG_KEXINIT,
    MSG_USERAUTH_REQUEST,
)
from asyncssh.packet import SSHPacket

from connect_trio.ssh.bridge_bounds import KINDS, SMALLEST, TRIES, Rekeys, confirmation_of, kind_of_open
from connect_trio.ssh.bridge_channel import (
    AgentChannel,
    Events,
    ForwardEvents,
    SessionChannel,
    SessionEvents,
    TcpChannel,
    UnixChannel,
)
from connect_trio.ssh.client import ChannelRefused, Disconnect, Handler, Key, Listening, Visitor, Why
from connect_trio.ssh.loop import Loop
from connect_trio.ssh.transport import READ, Transport

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BEFORE_LOGIN: Final = 512 * 1024
"""Bytes that a client may send before it is logged in: asyncssh keeps what comes while we ask about a key."""
DEFERRED: Final = 4096  # packets that wait for new keys; data is held back, so these are answers
MANY: Final = 64  # packets of one read: each costs the same, however short it is,
SLICE: Final = 8 * 1024  # so the next bytes are taken in slices
REQUESTS: Final = 64  # global requests that wait for an answer
REKEY: Final = 60.0  # seconds that agreeing on new keys may take

logger = logging.getLogger(__name__)


@attrs.frozen
class FromTcp:
    """A channel for who connected to a remote forward. listened: as the client asked for it, with the port."""

    listened: tuple[str, int]
    peer: tuple[str, int]


@attrs.frozen
class FromUnix:
    path: str


@attrs.frozen
class ToAgent:
    """A channel to the client's SSH agent."""


OpenKind = FromTcp | FromUnix | ToAgent


class Connection(asyncssh.SSHServerConnection):
    """asyncssh's connection, with what it leaves undone. See the pitfalls in docs/ssh.md."""

    visitor: Visitor
    transport: Transport
    nursery: trio.Nursery
    miniloop: Loop
    window: Callable[[], int]

    def __init__(self, loop: Loop, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(loop.typed, options)
        self.miniloop = loop
        self.entered = False
        self._heard = False
        self._before_login = 0
        self._choked = False  # the client does not read
        self._agreeing: asyncio.TimerHandle | None = None  # on new keys
        self._held: dict[Events, None] = {}
        self._rekeys = Rekeys()
        self._tries = 0  # to log in

    # bounds

    def data_received(self, data: bytes, datatype: asyncssh.DataType = None) -> None:
        if not self.entered:
            self._before_login += len(data)
            if self._before_login > BEFORE_LOGIN:
                logger.debug("a client sends too much before its login")
                self.kill()
                return
        before = self._recv_seq
        super().data_received(data, datatype)
        self.transport.piece = SLICE if self._recv_seq - before > MANY else READ
        if not self._heard and self._client_version:
            self._heard = True
            self.visitor.heard()
        if len(self._deferred_packets) > DEFERRED:
            logger.info("a client asks for new keys and does not agree on any")
            self.kill()

    def kill(self) -> None:
        self.transport.kill()
        self.connection_lost(None)

    @property
    def may_write(self) -> bool:
        return not self._choked and self._kex_complete

    def holds(self, events: Events, here: bool) -> None:
        if here:
            self._held[events] = None
        else:
            self._held.pop(events, None)

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._resume_channels()

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        if self._agreeing is None and self.entered:
            self._agreeing = self._loop.call_later(REKEY, self.kill)

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        if self._agreeing is not None:
            self._agreeing.cancel()
            self._agreeing = None
        # Soon, and not now: we are in the middle of a packet of the old keys.
        self._loop.call_soon(self._resume_channels)

    def _resume_channels(self) -> None:
        for events in list(self._held):
            if not self.may_write:
                return
            events.resume_writing()

    def _cleanup(self, exc: Exception | None) -> None:
        if self._agreeing is not None:
            self._agreeing.cancel()
        super()._cleanup(exc)

    def _process_bounded_global_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if len(self._global_request_queue) >= REQUESTS:
            raise asyncssh.ProtocolError("Too many requests at once")
        self._process_global_request(pkttype, pktid, packet)

    def _process_bounded_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> Awaitable[None]:
        if self._rekeys.too_many(self.transport.received + self.transport.sent, trio.current_time()):
            raise asyncssh.ProtocolError("Too many key exchanges")
        return self._process_kexinit(pkttype, pktid, packet)

    def _process_bounded_userauth_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        self._tries += 1
        if self._tries > TRIES and not self.entered:
            raise asyncssh.DisconnectError(Why.NO_MORE_AUTH_METHODS_AVAILABLE, "too many tries to log in")
        return self._process_userauth_request(pkttype, pktid, packet)

    def _process_bounded_channel_open(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """asyncssh looks for one of its methods by the name that a client says."""
        kind, opening = kind_of_open(packet)
        if kind not in KINDS:
            code, text = asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE, "there are no channels of this type"
        elif opening.packet_size < SMALLEST:
            code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
            text = f"packets of {opening.packet_size} bytes are too small; take {SMALLEST} at least"
        else:
            self._process_channel_open(pkttype, pktid, packet)
            return
        self.send_channel_open_failure(opening.number, code, text, "en")

    def _process_bounded_confirmation(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if confirmation_of(packet).packet_size < SMALLEST:
            raise asyncssh.ProtocolError("The packets of a channel are too small")
        self._process_channel_open_confirmation(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012 - as in the class above
        **asyncssh.SSHServerConnection._packet_handlers,
        MSG_KEXINIT: _process_bounded_kexinit,
        MSG_USERAUTH_REQUEST: _process_bounded_userauth_request,
        MSG_GLOBAL_REQUEST: _process_bounded_global_request,
        MSG_CHANNEL_OPEN: _process_bounded_channel_open,
        MSG_CHANNEL_OPEN_CONFIRMATION: _process_bounded_confirmation,
    }

    # login

    async def reload_config(self) -> None:
        """There is none: asyncssh would read its options again, in a thread, for each login."""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Who has shown to have the private key comes in, if the visitor says so."""
        if not await super().validate_public_key(username, key_data, msg, signature):
            return False
        return not msg or await self.ask(self.visitor.proves, Key(key_data))

    # what the visitor is asked

    async def ask(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """What a trio function answers; its refusals as asyncssh says them."""
        try:
            return await self.miniloop.trio_call(self.nursery, function, *args)
        except Disconnect as exc:
            raise asyncssh.DisconnectError(exc.why, exc.text) from None
        except ChannelRefused as exc:
            code = asyncssh.OPEN_RESOURCE_SHORTAGE if exc.shortage else asyncssh.OPEN_CONNECT_FAILED
            raise asyncssh.ChannelOpenError(code, str(exc)) from None
        except Exception:
            logger.exception("an SSH connection failed: this is a bug")
            raise

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """asyncssh meets an error that it does not expect: of strangers' making, or a bug of its own or ours."""
        level = logging.ERROR if self.entered else logging.DEBUG
        logger.log(level, "an SSH connection ends by an error", exc_info=exc_info or True)
        super().internal_error(exc_info, error_logger)

    def session_channel(self) -> SessionChannel:
        window, size = self.window(), self._receives_packets()
        return SessionChannel(self, self._loop, True, False, False, 0, 0, None, "strict", window, size)

    def tcp_channel(self) -> TcpChannel:
        return TcpChannel(self, self._loop, None, "strict", self.window(), self._receives_packets())

    def unix_channel(self) -> UnixChannel:
        return UnixChannel(self, self._loop, None, "strict", self.window(), self._receives_packets())

    def _receives_packets(self) -> int:
        """How long they may be."""
        self._update_recv_pktlen(self._max_pktsize)
        return self._max_pktsize

    async def open_channel(self, kind: OpenKind, handler: Handler) -> None:
        """Open a channel to the client, and wait until it has answered. Raises asyncssh.ChannelOpenError."""
        events = ForwardEvents(self.miniloop, self, handler)

        def factory() -> Any:
            return events

        if isinstance(kind, FromTcp):
            await self.tcp_channel().accept(factory, *kind.listened, *kind.peer)
        elif isinstance(kind, FromUnix):
            await self.unix_channel().accept(factory, kind.path)
        else:
            agent = AgentChannel(self, self._loop, None, "strict", self.window(), self._receives_packets())
            await agent.open(factory)


class Owner(asyncssh.SSHServer):
    """What asyncssh asks about a connection, handed on to its visitor."""

    def __init__(self) -> None:
        self._connection: Connection
        self._visitor: Visitor

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, Connection)
        self._connection, self._visitor = conn, conn.visitor

    def begin_auth(self, username: str) -> bool:
        """Never waits: meanwhile what comes would be kept, and copied each time."""
        try:
            self._visitor.names(username)
        except Disconnect as exc:
            raise asyncssh.DisconnectError(exc.why, exc.text) from None
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return await self._connection.ask(self._visitor.offers, Key(key.public_data))

    def auth_completed(self) -> None:
        self._connection.entered = True
        self._visitor.entered()

    def session_requested(self) -> Any:
        return self._connection.session_channel(), self._session()

    async def _session(self) -> SessionEvents:
        connection = self._connection
        return SessionEvents(connection.miniloop, connection, await connection.ask(self._visitor.session))

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        return self._connection.tcp_channel(), self._forward(self._visitor.forward_tcp, dest_host, dest_port)

    def unix_connection_requested(self, dest_path: str) -> Any:
        return self._connection.unix_channel(), self._forward(self._visitor.forward_unix, dest_path)

    async def _forward(self, ask: Callable[[*Ts], Awaitable[Handler]], *args: *Ts) -> ForwardEvents:
        connection = self._connection
        return ForwardEvents(connection.miniloop, connection, await connection.ask(ask, *args))

    def server_requested(self, listen_host: str, listen_port: int) -> Coroutine[Any, Any, Any]:
        return self._listen(self._visitor.listen_tcp, listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> Coroutine[Any, Any, Any]:
        return self._listen(self._visitor.listen_unix, listen_path)

    async def _listen(self, ask: Callable[[*Ts], Awaitable[Listening | None]], *args: *Ts) -> Any:
        listening = await self._connection.ask(ask, *args)
        return None if listening is None else Listener(listening)


class Listener(asyncssh.SSHListener):
    """A remote forward."""

    def __init__(self, listening: Listening) -> None:
        super().__init__()
        self._listening = listening

    def get_port(self) -> int:
        return self._listening.port

    def close(self) -> None:
        self._listening.close()
