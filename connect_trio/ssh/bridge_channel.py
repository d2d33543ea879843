"""Channels between asyncssh and our handlers: its callbacks become theirs, their calls become its methods."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple

import asyncssh
from asyncssh.channel import SSHAgentChannel
from asyncssh.packet import SSHPacket

from connect_trio.channels.messages import Exec, Shell, Size, Subsystem
from connect_trio.ssh.bridge_bounds import Received
from connect_trio.ssh.client import Handler, SessionHandler
from connect_trio.ssh.loop import Loop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_SIZE = 0xFFFF  # columns, rows and pixels of a terminal

logger = logging.getLogger(__name__)


class Holder(Protocol):
    """The connection of a channel."""

    @property
    def may_write(self) -> bool:
        """Whether the client takes data, and no new keys are being agreed on."""
        ...

    def holds(self, events: Events, here: bool) -> None:
        """A channel has been opened, or closed."""
        ...


class BridgeChannel:
    """`client.Channel` over a channel of asyncssh."""

    def __init__(self, loop: Loop, holder: Holder, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._loop = loop
        self._holder = holder
        self._channel = channel
        self.gone = False

    @property
    def writable(self) -> bool:
        return not self.gone and self._holder.may_write and not self._channel.get_write_buffer_size()

    def write(self, data: bytes | memoryview, *, stderr: bool = False) -> None:
        self._call(self._channel.write, data, asyncssh.EXTENDED_DATA_STDERR if stderr else None)

    def write_eof(self) -> None:
        self._call(self._channel.write_eof)

    def exit(self, status: int) -> None:
        self._call(self._channel.exit, status)

    def exit_signal(self, name: str, core_dumped: bool, message: str) -> None:
        self._call(self._channel.exit_with_signal, name, core_dumped, message)

    def close(self) -> None:
        self._call(self._channel.close)

    def abort(self) -> None:
        self._call(self._channel.abort)

    def pause_reading(self) -> None:
        self._call(self._channel.pause_reading)

    def resume_reading(self) -> None:
        self._call(self._channel.resume_reading)

    def _call(self, method: Callable[[*Ts], object], *args: *Ts) -> None:
        if self.gone:
            return
        with self._loop.entered():
            try:
                method(*args)
            except OSError as exc:  # the client has closed it, of which we are about to be told
                logger.debug("a channel takes no more: %s", exc)


class Events:
    """What asyncssh tells of one channel. A bug in a handler ends its channel, loudly, and nobody else's."""

    def __init__(self, loop: Loop, holder: Holder, handler: Handler) -> None:
        self._loop = loop
        self._holder = holder
        self.handler = handler
        self.channel: BridgeChannel | None = None

    def connection_made(self, chan: Any) -> None:
        chan.set_write_buffer_limits(high=0)  # what cannot be sent now had better wait at its source
        self.channel = BridgeChannel(self._loop, self._holder, chan)
        self._holder.holds(self, True)
        self._guard(self.handler.opened, self.channel)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.channel is None or self.channel.gone:
            return
        self.channel.gone = True
        self._holder.holds(self, False)
        self._guard(self.handler.closed)

    def session_started(self) -> None:
        """Of no interest."""

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._guard(self.handler.data, bytes(data))

    def eof_received(self) -> bool:
        self._guard(self.handler.eof)
        return True  # our direction goes on

    def pause_writing(self) -> None:
        """`BridgeChannel.writable` says it."""

    def resume_writing(self) -> None:
        if self._holder.may_write:
            self._guard(self.handler.writable)

    def _guard(self, function: Callable[[*Ts], T], *args: *Ts) -> T | None:
        try:
            return function(*args)
        except Exception:
            logger.exception("a channel failed: this is a bug")
            if self.channel is not None:
                self.channel.abort()
            return None


class ForwardEvents(Events, asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """Of a channel that carries bytes, and nothing else."""


class SessionEvents(Events, asyncssh.SSHServerSession[bytes]):
    """Of a channel of the type "session"."""

    def __init__(self, loop: Loop, holder: Holder, handler: SessionHandler) -> None:
        super().__init__(loop, holder, handler)
        self.session = handler

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:
        return bool(self._guard(self.session.pty, term_type, _size(*term_size), dict(term_modes)))

    def shell_requested(self) -> bool:
        return bool(self._guard(self.session.start, Shell()))

    def exec_requested(self, command: str) -> bool:
        return bool(self._guard(self.session.start, Exec(command.encode("utf-8", "surrogateescape"))))

    def subsystem_requested(self, subsystem: str) -> bool:
        return bool(self._guard(self.session.start, Subsystem(subsystem)))

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._guard(self.session.resize, _size(width, height, pixwidth, pixheight))

    def signal_received(self, signal: str) -> None:
        self._guard(self.session.signal, signal)

    def break_received(self, msec: int) -> bool:
        return False

    def env(self, name: bytes, value: bytes) -> bool:
        return bool(self._guard(self.session.env, name, value))

    def forward_agent(self) -> bool:
        return bool(self._guard(self.session.forward_agent))


def _size(width: int, height: int, pixwidth: int, pixheight: int) -> Size:
    return Size(*(min(number, MAX_SIZE) for number in (width, height, pixwidth, pixheight)))


class _Bounded:
    """A channel whose memory is that of its window, however it is filled."""

    _recv_buf: list[tuple[bytes, asyncssh.DataType]]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._recv_buf = Received()


class TcpChannel(_Bounded, asyncssh.SSHTCPChannel[bytes]):
    pass


class UnixChannel(_Bounded, asyncssh.SSHUNIXChannel[bytes]):
    pass


class AgentChannel(_Bounded, SSHAgentChannel):
    pass


class SessionChannel(_Bounded, asyncssh.SSHServerChannel[bytes]):
    """asyncssh keeps all that a client says of its environment, makes the socket of a forwarded agent here, and takes
    a command only if it is UTF-8, which names of files need not be."""

    def _events(self) -> SessionEvents | None:
        session: object = self._session
        return session if isinstance(session, SessionEvents) else None

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command=command.decode("utf-8", "surrogateescape"))

    def _process_env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        events = self._events()
        return events is not None and events.env(name, value)

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:  # type: ignore[override]
        packet.check_end()
        events = self._events()
        return events is not None and events.forward_agent()
