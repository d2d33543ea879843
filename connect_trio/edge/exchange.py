"""One request carried to a tool and its answer carried back.

On the common path, where the whole request is already here, there is no task and no nursery: one write to the tool,
one to the visitor. A request whose body still has to come is uploaded by a second task, since the tool may answer
before it has read everything, or may have to be heard before the visitor sends it (Expect: 100-continue).
"""

from __future__ import annotations

import logging
import math
import time

import trio

from connect_trio.dial import Failure, Target
from connect_trio.edge.bodies import relay_chunked, relay_length, relay_rest
from connect_trio.edge.context import Context
from connect_trio.edge.errors import Elsewhere, Refusal, ToolFailed, VisitorGone, bad_request
from connect_trio.edge.gate import Admission, Reply
from connect_trio.edge.headers import response_lines
from connect_trio.edge.path_headers import PathMode
from connect_trio.edge.planned import sunset
from connect_trio.edge.pool import NOT_HTTP, Upstream
from connect_trio.edge.visitor import Visitor
from connect_trio.httpio import HttpError, RequestHead, ResponseHead

log = logging.getLogger(__name__)

_MAX_INTERIM = 64
_NO_CONTENT = 204
_NOT_FOUND = 404
_NOT_MODIFIED = 304
_SWITCHING = 101

# What may be sent a second time if a reused stream turns out to be dead (RFC 9110, section 9.2.2). Other requests
# get a new stream each, so that they never meet a tool that is just closing an idle connection.
_REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS"))

_UNASKED = Failure(status=502, part="tool", text="The tool switched to another protocol that nobody asked for.")
_ENDLESS = Failure(status=502, part="tool", text="The tool sent interim answers without end.")


