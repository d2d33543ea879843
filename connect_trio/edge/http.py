"""One visitor connection: its requests in turn, each judged, admitted and answered, until either side ends it."""

from __future__ import annotations

import logging
import math

import attrs
import trio
from trio.lowlevel import checkpoint

from connect_trio.dial import DialError, Failure
from connect_trio.edge.bodies import BodyTooLarge, collect
from connect_trio.edge.context import Context
from connect_trio.edge.errors import Elsewhere, Refusal, ToolFailed, VisitorGone, bad_request
from connect_trio.edge.exchange import Exchange
from connect_trio.edge.gate import NOBODY, Admission, Reply, VisitorRequest
from connect_trio.edge.headers import values
from connect_trio.edge.pages import Problem, serialise
from connect_trio.edge.requests import Judge, Judged, below_prefix, check_origin, lines_for_tool, moved, wants_html
from connect_trio.edge.scopes import Cause, Ending, Kind
from connect_trio.edge.targets import Reach
from connect_trio.edge.tunnels import forward, is_tunnel
from connect_trio.edge.upgrade import upgrade
from connect_trio.edge.visitor import Phase, Visitor
from connect_trio.httpio import HttpError, RequestHead, read_request

log = logging.getLogger(__name__)

_NOT_FOUND = "There is no such page here."
_UNAVAILABLE = 503
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

LAST_WORD = 2.0
"""Seconds of a drain that a connection has for a request that is on its way: whoever sent it, a load balancer for one,
was told nothing of the drain yet, and could not know whether to send it again."""


