"""Upgrades: after an answer of 101 that fits the question, bytes flow both ways until both sides have ended."""

from __future__ import annotations

import math

import trio
from trio.lowlevel import checkpoint

from connect_trio.dial import Failure
from connect_trio.edge.boundaries import POLICY, FrameFollower, close_frame
from connect_trio.edge.context import Context
from connect_trio.edge.errors import ToolFailed, VisitorGone
from connect_trio.edge.exchange import Exchange
from connect_trio.edge.headers import response_lines, tokens, values
from connect_trio.edge.path_headers import PathMode
from connect_trio.edge.pool import Upstream
from connect_trio.edge.requests import Judged
from connect_trio.edge.scopes import Hold, Kind
from connect_trio.edge.visitor import Phase, Visitor
from connect_trio.httpio import ResponseHead
from connect_trio.mux.buffers import Buffer

_SWITCHING = 101
_WEBSOCKET = (b"websocket",)
_THROWN_OUT = "the visitor may not use this Studio any more"
_WRONG_PROTOCOL = Failure(status=502, part="tool", text="The tool switched to another protocol than was asked for.")


def switched_head(answer: ResponseHead, asked: tuple[bytes, ...], paths: PathMode | None = None) -> bytes | None:
    """The 101 as it is passed on; None if it names no protocol, or one that was not `asked` for (RFC 9110, 7.8)."""
    chosen = tokens(answer.headers, b"upgrade")
    if not chosen or not set(chosen) <= set(asked) or b"upgrade" not in tokens(answer.headers, b"connection"):
        return None
    lines = response_lines(answer.headers, length=False, paths=paths)
    upgrade = b", ".join(values(answer.headers, b"upgrade"))
    return b"HTTP/1.1 101 %b\r\n%bUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % (
        answer.reason,
        b"".join(lines),
        upgrade,
    )


async def upgrade(
    context: Context, exchange: Exchange, visitor: Visitor, lines: bytes, judged: Judged, hold: Hold
) -> None:
    """Ask the tool to switch; carry bytes if it does, pass its answer on if it does not.

    hold: of this exchange; what it is and how it is ended changes with the protocol.
    The visitor's connection ends afterwards either way: one that has already sent bytes of the other protocol must
    not have them read as its next request. Raises DialError, ToolFailed and VisitorGone.
    """
    upstream = await exchange.dial()
    ended = False
    visitor.tool = upstream.stream
    try:
        await upstream.send_all(lines)
        exchange.uploaded = True
        visitor.watch()
        answer = await exchange.final_head(upstream, switching=True)
        if answer.status != _SWITCHING:
            await exchange.relay(upstream, answer, last=True)
        else:
            head = switched_head(answer, judged.upgrade, exchange.paths)
            if head is None:
                raise ToolFailed(_WRONG_PROTOCOL)
            visitor.watched = False
            visitor.phase = Phase.SWITCHED
            visitor.life.deadline = math.inf
            exchange.started = True
            websocket = judged.upgrade == _WEBSOCKET
            upgraded = Upgraded(visitor, upstream, websocket=websocket)
            hold.kind = Kind.WEBSOCKET if websocket else Kind.UPGRADED
            hold.farewell = upgraded.throw_out
            try:
                await upgraded.run(context, head)
            finally:
                exchange.finished = upgraded.parted  # then its end is no surprise
            exchange.finished = True
            if upgraded.muted:
                upstream.reset(_THROWN_OUT)
            else:
                await upstream.stream.aclose()
        ended = True
    finally:
        visitor.watched = False
        visitor.tool = None
        if not ended:
            upstream.reset("the visitor's connection ended")


