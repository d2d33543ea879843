"""The edge as a whole: listening sockets, the tasks of the visitors, and how it all ends."""

from __future__ import annotations

import errno
import logging
import socket
from collections import OrderedDict
from collections.abc import Sequence

import trio

from connect_trio.context import serving
from connect_trio.dial import Dialer
from connect_trio.edge.boundaries import RESTART
from connect_trio.edge.context import Context, Counts, Limits, PickServer
from connect_trio.edge.forwarded import Forwarding, parse_address, parse_networks
from connect_trio.edge.framing import studio_ancestors
from connect_trio.edge.gate import Gate, Switch, never
from connect_trio.edge.http import LAST_WORD, Conversation
from connect_trio.edge.pages import Problem, new_id, serialise
from connect_trio.edge.pool import StreamPool
from connect_trio.edge.scopes import SessionScopes
from connect_trio.edge.visitor import Phase, Visitor, keep_alive
from connect_trio.identity.activity import Activity
from connect_trio.routing.names import HostNames
from connect_trio.transport.complaints import Complaints
from connect_trio.transport.sockets import Socket
from connect_trio.transport.trusted import Connect

log = logging.getLogger(__name__)

_BACKLOG = 4096
# In one turn of all tasks. Those who are here need many turns to be done, and Platform's answers must be read in time:
# where thousands come at once, they had better wait in the kernel.
_ACCEPTS_AT_ONCE = 8
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_EXHAUSTED_PAUSE = 0.1
_LOOK = 0.1
_LOOKED_AT = 32

GOODBYE = 2.0
"""Seconds at the end of a drain that visitors have to answer the close of their WebSockets; a fourth of it at most."""
STALLED = 5.0
"""Seconds of a drain in which no tunnel has gone: its agents have no other way."""

# What accept(2) reports about the connection instead of about the listening socket.
_CONNECTION_LOST = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR))


