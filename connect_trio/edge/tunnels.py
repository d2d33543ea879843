"""Agents' tunnels: an upgrade asked of Connect's own host, handed on to a server, and from then on just bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import trio

from connect_trio.edge.context import Context
from connect_trio.edge.errors import Refusal, VisitorGone
from connect_trio.edge.gate import Reply, TunnelGrant
from connect_trio.edge.headers import values
from connect_trio.edge.pages import Problem
from connect_trio.edge.requests import Judged
from connect_trio.edge.scopes import Kind
from connect_trio.edge.targets import TUNNEL_PATH
from connect_trio.edge.upgrade import switched_head
from connect_trio.edge.visitor import Phase, Visitor
from connect_trio.httpio import HttpError, Inbox, ResponseHead, read_response
from connect_trio.routing.names import join_address
from connect_trio.transport.avoiding import AVOID, AVOID_PROXY, CONFLICT, STRICTLY, YIELD, ids_value, parse_ids
from connect_trio.transport.relay import relay
from connect_trio.transport.sockets import Connection

# A WebSocket, or raw bytes of the mux (transport/tunnels.py).
_CARRIERS = ((b"websocket",), (b"connect-mux",))
_SWITCHING = 101


def is_tunnel(judged: Judged) -> bool:
    """Whether this request is an agent that opens its tunnel."""
    return (
        judged.request.label is None
        and judged.target.partition(b"?")[0] == TUNNEL_PATH
        and judged.upgrade in _CARRIERS
        and judged.head.method == b"GET"
    )


async def forward(context: Context, visitor: Visitor, judged: Judged) -> Reply | None:
    """Hand an agent's tunnel on to a server and carry it until both sides have ended; or the gate's refusal.

    Raises Refusal (503, part "proxy") if this proxy will stop; (502, part "server") if no server takes it; 409, if only
    those do that the agent insists on avoiding, or with the part "proxy", if it avoids this proxy; and VisitorGone if
    the agent's connection breaks.
    """
    # First what costs nothing: where there is one proxy only, agents ask it three times, thousands of them at once.
    wishes = _wishes(judged)
    _check_stays(context)
    if context.instance in wishes.proxies:
        text = "The agent has a tunnel through this proxy already."
        raise Refusal(Problem(status=CONFLICT, part="proxy", text=text), close=True)
    grant = await context.gate.admit_tunnel(judged.request)
    if isinstance(grant, Reply):
        return grant
    if wishes.yields:
        grant = attrs.evolve(grant, issued=0)  # older than any token is: anybody may make himself less
    _check_stays(context)
    hold = visitor.hold = context.scopes.enter(grant.grant, Kind.TUNNEL, visitor.life)
    with hold:
        server, head, early = await _find(context, judged, grant, wishes)
        try:
            visitor.phase = Phase.SWITCHED
            visitor.life.deadline = math.inf
            hold.farewell = _let_visitors_part
            await visitor.send_all(head + early)
            context.counts.answers[1] += 1
            context.tunnels[visitor] = grant.session
            await _carry(context, visitor, server)
        except BaseException:
            server.abort()
            raise
        finally:
            context.tunnels.pop(visitor, None)
        server.close()
        return None


def _let_visitors_part(_: str) -> bool:
    """They are to get the end of a message that has begun. The agent hears why it ends when it dials again."""
    return True


def _check_stays(context: Context) -> None:
    if context.draining:
        raise Refusal(Problem(status=503, part="proxy", text="This proxy will stop; dial again."), close=True)


async def _carry(context: Context, visitor: Visitor, server: Connection) -> None:
    try:
        sent = visitor.inbox.take(len(visitor.inbox))
        if sent:
            await server.send_all(sent)
        await relay(visitor.socket, server, buffers=context.buffers)
    except trio.BrokenResourceError as exc:
        raise VisitorGone("the tunnel broke") from exc


@attrs.frozen
class _Wishes:
    """What an agent says about where its tunnel is to end. servers, proxies: ids of those to avoid. yields: whether it
    is to take no other agent's place."""

    servers: tuple[str, ...]
    strictly: bool
    proxies: tuple[str, ...]
    yields: bool


def _wishes(judged: Judged) -> _Wishes:
    """Raises Refusal."""
    headers = judged.head.headers
    name = AVOID
    try:
        servers = parse_ids(values(headers, name))
        name = AVOID_PROXY
        proxies = parse_ids(values(headers, name))
        name = STRICTLY
        strictly = _flag(values(headers, name))
        name = YIELD
        yields = _flag(values(headers, name))
    except ValueError as exc:
        text = f"This is not a valid request for a tunnel: {name.decode()}: {exc}."
        raise Refusal(Problem(status=400, part="request", text=text), close=True) from exc
    return _Wishes(servers, strictly, proxies, yields)