class Upgraded:
    """One upgraded connection: both directions; the end of one passes through as a half-close, an error ends both.

    parted: whether the visitor was told that this is the end. muted: whether it is not to say anything more.
    """

    def __init__(self, visitor: Visitor, upstream: Upstream, *, websocket: bool) -> None:
        self._visitor = visitor
        self._upstream = upstream
        self._frames = FrameFollower() if websocket else None
        self._failures: list[ToolFailed | VisitorGone] = []
        self._waiting = trio.CancelScope()  # around what the tool sends, as long as it may say what it likes
        self._sending = False
        self._farewell: bytes | None = None
        self.parted = False
        self.muted = False

    async def run(self, context: Context, head: bytes) -> None:
        """Raises ToolFailed and VisitorGone."""
        early = bytes(self._upstream.inbox.take(len(self._upstream.inbox)))
        context.upgraded.add(self)
        context.counts.answers[1] += 1
        try:
            if self._frames is None:
                context.counts.others += 1
            else:
                context.counts.websockets += 1
                self._frames.feed(early)
            await self._visitor.send_all(head + early)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._to_visitor, nursery.cancel_scope)
                await self._to_tool(nursery.cancel_scope)
        finally:
            context.upgraded.discard(self)
        if self._failures:
            raise self._failures[0]

    def say_goodbye(self, code: int, reason: str) -> None:
        """Close a WebSocket with this code, once the frame that is on its way to the visitor is whole.

        The rest is the visitor's to do: its answer passes to the tool, and ends the connection. Other protocols have
        no words for this. Whoever calls bounds the time.
        """
        if self._frames is None or self._frames.closed or self._farewell is not None:
            return
        self._farewell = close_frame(code, reason)
        if not self._sending:
            self._waiting.cancel()

    def throw_out(self, reason: str) -> bool:
        """From now on nothing of the visitor reaches the tool, and it is told why; False if there are no words for it.

        Whoever calls bounds the time, also where nothing can pass at the moment.
        """
        self.muted = True
        self._visitor.tool = None  # its clock is not held any more while the way to the tool is lost
        self.say_goodbye(POLICY, reason)
        return self._frames is not None

    def _leaving(self) -> bool:
        return self._farewell is not None

    async def _to_tool(self, both: trio.CancelScope) -> None:
        visitor, upstream = self._visitor, self._upstream
        try:
            early = visitor.inbox.take(len(visitor.inbox))
            if early:
                await upstream.send_all(early)
            while True:
                view, buffer = await visitor.receive(math.inf)
                if not view:
                    break
                try:
                    if not self.muted:
                        await upstream.send_all(view)
                except ToolFailed:
                    if not self.muted:
                        raise
                finally:
                    _drop(buffer)
                await checkpoint()
            if not self.muted:
                await upstream.send_eof()
        except (ToolFailed, VisitorGone) as exc:
            self._failures.append(exc)
            both.cancel()

    async def _to_visitor(self, both: trio.CancelScope) -> None:
        visitor = self._visitor
        try:
            with self._waiting:
                await self._relay()
            if self._farewell is not None:
                await self._take_leave(self._farewell)
            if self.muted:
                self._upstream.reset(_THROWN_OUT)
            visitor.socket.send_eof_now()
        except (ToolFailed, VisitorGone) as exc:
            self._failures.append(exc)
            both.cancel()

    async def _relay(self) -> None:
        """Until the tool has ended, or somebody wants to take leave."""
        visitor, upstream, frames = self._visitor, self._upstream, self._frames
        while not self._leaving():
            view, buffer = await upstream.receive_view()
            if not view:
                return
            try:
                self._sending = True
                if self._leaving():  # said between its arrival and now: our scope is cancelled already
                    with trio.CancelScope(shield=True):
                        await self._finish_frame(view)
                    return
                if frames is not None:
                    frames.feed(view)
                await visitor.send_all(view)
            finally:
                self._sending = False
                _drop(buffer)
            await checkpoint()

    async def _take_leave(self, farewell: bytes) -> None:
        """Pass on what is left of the frame that has begun, then say goodbye."""
        frames = self._frames
        assert frames is not None, "only who follows frames can take leave"
        while not frames.between:
            view, buffer = await self._upstream.receive_view()
            if not view:
                return
            try:
                await self._finish_frame(view)
            finally:
                _drop(buffer)
        if not frames.closed:
            await self._visitor.send_all(farewell)
        self.parted = True

    async def _finish_frame(self, view: memoryview | bytes) -> None:
        assert self._frames is not None, "only who follows frames can take leave"
        await self._visitor.send_all(view[: self._frames.feed_to_boundary(view)])


def _drop(buffer: Buffer | None) -> None:
    if buffer is not None:
        buffer.drop()