class Exchange:
    """One exchange with a tool. It resets its stream to the tool unless it came to a good end.

    lines: the request's head for the tool, complete with its empty line. started: whether the visitor has received
    any part of the final answer. finished: whether it received all of it. uploaded: whether the request was sent whole.
    paths: of a Studio below a path. elsewhere: where to look for what the tool does not find, None for nowhere.
    """

    def __init__(
        self,
        context: Context,
        visitor: Visitor,
        head: RequestHead,
        lines: bytes,
        admission: Admission,
        *,
        paths: PathMode | None = None,
        elsewhere: Reply | None = None,
    ) -> None:
        self._context = context
        self._visitor = visitor
        self._head = head
        self._lines = lines
        self._admission = admission
        self.paths = paths
        self._elsewhere = elsewhere
        self.started = False
        self.finished = False
        self.uploaded = False
        self._upload_failure: VisitorGone | Refusal | None = None

    async def run(self) -> bool:
        """Carry the request out; whether the visitor's connection can carry another one.

        Raises DialError, ToolFailed, VisitorGone, Refusal and Elsewhere; `started` tells whether anybody can still be
        told.
        """
        length, inbox = self._head.length, self._visitor.inbox
        if length is None or len(inbox) < length:
            return await self._carry(await self.dial(), None)
        request = self._lines + inbox.take(length) if length else self._lines
        self.uploaded = True
        if self._head.method in _REPEATABLE:
            upstream = self._context.pool.take(self._admission.key)
            if upstream is not None:
                try:
                    return await self._carry(upstream, request)
                except ToolFailed:
                    if not upstream.silent:
                        raise
        return await self._carry(await self.dial(), request)

    async def dial(self) -> Upstream:
        """A new stream to the tool. Raises DialError."""
        stream = await self._context.dialer.dial(Target(grant=self._admission.grant))
        return Upstream(stream, self._admission.key, head_size=self._context.limits.head_size)

    async def _carry(self, upstream: Upstream, request: bytes | None) -> bool:
        """Over this stream; without `request`, the body is uploaded meanwhile."""
        whole = False
        self._visitor.tool = upstream.stream
        try:
            if request is None:
                keep = await self._answer_while_uploading(upstream)
            else:
                await upstream.send_all(request)
                self._visitor.watch()
                keep = await self.relay(upstream, await self.final_head(upstream))
            whole = True
            return keep
        finally:
            self._visitor.watched = False
            self._visitor.tool = None
            if not whole:
                upstream.reset("the exchange did not come to its end")

    async def _answer_while_uploading(self, upstream: Upstream) -> bool:
        failure: ToolFailed | VisitorGone | None = None
        keep = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._upload, upstream, nursery.cancel_scope)
            try:
                keep = await self.relay(upstream, await self.final_head(upstream))
            except (ToolFailed, VisitorGone) as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if self._upload_failure is not None and not self.finished:
            raise self._upload_failure
        if failure is not None:
            raise failure
        return keep

    async def _upload(self, upstream: Upstream, exchange: trio.CancelScope) -> None:
        head, visitor = self._head, self._visitor
        visitor.life.deadline = math.inf  # while the visitor sends, its own stalling is what counts
        try:
            if head.length is None:
                await relay_chunked(self._lines, visitor.inbox, visitor, upstream, chunked=True)
            else:
                await relay_length(self._lines, head.length, visitor.inbox, visitor, upstream)
            self.uploaded = True
            visitor.watch()
        except ToolFailed as exc:
            # The tool reads no more. It may have answered all the same; whoever reads its answer will see.
            log.debug("a tool took only a part of a request: %s", exc)
        except VisitorGone as exc:
            self._upload_failure = exc
            exchange.cancel()
        except HttpError as exc:
            self._upload_failure = Refusal(bad_request(exc), close=True)
            exchange.cancel()
        if not self.started:
            visitor.life.deadline = trio.current_time() + self._context.limits.answer

    async def final_head(self, upstream: Upstream, *, switching: bool = False) -> ResponseHead:
        """The tool's final head; interim ones are passed on. With `switching`, a 101 counts as final.

        Raises ToolFailed and VisitorGone.
        """
        for _ in range(_MAX_INTERIM):
            answer = await upstream.read_head(self._head.method)
            if answer.status >= 200 or (switching and answer.status == _SWITCHING):
                return answer
            if answer.status == _SWITCHING:
                raise ToolFailed(_UNASKED)
            if self._head.version >= b"1.1":  # RFC 9110, section 15.2: HTTP/1.0 knows no interim answers
                lines = response_lines(answer.headers, length=False, paths=self.paths)
                await self._visitor.send_all(
                    b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))
                )
        raise ToolFailed(_ENDLESS)

    async def relay(self, upstream: Upstream, answer: ResponseHead, *, last: bool = False) -> bool:
        """Pass the final answer on, and the stream to the pool if it can be used again.

        last: nothing is to follow, neither on the visitor's connection nor on the stream. Returns whether the visitor's
        connection can carry another request. Raises ToolFailed, VisitorGone and Elsewhere.
        """
        if answer.status == _NOT_FOUND and self._elsewhere is not None:
            raise Elsewhere(self._elsewhere)
        visitor, inbox = self._visitor, upstream.inbox
        uploaded = self.uploaded
        close = last or not self._head.keep_alive or not uploaded or self._context.draining
        chunked = answer.length is None and self._head.version >= b"1.1"
        head = _head_lines(
            answer, chunked=chunked, close=close, ancestors=self._context.frame_ancestors, paths=self.paths
        )
        ends_at = self._context.scopes.planned.get(self._admission.session)
        if ends_at is not None:
            head = head[:-2] + sunset(ends_at, time.time()) + b"\r\n"
        self.started = True
        self._context.counts.answers[answer.status // 100] += 1
        try:
            if answer.length is None:
                visitor.life.deadline = math.inf  # a tool may be silent for as long as it likes within its answer
                carry = relay_chunked if answer.chunked else relay_rest
                await carry(head, inbox, upstream, visitor, chunked=chunked)
            else:
                if len(inbox) < answer.length:
                    visitor.life.deadline = math.inf
                await relay_length(head, answer.length, inbox, upstream, visitor)
        except HttpError as exc:
            raise ToolFailed(NOT_HTTP) from exc
        self.finished = True
        if uploaded and not last and answer.keep_alive and not inbox and upstream.stream.healthy:
            self._context.pool.put(upstream)
        elif self.uploaded:
            await upstream.stream.aclose()
        else:
            upstream.reset("answered before the request was read")
        return not close


def _head_lines(answer: ResponseHead, *, chunked: bool, close: bool, ancestors: bytes, paths: PathMode | None) -> bytes:
    length = answer.length is not None and answer.status != _NO_CONTENT
    not_modified = answer.status == _NOT_MODIFIED
    lines = response_lines(answer.headers, length=length, ancestors=ancestors, not_modified=not_modified, paths=paths)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))
