"""Upgrades: after an answer of 101 that fits the question, bytes flow both ways until both sides have ended."""

from __future__ import annotations

import math

import trio
from trio.lowlevel import checkpoint

from connect_trio.dial import Failure
from connect_trio.edge.errors import ToolFailed, VisitorGone
from connect_trio.edge.exchange import Exchange
from connect_trio.edge.headers import response_lines, tokens, values
from connect_trio.edge.pool import Upstream
from connect_trio.edge.visitor import Phase, Visitor
from connect_trio.httpio import ResponseHead
from connect_trio.mux.buffers import Buffer

_SWITCHING = 101
_WRONG_PROTOCOL = Failure(status=502, part="tool", text="The tool switched to another protocol than was asked for.")


def switched_head(answer: ResponseHead, asked: tuple[bytes, ...]) -> bytes | None:
    """The 101 as it is passed on; None if it names no protocol, or one that was not `asked` for (RFC 9110, 7.8)."""
    chosen = tokens(answer.headers, b"upgrade")
    if not chosen or not set(chosen) <= set(asked) or b"upgrade" not in tokens(answer.headers, b"connection"):
        return None
    lines = response_lines(answer.headers, length=False)
    upgrade = b", ".join(values(answer.headers, b"upgrade"))
    return b"HTTP/1.1 101 %b\r\n%bUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % (
        answer.reason,
        b"".join(lines),
        upgrade,
    )


async def upgrade(exchange: Exchange, visitor: Visitor, lines: bytes, asked: tuple[bytes, ...]) -> None:
    """Ask the tool to switch; carry bytes if it does, pass its answer on if it does not.

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
            head = switched_head(answer, asked)
            if head is None:
                raise ToolFailed(_WRONG_PROTOCOL)
            visitor.watched = False
            visitor.phase = Phase.SWITCHED
            visitor.life.deadline = math.inf
            exchange.started = True
            await visitor.send_all(head + upstream.inbox.take(len(upstream.inbox)))
            await _carry(visitor, upstream)
            exchange.finished = True
            await upstream.stream.aclose()
        ended = True
    finally:
        visitor.watched = False
        visitor.tool = None
        if not ended:
            upstream.reset("the visitor's connection ended")


async def _carry(visitor: Visitor, upstream: Upstream) -> None:
    """Both directions; the end of one passes through as a half-close, an error ends both."""
    failures: list[ToolFailed | VisitorGone] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_to_visitor, visitor, upstream, failures, nursery.cancel_scope)
        await _to_tool(visitor, upstream, failures, nursery.cancel_scope)
    if failures:
        raise failures[0]


async def _to_tool(
    visitor: Visitor, upstream: Upstream, failures: list[ToolFailed | VisitorGone], both: trio.CancelScope
) -> None:
    try:
        early = visitor.inbox.take(len(visitor.inbox))
        if early:
            await upstream.send_all(early)
        while True:
            view, buffer = await visitor.receive(math.inf)
            if not view:
                break
            try:
                await upstream.send_all(view)
            finally:
                _drop(buffer)
            await checkpoint()
        await upstream.send_eof()
    except (ToolFailed, VisitorGone) as exc:
        failures.append(exc)
        both.cancel()


async def _to_visitor(
    visitor: Visitor, upstream: Upstream, failures: list[ToolFailed | VisitorGone], both: trio.CancelScope
) -> None:
    try:
        while True:
            view, buffer = await upstream.receive_view()
            if not view:
                break
            try:
                await visitor.send_all(view)
            finally:
                _drop(buffer)
            await checkpoint()
        visitor.socket.send_eof_now()
    except (ToolFailed, VisitorGone) as exc:
        failures.append(exc)
        both.cancel()


def _drop(buffer: Buffer | None) -> None:
    if buffer is not None:
        buffer.drop()
