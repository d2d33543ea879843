"""A server's view of one tunnel, and which of two may stay: the rules by which a session's agents make way."""

from __future__ import annotations

import math
import secrets
from collections import Counter

from connect_trio.mux.session import MuxSession
from connect_trio.mux.wire import Wire
from connect_trio.routing.registry import Route


class Tunnel:
    """One agent's connection to this server.

    issued: when the agent's token was, Unix time of Platform. generation: what the agent counts, from its HELLO.
    route: what is published of it, known from then on. proof: what the first PONG has to repeat. greeted: when HELLO
    came. via: id of the proxy that it passes through, if that says so. leaving: why it ends, once we have said so; a
    word for metrics.
    """

    def __init__(
        self, session: str, mux: MuxSession, wire: Wire, instance: str, *, issued: int, via: str | None
    ) -> None:
        self.session = session
        self.mux = mux
        self.wire = wire
        self.instance = instance
        self.issued = issued
        self.generation = 0
        self.route: Route | None = None
        self.proof = secrets.token_bytes(8)
        self.greeted = math.inf
        self.published = False
        self.via = via
        self.leaving: str | None = None

    @property
    def replaced(self) -> bool:
        """Whether the agent has said that it has another one."""
        return self.wire.closing is not None

    def newer_than(self, other: Tunnel) -> bool:
        """Two agents are told apart by their tokens, then by their starts. One agent knows by itself which of its
        tunnels is the newer one, whatever tokens they came with."""
        if self.instance == other.instance:
            return self.generation > other.generation
        return (self.issued, self.generation) > (other.issued, other.generation)


class TunnelCounts:
    """For metrics, since the server began. accepted: tunnels that came up. ended: those that ended, by reason."""

    __slots__ = ("accepted", "ended")

    def __init__(self) -> None:
        self.accepted = 0
        self.ended: Counter[str] = Counter()


def short(instance: str) -> str:
    """What other agents may hear of an agent's id: enough to find it in a log.

    Whoever knows all of it, and has any token of the session, passes for that agent: its own tunnels are told apart by
    what it counts, and not by their tokens.
    """
    return instance[:8]


def taken_by(instance: str | None) -> str:
    """What the agent of a tunnel is told whose place somebody has taken. instance: who, if that is known."""
    who = "a newer tunnel" if instance is None else f"a newer agent (instance {short(instance)})"
    return f"{who} of the same session took its place"