def open_listener(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A socket that listens on one address; port 0 picks a free one. Raises OSError, for example if it is in use.

    reuse_port: let other processes listen on the same port; the kernel spreads connections among them.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Edge:
    """Serves visitors and agents' tunnels over HTTP.

    scopes: what is open for which session; whoever learns that a session has ended calls `scopes.end`.
    activity: who is connected, and when their bytes passed last.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        dialer: Dialer,
        names: HostNames,
        pick_server: PickServer,
        connect: Connect,
        instance: bytes,
        limits: Limits | None = None,
        trusted_proxies: Sequence[str] = (),
        frame_ancestors: Sequence[str] = (),
        path_routing: Switch = never,
        scopes: SessionScopes | None = None,
    ) -> None:
        """connect: makes connections to what `pick_server` names. instance: 16 bytes that name this process.
        trusted_proxies: CIDRs of proxies in front, whose X-Forwarded-* count. frame_ancestors: origins whose pages may
        show Studios in frames. path_routing: whether Studios are below paths of Connect's own host, too. Raises
        ValueError for a bad network."""
        limits = limits or Limits()
        self.activity = Activity(trio.current_time)
        self.scopes = scopes if scopes is not None else SessionScopes()
        self._context = Context(
            instance=instance.hex(),
            gate=gate,
            dialer=dialer,
            names=names,
            pick_server=pick_server,
            connect=connect,
            forwarding=Forwarding(names.scheme, parse_networks(trusted_proxies)),
            limits=limits,
            scopes=self.scopes,
            activity=self.activity,
            pool=StreamPool(per_key=limits.streams_per_key, total=limits.streams, idle=limits.stream_idle),
            frame_ancestors=studio_ancestors(frame_ancestors),
            path_routing=path_routing,
        )
        self._visitors: OrderedDict[Visitor, None] = OrderedDict()
        self._complaints = Complaints()
        self._accepting = trio.CancelScope()
        self._everything = trio.CancelScope()
        self._deserted = trio.Event()

    @property
    def connections(self) -> int:
        """How many visitor connections, tunnels among them, are open."""
        return len(self._visitors)

    async def serve(
        self,
        listeners: Sequence[socket.socket],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve everybody who connects to these non-blocking listening sockets, which it closes in the end.

        Returns only after `drain`. Raises OSError if a listening socket breaks.
        """
        with self._everything:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_house)
                    await self._accept_all(listeners, nursery, task_status)
                    await trio.sleep_forever()  # until `drain` has ended
            finally:
                self._context.pool.close()

    async def _accept_all(
        self, listeners: Sequence[socket.socket], visitors: trio.Nursery, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener in listeners:
                        nursery.start_soon(self._accept, listener, visitors)
                    task_status.started()
        finally:
            for listener in listeners:
                self._accept_last(listener, visitors)
                listener.close()

    def _accept_last(self, listener: socket.socket, visitors: trio.Nursery) -> None:
        """Who has connected already is served: closing the listener would reset them."""
        for _ in range(_BACKLOG if self._context.draining else 0):
            try:
                sock, address = listener.accept()
            except OSError:  # nobody (else) is there
                return
            self._welcome(sock, address, visitors)

    @property
    def counts(self) -> Counts:
        return self._context.counts

    @property
    def tunnels(self) -> list[str]:
        """The session of each tunnel that passes through here."""
        return list(self._context.tunnels.values())

    @property
    def upgraded(self) -> int:
        """How many connections carry another protocol than HTTP, tunnels not counted."""
        return len(self._context.upgraded)

    async def drain(self, grace: float) -> None:
        """Accept nobody any more, let running requests end, and after `grace` seconds cut what is left.

        An answer that is yet to begin says `Connection: close`; connections between two requests are closed when none
        has come for LAST_WORD seconds, a fourth of the grace at most.
        WebSockets are closed with the code 1012 when the grace is nearly over. Nobody waits for tunnels that no agent
        replaces: it is over as soon as nothing else is left and none has gone for STALLED seconds.
        """
        context = self._context
        context.draining = True
        self._accepting.cancel()
        soon = trio.current_time() + min(LAST_WORD, grace / 4)
        for visitor in self._visitors:
            if visitor.phase is Phase.RESTING:
                visitor.life.deadline = min(visitor.life.deadline, soon)
        over = trio.current_time() + grace
        with trio.move_on_at(over - min(GOODBYE, grace / 4)):
            await self._until_left()
        if self._visitors:
            for upgraded in list(context.upgraded):
                upgraded.say_goodbye(RESTART, "Connect is being restarted")
            with trio.move_on_at(over):
                await self._until_left(patience=0)
        self._everything.cancel()
        await trio.lowlevel.checkpoint()

    async def _until_left(self, patience: float | None = None) -> None:
        """Until all visitors are gone, or only tunnels are left, of which none has gone for `patience` seconds."""
        patience = STALLED if patience is None else patience
        before, moved = 0, trio.current_time()
        while self._visitors:
            left = len(self._visitors)
            if left != before or left != len(self._context.tunnels):
                before, moved = left, trio.current_time()
            if trio.current_time() - moved >= patience and left == len(self._context.tunnels):
                log.info("%d tunnels are cut: their agents have found no other way", left)
                return
            with trio.move_on_after(_LOOK):
                await self._deserted.wait()

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPTS_AT_ONCE):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno in _CONNECTION_LOST:
                        continue
                    if exc.errno not in _EXHAUSTED:
                        raise
                    log.error("no more connections can be accepted for now: %s", exc.strerror)
                    await trio.sleep(_EXHAUSTED_PAUSE)
                    break
                self._welcome(sock, address, nursery)

    def _welcome(self, sock: socket.socket, address: object, nursery: trio.Nursery) -> None:
        limits = self._context.limits
        try:
            keep_alive(sock)
            connection = Socket(sock)
        except OSError as exc:  # gone already
            log.debug("a connection was lost before it was served: %s", exc)
            sock.close()
            return
        if len(self._visitors) >= limits.connections and not self._make_room():
            self._turn_away(connection)
            return
        peer = str(address[0]) if isinstance(address, tuple) and address else "unknown"
        peer = str(parse_address(peer) or peer)  # IPv4 as such, where it came in by a socket for IPv6
        visitor = Visitor(
            connection,
            peer,
            head_size=limits.head_size,
            stall=limits.stall,
            buffers=self._context.buffers,
        )
        self._visitors[visitor] = None
        nursery.start_soon(self._visit, visitor)

    def _make_room(self) -> bool:
        """End a connection that asks for nothing at the moment, or takes long to say what; whether there was one.

        Whoever holds all of them open like that locks nobody out. A few are looked at each time, in turn; of these it
        is the one whose time would be over first.
        """
        found = []
        for _ in range(min(_LOOKED_AT, len(self._visitors))):
            visitor = next(iter(self._visitors))
            self._visitors.move_to_end(visitor)
            if visitor.phase in (Phase.RESTING, Phase.HEAD) and not visitor.life.cancel_called:
                found.append(visitor)
        if not found:
            return False
        min(found, key=lambda visitor: visitor.life.deadline).life.cancel()
        self._complain("there are too many connections; idle ones make room for new ones")
        return True

    def _turn_away(self, connection: Socket) -> None:
        problem = Problem(status=503, part="proxy", text="There are too many connections.")
        self._complain(f"[{problem.id}] turned a visitor away: {problem.text}")
        try:
            connection.send_now(serialise(problem.reply(html=False), method=b"GET", close=True))
        except trio.BrokenResourceError as exc:
            log.debug("the visitor did not wait for the reason: %s", exc)
        connection.close()

    def _complain(self, text: str) -> None:
        left_out = self._complaints.admit(trio.current_time())
        if left_out is not None:
            log.warning("%s", text, extra={"left_out": left_out})

    async def _visit(self, visitor: Visitor) -> None:
        try:
            with serving(new_id()):
                await Conversation(self._context, visitor).run()
        finally:
            self._visitors.pop(visitor, None)
            if not self._visitors and self._context.draining:
                self._deserted.set()

    async def _keep_house(self) -> None:
        """Now and then: notice visitors that hung up, give up streams that nobody uses, hold clocks."""
        limits = self._context.limits
        seen: set[Visitor] = set()
        before = sampled = trio.current_time()
        while True:
            await trio.sleep(limits.housekeeping)
            self._context.pool.age()
            before, passed = trio.current_time(), trio.current_time() - before
            sample = before - sampled >= limits.sample
            if sample:
                sampled = before
            for visitor in self._visitors:
                visitor.hold_clocks(passed)
                if sample:
                    visitor.sample(before)
            watched = {visitor for visitor in self._visitors if visitor.watched}
            for visitor in watched & seen:
                visitor.look(trio.current_time(), limits.half_closed)
            seen = watched