class Conversation:
    """Everything that is said on one visitor connection; `run` owns the connection and closes it."""

    def __init__(self, context: Context, visitor: Visitor) -> None:
        self._context = context
        self._visitor = visitor
        self._judge = Judge(context, visitor.peer)
        self._head: RequestHead | None = None
        self._exchange: Exchange | None = None
        self._switching = False  # whether the request asks for an upgrade
        self._frame_ancestors = NOBODY

    async def run(self) -> None:
        """Serve requests until the connection ends. Raises nothing but trio.Cancelled."""
        visitor = self._visitor
        try:
            with visitor.life:
                await self._serve()
            if visitor.life.cancelled_caught:
                self._say_why()
        except VisitorGone as exc:
            log.debug("visitor %s is gone: %s", visitor.peer, exc)
            visitor.socket.abort()
        except Exception:
            problem = Problem(status=500, part="proxy", text="Connect failed while it handled this request.")
            log.exception("[%s] a request of visitor %s failed inside of Connect", problem.id, visitor.peer)
            self._last_words(problem)
        finally:
            # A short answer must not look whole: where it is cut, the visitor sees a reset and not an end.
            if self._cut:
                visitor.socket.abort()
            visitor.socket.close()

    async def _serve(self) -> None:
        visitor, context = self._visitor, self._context
        try:
            while (head := await self._read_head()) is not None:
                self._head = head
                if not await self._respond(head):
                    break
                self._head = self._exchange = None
                if visitor.inbox:
                    await checkpoint()  # a visitor that pipelines its requests must not starve the others
        except HttpError as exc:
            await self._tell(bad_request(exc), close=True)
        if visitor.phase is not Phase.SWITCHED and self._unread and not self._cut:
            visitor.life.deadline = math.inf
            await visitor.linger(context.limits.linger)

    @property
    def _cut(self) -> bool:
        """Whether an answer was begun and not completed."""
        return self._exchange is not None and self._exchange.started and not self._exchange.finished

    @property
    def _unread(self) -> bool:
        """Whether the visitor may still be sending what nobody will read."""
        if self._visitor.inbox:
            return True
        if self._head is None:
            return self._visitor.phase is Phase.HEAD
        return not self._skip_body(self._head)

    async def _read_head(self) -> RequestHead | None:
        """The next request, None if the connection ended between two. Raises HttpError and VisitorGone."""
        visitor, limits = self._visitor, self._context.limits
        if not visitor.inbox:
            visitor.phase = Phase.RESTING
            idle = min(LAST_WORD, limits.idle) if self._context.draining else limits.idle
            visitor.life.deadline = trio.current_time() + idle
            if not await visitor.fill():
                return None
        visitor.phase = Phase.HEAD
        head = read_request(visitor.inbox)
        if head is None:
            visitor.life.deadline = trio.current_time() + limits.head
            while head is None:
                if not await visitor.fill():
                    raise HttpError("the connection ended within a head")
                head = read_request(visitor.inbox)
        visitor.phase = Phase.ANSWER
        return head

    async def _respond(self, head: RequestHead) -> bool:
        """Answer one request in whatever way; whether another one may follow."""
        visitor = self._visitor
        self._frame_ancestors = NOBODY  # until it is known whose host the request is for
        # All that comes before the answer's first byte is bounded together: the gate, the dialer, the tool.
        visitor.life.deadline = trio.current_time() + self._context.limits.answer
        try:
            return await self._dispatch(self._judge.judge(head))
        except Refusal as exc:
            return await self._tell(exc.problem, close=exc.close)
        except DialError as exc:
            return await self._tell_failure(exc.failure)
        except ToolFailed as exc:
            failure = exc.failure or self._context.dialer.explain(exc.__cause__ or exc)
            return await self._tell_failure(failure)

    async def _dispatch(self, judged: Judged) -> bool:
        gate, request = self._context.gate, judged.request
        self._switching = bool(judged.upgrade)
        self._frame_ancestors = request.frame_ancestors
        if is_tunnel(judged):
            refusal = await forward(self._context, self._visitor, judged)
            return refusal is not None and await self._reply(refusal)
        if judged.moved is not None:
            return await self._reply(moved(judged.moved))
        if request.label is None or judged.reach is not Reach.TOOL:
            page = None
            if judged.reach is not Reach.ALIAS:
                page = await gate.own_page(await self._with_body(judged.head, request))
            if page is None:
                raise Refusal(Problem(status=404, part="request", text=_NOT_FOUND))
            return await self._reply(page)
        check_origin(self._context, judged)
        admission = await gate.admit(request)
        if isinstance(admission, Reply):
            return await self._reply(admission)
        with self._context.activity.visit(admission.session, admission.subject) as self._visitor.presence:
            return await self._pass_on(judged, admission)

    async def _with_body(self, head: RequestHead, request: VisitorRequest) -> VisitorRequest:
        """With its body, where Connect's own page reads one. Raises Refusal, HttpError and VisitorGone."""
        limit = self._context.gate.body_limit(request)
        if not limit or head.length == 0:
            return request
        visitor = self._visitor
        try:
            with trio.fail_after(self._context.limits.own_body):
                waits = not visitor.inbox and head.version >= b"1.1" and values(head.headers, b"expect")
                if waits and (head.length is None or head.length <= limit):
                    await visitor.send_all(_CONTINUE)
                body = await collect(head, visitor.inbox, visitor, limit=limit)
        except trio.TooSlowError as exc:
            text = "The request's body did not arrive in time."
            raise Refusal(Problem(status=408, part="request", text=text), close=True) from exc
        except BodyTooLarge as exc:
            text = f"The request's body has more than {limit} bytes."
            raise Refusal(Problem(status=413, part="request", text=text), close=True) from exc
        head.length = 0  # nothing of it is left
        return attrs.evolve(request, body=body)

    async def _pass_on(self, judged: Judged, admission: Admission) -> bool:
        context, visitor = self._context, self._visitor
        lines = lines_for_tool(judged, admission)
        elsewhere = below_prefix(context, judged)
        exchange = self._exchange = Exchange(
            context, visitor, judged.head, lines, admission, paths=judged.paths, elsewhere=elsewhere
        )
        hold = visitor.hold = context.scopes.enter(admission.grant, Kind.HTTP, visitor.life, login=admission.login)
        with hold:
            if not judged.upgrade:
                try:
                    return await exchange.run()
                except Elsewhere as exc:
                    return await self._reply(exc.reply)
            await upgrade(context, exchange, visitor, lines, judged, hold)
            return False

    # answers of the edge's own

    async def _reply(self, reply: Reply, *, close: bool = False) -> bool:
        """Write a finished answer; whether another request may follow."""
        head = self._head
        # A body that is still to come is not read for nobody, and who asked for an upgrade may have sent the other
        # protocol's bytes already.
        if head is None or not self._skip_body(head) or self._switching:
            close = True
        self._context.counts.answers[reply.status // 100] += 1
        close = close or head is None or not head.keep_alive or self._context.draining
        await self._visitor.send_all(serialise(reply, method=head.method if head else b"", close=close))
        return not close

    def _skip_body(self, head: RequestHead) -> bool:
        """Take the request's body out of the way if it is here; whether nothing of it is left to be read."""
        if self._exchange is not None and self._exchange.uploaded:
            return True
        inbox = self._visitor.inbox
        if head.length is None or head.length > len(inbox):
            return False
        inbox.take(head.length)
        head.length = 0
        return True

    async def _tell(self, problem: Problem, *, close: bool = False) -> bool:
        """Tell the visitor of a failure; if an answer has begun, only the log can be told."""
        self._log(problem)
        if self._exchange is not None and self._exchange.started:
            return False
        html = self._head is not None and wants_html(self._head)
        return await self._reply(problem.reply(html=html, frame_ancestors=self._frame_ancestors), close=close)

    async def _tell_failure(self, failure: Failure) -> bool:
        """Tell of a failure of the tool or on the way to it."""
        repeatable = self._head is not None and self._head.method == b"GET"
        retry = failure.status == _UNAVAILABLE and repeatable
        return await self._tell(Problem(status=failure.status, part=failure.part, text=failure.text, retry=retry))

    def _say_why(self) -> None:
        """The connection's life was ended by a deadline, by the end of the session or because the visitor left."""
        visitor = self._visitor
        ending = visitor.hold.ended if visitor.hold is not None else None
        if visitor.left:
            log.debug("visitor %s is gone: it hung up while it waited", visitor.peer)
        elif visitor.phase is Phase.HEAD:
            self._last_words(Problem(status=408, part="request", text="The request did not arrive in time."))
        elif visitor.phase is Phase.ANSWER and ending is not None:
            self._last_words(_thrown_out(ending, agent=self._exchange is None), expected=True)
        elif visitor.phase is Phase.ANSWER:
            self._last_words(Problem(status=504, part="tool", text="The tool did not answer in time."))

    def _last_words(self, problem: Problem, *, expected: bool = False) -> None:
        """Tell the visitor if it can be done without waiting and would not be taken for a part of an answer.

        expected: whether it is nobody's fault.
        """
        self._log(problem, expected=expected)
        if self._visitor.phase is Phase.SWITCHED or (self._exchange is not None and self._exchange.started):
            return
        html = self._head is not None and wants_html(self._head)
        method = self._head.method if self._head is not None else b""
        self._context.counts.answers[problem.status // 100] += 1
        try:
            reply = problem.reply(html=html, frame_ancestors=self._frame_ancestors)
            self._visitor.socket.send_now(serialise(reply, method=method, close=True))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug("visitor %s did not wait for the reason: %s", self._visitor.peer, exc)

    def _log(self, problem: Problem, *, expected: bool = False) -> None:
        # What a stranger sends is no trouble of ours, whatever the answer's number.
        trouble = problem.status >= 500 and problem.part != "request" and not expected
        level = logging.WARNING if trouble else logging.INFO
        log.log(
            level,
            "[%s] visitor %s: %d, %s: %s",
            problem.id,
            self._visitor.peer,
            problem.status,
            problem.part,
            problem.text,
        )


def _thrown_out(ending: Ending, *, agent: bool) -> Problem:
    """What to answer whoever waits for an answer when what it waits for is ended."""
    text = f"{ending.text[:1].upper()}{ending.text[1:]}."
    if ending.cause is Cause.ACCESS:
        return Problem(status=403, part="session", text=f"{text} {ending.detail or ''}".rstrip())
    if ending.cause is Cause.LOGIN:
        return Problem(status=401, part="request", text=text)
    # An agent need not come back.
    return Problem(status=410 if agent else _UNAVAILABLE, part="session", text=f"The Studio has ended: {ending.text}.")
