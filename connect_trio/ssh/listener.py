"""The SSH edge as a whole: who connects, how many at once, and how it ends."""

from __future__ import annotations

import errno
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import trio

from connect_trio.dial import Dialer
from connect_trio.identity.activity import Activity
from connect_trio.ssh.behind import BehindProxy
from connect_trio.ssh.bridge import Engine, open_engine, turn_away
from connect_trio.ssh.bridge_keys import HostKey
from connect_trio.ssh.client import Why
from connect_trio.ssh.crowd import Crowd, Guest, Turned
from connect_trio.ssh.keys import KeyChecker
from connect_trio.ssh.login import Authorize
from connect_trio.ssh.places import Counts
from connect_trio.ssh.scopes import Scopes
from connect_trio.ssh.visitor import House, SshVisitor

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_EXHAUSTED_PAUSE: Final = 0.1
_CONNECTION_LOST: Final = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR))
_TURNED_AWAY_AT_ONCE: Final = 64  # who are told why; others are just closed

MEMORY: Final = 512 * 1024 * 1024
"""Bytes that all channels together may keep in one direction: with many, each may keep less, though not too little."""
WINDOW_MOST: Final = 1024 * 1024
WINDOW_LEAST: Final = 8 * 1024
"""All channels that there may be by default, 2,000 times 30, fit with this."""

RESTART: Final = "Connect is being restarted; connect again"

logger = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network


