"""What every visitor connection of one edge shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from connect_trio.dial import Dialer
from connect_trio.edge.forwarded import Forwarding
from connect_trio.edge.gate import Gate, Switch, never
from connect_trio.edge.pool import StreamPool
from connect_trio.edge.scopes import SessionScopes
from connect_trio.edge.servers_back import ServersBack
from connect_trio.edge.visitor import Visitor
from connect_trio.identity.activity import Activity
from connect_trio.mux.buffers import Pool
from connect_trio.routing.names import HostNames
from connect_trio.transport.trusted import Connect

if TYPE_CHECKING:
    from connect_trio.edge.upgrade import Upgraded

PickServer = Callable[[], Awaitable[Sequence[tuple[str, int]]]]
"""Gives the servers' tunnel addresses (host, port), in the order to try them."""

_BUFFER_SIZE = 256 * 1024


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds and deadlines of the edge; times in seconds, sizes in bytes.

    connections: visitors at once; of more, those that ask for nothing make room, or else the new ones are told 503.
    head_size: of a head, else 431 (a tool's: 502). head: to send a whole head, else 408. idle: between two requests.
    answer: until the tool's final head after the request was sent, else 504. own_body: to send a body to Connect's own
    pages, else 408. stall: without any progress of a body to or from a visitor. linger: to take in what a refused
    visitor still sends, so that it can read the refusal. half_closed: how long a visitor that ended its sending side
    may wait for a silent tool. housekeeping: between two looks for visitors that are gone. sample: between two looks
    whose bytes have passed.
    server_connect, server_answer: to connect to a server for a tunnel, and until its answer. server_wait: that a tunnel
    waits for a server if there is none, less than an agent waits for its answer.
    stream_idle: how long an unused stream to a tool is kept. streams_per_key, streams: unused ones kept at most.
    """

    connections: int = 10_000
    head_size: int = 64 * 1024
    head: float = 15
    idle: float = 75
    answer: float = 600
    own_body: float = 10
    stall: float = 900
    linger: float = 2
    half_closed: float = 30
    housekeeping: float = 1
    sample: float = 5
    server_connect: float = 5
    server_answer: float = 10
    server_wait: float = 8
    stream_idle: float = 20
    streams_per_key: int = 64
    streams: int = 1024


class Counts:
    """What visitors got since the edge began, for metrics.

    answers: how many by class of their status (index 2: 200 to 299). websockets, others: upgraded connections.
    """

    __slots__ = ("answers", "others", "websockets")

    def __init__(self) -> None:
        self.answers = [0] * 10
        self.websockets = 0
        self.others = 0


@attrs.define(kw_only=True)
class Context:
    """The collaborators of one edge.

    instance: hex id of this process, by which an agent knows one proxy from another.
    connect: makes the connection to a server that a tunnel is handed on by.
    frame_ancestors: who may show what belongs to Studios in frames, as `framing.studio_ancestors` writes it.
    path_routing: whether Studios are also below paths of Connect's own host.
    draining: whether connections are to end with their current answer. tunnels: those that pass through here, with
    their sessions. upgraded: the connections that carry another protocol now.
    """

    instance: str
    gate: Gate
    dialer: Dialer
    names: HostNames
    pick_server: PickServer
    connect: Connect
    forwarding: Forwarding
    limits: Limits
    scopes: SessionScopes
    activity: Activity
    pool: StreamPool
    frame_ancestors: bytes
    path_routing: Switch = never
    buffers: Pool = attrs.field(factory=lambda: Pool(_BUFFER_SIZE, spare=16))
    servers_back: ServersBack = attrs.field(factory=ServersBack)
    draining: bool = False
    tunnels: dict[Visitor, str] = attrs.field(factory=dict)
    upgraded: set[Upgraded] = attrs.field(factory=set)
    counts: Counts = attrs.field(factory=Counts)