def _flag(said: list[bytes]) -> bool:
    """Raises ValueError."""
    if said not in ([], [b"1"]):
        raise ValueError("it must be 1, once, or not there")
    return bool(said)


def _request(context: Context, judged: Judged, grant: TunnelGrant, avoid: Sequence[str]) -> bytes:
    """The request for the server, which believes a proxy: nothing in it comes unjudged from the agent but WebSocket's
    own headers."""
    lines = [b"%b: %b\r\n" % (raw, v) for raw, name, v in judged.head.headers if name.startswith(b"sec-websocket-")]
    if avoid:
        lines.append(b"X-Connect-Avoid: %b\r\n" % ids_value(avoid))
    return (
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: %b\r\nConnection: Upgrade\r\n%b"
        b"X-Forwarded-For: %b\r\nX-Connect-Session: %b\r\nX-Connect-Instance: %b\r\nX-Connect-Issued: %d\r\n"
        b"X-Connect-Via: %b\r\n\r\n"
    ) % (
        TUNNEL_PATH,
        judged.host,
        judged.upgrade[0],
        b"".join(lines),
        judged.request.client.encode("ascii", "replace"),
        grant.session.encode("ascii"),
        grant.instance.encode("ascii"),
        grant.issued,
        context.instance.encode("ascii"),
    )


async def _find(
    context: Context, judged: Judged, grant: TunnelGrant, wishes: _Wishes
) -> tuple[Connection, bytes, bytes]:
    """As `_open`; where no server can be had, wait for one for a while. Raises Refusal."""
    back = context.servers_back
    give_up = trio.current_time() + context.limits.server_wait
    while True:
        try:
            found = await _open(context, judged, grant, wishes)
        except _NoServer:
            if wishes.strictly or back.full or trio.current_time() >= give_up:
                raise
            await back.pause(give_up)
        else:
            back.notice()
            return found


class _NoServer(Refusal):
    """No server can be reached, or none takes tunnels at the moment."""


async def _open(
    context: Context, judged: Judged, grant: TunnelGrant, wishes: _Wishes
) -> tuple[Connection, bytes, bytes]:
    """The first server that takes the tunnel: the connection to it, its 101 to pass on, and what it sent after it.

    If all that would take it are to be avoided, one of them is better than none, unless the agent insists.
    """
    reasons = []
    avoided = []
    request = _request(context, judged, grant, wishes.servers)
    for host, port in await context.pick_server():
        try:
            return await _ask(context, host, port, request, judged.upgrade)
        except _NotTaken as exc:
            reasons.append(f"{join_address(host, port)} {exc}")
            if exc.status == CONFLICT:
                avoided.append((host, port))
    if avoided and wishes.strictly:
        text = "There is no other server than those that the agent avoids."
        raise Refusal(Problem(status=CONFLICT, part="server", text=text), close=True)
    request = _request(context, judged, grant, ())
    for host, port in avoided:
        try:
            return await _ask(context, host, port, request, judged.upgrade)
        except _NotTaken as exc:
            reasons.append(f"{join_address(host, port)} {exc}")
    text = f"No server took the tunnel: {'; '.join(reasons)}." if reasons else "There is no server to take the tunnel."
    raise _NoServer(Problem(status=502, part="server", text=text), close=True)


class _NotTaken(Exception):
    """This server did not take the tunnel; the next one may. status: what it answered, if it did."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


async def _ask(
    context: Context, host: str, port: int, request: bytes, asked: tuple[bytes, ...]
) -> tuple[Connection, bytes, bytes]:
    limits = context.limits
    try:
        with trio.fail_after(limits.server_connect):
            server = await context.connect(host, port)
    except (OSError, trio.TooSlowError) as exc:
        raise _NotTaken(f"cannot be reached ({str(exc) or 'no answer in time'})") from exc
    inbox = Inbox(limits.head_size)
    try:
        with trio.fail_after(limits.server_answer):
            await server.send_all(request)
            answer = await _answer(server, inbox)
        head = switched_head(answer, asked) if answer.status == _SWITCHING else None
        if head is None:
            raise _NotTaken(f"answered {answer.status}", answer.status)
        head = b"%bX-Connect-Proxy: %b\r\n\r\n" % (head[:-2], context.instance.encode("ascii"))
        return server, head, bytes(inbox.take(len(inbox)))
    except (trio.TooSlowError, trio.BrokenResourceError, HttpError) as exc:
        server.abort()
        raise _NotTaken(f"did not answer properly ({str(exc) or 'not in time'})") from exc
    except BaseException:
        server.abort()
        raise


async def _answer(server: Connection, inbox: Inbox) -> ResponseHead:
    while True:
        answer = read_response(inbox, b"GET") if inbox else None
        if answer is not None and (answer.status >= 200 or answer.status == _SWITCHING):
            return answer
        if answer is None:
            data = await server.receive_some()
            if not data:
                raise HttpError("the connection ended")
            inbox.feed(data)