class SshEdge:
    """Serves SSH clients."""

    def __init__(
        self,
        *,
        host_key: HostKey,
        checker: KeyChecker,
        authorize: Authorize,
        dialer: Dialer,
        scopes: Scopes,
        activity: Activity | None = None,
        max_connections: int = 2000,
        max_channels: int = 30,
        handshake_timeout: float = 60.0,
        trusted_proxies: Sequence[Network] = (),
        rekey_bytes: int | None = None,
    ) -> None:
        """scopes: knows and ends what is open. activity: who is told of those who are logged in, and when their bytes
        pass. handshake_timeout: seconds until a client must be logged in. trusted_proxies: balancers that may send a
        PROXY header; many clients may share their addresses. rekey_bytes: after how many bytes new keys are agreed
        on, None for the usual.
        """
        self.crowd = Crowd(max_connections)
        self._house = House(
            checker=checker,
            authorize=authorize,
            dialer=dialer,
            scopes=scopes,
            activity=Activity(trio.current_time) if activity is None else activity,
            channels=max_channels,
            window=self._window,
        )
        self._host_key = host_key
        self._timeout = handshake_timeout
        self._rekey_bytes = rekey_bytes
        self._trusted = tuple(trusted_proxies)
        self._visitors: dict[SshVisitor, Guest] = {}
        self._kicks: dict[Guest, Callable[[], None]] = {}
        self._turned = 0
        self._deserted = trio.Event()
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope()

    @property
    def host_key(self) -> HostKey:
        return self._host_key

    @property
    def counts(self) -> Counts:
        return self._house.counts

    @property
    def connections(self) -> int:
        return len(self.crowd)

    def _window(self) -> int:
        """Bytes that a new channel may keep of what its client sends: less, the more channels there are."""
        return max(WINDOW_LEAST, min(WINDOW_MOST, MEMORY // (self.counts.open + 1)))

    async def serve(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve everybody who connects to this non-blocking listening socket, which it closes in the end.

        Returns only after `drain`. Raises OSError if the listening socket breaks.
        """
        with self._everything:
            async with (
                open_engine(
                    self._host_key,
                    login_timeout=self._timeout,
                    window=self._window,
                    rekey_bytes=self._rekey_bytes,
                ) as engine,
                trio.open_nursery() as nursery,
            ):
                try:
                    with self._accepting:
                        task_status.started()
                        await self._accept(listener, engine, nursery)
                finally:
                    listener.close()
                await trio.sleep_forever()  # until `drain` has ended

    async def drain(self, grace: float) -> None:
        """Accept nobody any more; who is still here after `grace` seconds is told so, and goes."""
        self._accepting.cancel()
        over = trio.current_time() + grace
        with trio.move_on_at(over - min(2.0, grace / 4)):
            await self._until_left()
        for visitor in list(self._visitors):
            if visitor.logged_in:
                visitor.end(RESTART)
        with trio.move_on_at(over):
            await self._until_left()
        self._everything.cancel()
        await trio.lowlevel.checkpoint()

    async def _until_left(self) -> None:
        while self._visitors:
            self._deserted = trio.Event()
            await self._deserted.wait()

    async def _accept(self, listener: socket.socket, engine: Engine, nursery: trio.Nursery) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(listener)
                continue
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    logger.error("no more SSH connections can be accepted for now: %s", exc.strerror)
                    await trio.sleep(_EXHAUSTED_PAUSE)
                elif exc.errno not in _CONNECTION_LOST:
                    raise
                continue
            try:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                local = sock.getsockname()
            except OSError:  # gone already
                sock.close()
            else:
                nursery.start_soon(self._serve, stream, _address(address), _address(local), engine)
            await trio.lowlevel.checkpoint()

    async def _serve(
        self, stream: trio.SocketStream, peer: tuple[str, int], local: tuple[str, int], engine: Engine
    ) -> None:
        """One connection. Whatever goes wrong with it ends nobody else's."""
        trusted = any(ip_address(peer[0]) in network for network in self._trusted)
        try:
            guest, stale = self.crowd.arrives(None if trusted else peer[0], trio.current_time())
        except Turned as exc:
            await self._turn_away(stream, str(exc))
            return
        if stale is not None and stale in self._kicks:
            self._kicks[stale]()
        failed = False
        try:
            failed = await self._visit(stream, peer, local, engine, guest, trusted=trusted)
        except Exception:
            logger.exception("an SSH connection failed: this is a bug")
        finally:
            self.crowd.leaves(guest, trio.current_time(), failed=failed)
            await trio.aclose_forcefully(stream)

    async def _visit(
        self,
        stream: trio.SocketStream,
        peer: tuple[str, int],
        local: tuple[str, int],
        engine: Engine,
        guest: Guest,
        *,
        trusted: bool,
    ) -> bool:
        """Whether a login was tried in vain."""
        scope = trio.CancelScope()
        visitor = SshVisitor(
            self._house,
            id=secrets.token_hex(4),
            peer=peer,
            local=local,
            scope=scope,
            on_entered=lambda: self.crowd.enters(guest),
        )
        taken: trio.abc.HalfCloseableStream = stream
        if trusted:
            taken = BehindProxy(stream, lambda source: self._located(visitor, guest, source))
        self._visitors[visitor] = guest
        self._kicks[guest] = scope.cancel
        try:
            with visitor, scope:
                await engine.serve(taken, visitor, peer=peer)
        finally:
            del self._visitors[visitor], self._kicks[guest]
            if not self._visitors:
                self._deserted.set()
        return visitor.failed

    def _located(self, visitor: SshVisitor, guest: Guest, source: tuple[str, int]) -> None:
        """A balancer has said whose connection this is."""
        visitor.peer = source
        try:
            self.crowd.locate(guest, source[0], trio.current_time())
        except Turned as exc:
            self._house.counts.turned_away += 1
            visitor.refuse(str(exc))

    async def _turn_away(self, stream: trio.SocketStream, text: str) -> None:
        self._house.counts.turned_away += 1
        if self._turned >= _TURNED_AWAY_AT_ONCE:
            await trio.aclose_forcefully(stream)
            return
        self._turned += 1
        logger.debug("ssh: a connection is turned away: %s", text)
        try:
            await turn_away(stream, Why.TOO_MANY_CONNECTIONS, text)
        finally:
            self._turned -= 1


def _address(address: object) -> tuple[str, int]:
    """Of a socket, IPv4 as such where it came in by a socket for IPv6."""
    assert isinstance(address, tuple)
    host, port = str(address[0]).partition("%")[0], int(address[1])
    parsed = ip_address(host)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed), port
