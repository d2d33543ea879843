"""The registry: which servers hold the tunnels of a session, as leases with a life-time.

Also the `Store`: short-lived values that replicas share (one-time codes, logins). Both are seen through these
interfaces only; the implementations in memory and in Redis pass one contract suite.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import attrs

MAX_SLOTS = 4
"""Tunnels that one session may have; a route's slot is below it, so a lookup reads a fixed set of keys."""

MAX_ISSUED = 1 << 40
"""Unix time of the newest token that there can be."""

REMEMBER = 600.0
"""Seconds for which a place remembers who held it and has not withdrawn; more than streams wait for a way."""

MAX_FORMER = 8
"""Such holders that a place remembers at most, beside the last one; the newest."""

STANDING_BY = 1 << 64
"""Epochs below are of agents that make way for all others."""

MAX_VALUE = 64 * 1024
"""Bytes of a value in a `Store`."""

Tell = Callable[[str | None], None]
"""Who is told of a change: the session, or None for "any of them may have changed". Never waits."""

_STORE_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class RegistryUnavailable(Exception):
    """The registry cannot be reached or does not answer in time."""


@attrs.frozen(kw_only=True)
class Route:
    """A lease: one tunnel of a session, and the server that holds it.

    session: id, 8 hex digits. slot: which of the agent's tunnels, from 0. address: "host:port" where proxies reach
    the server. connector: hex id of the server process. epoch: a newer tunnel has a higher one (`epoch_of`); it has
    more than 64 bits. since: Unix time. instance: hex id of the agent's process, "" if it is not known.
    """

    session: str
    slot: int
    address: str
    connector: str
    epoch: int
    since: float
    instance: str = ""


def epoch_of(issued: int, generation: int) -> int:
    """Orders the tunnels of a session: by the time when the token was issued, then by what the agent counts.

    The former is of Platform's clock alone, so that the clocks of agents matter only among those with one token.
    """
    return (issued << 64) + generation


class Registry(Protocol):
    """Leases by (session, slot). A lease belongs to a connector and an epoch: these two say whether it is "this one".

    Who has held a place and has not withdrawn may be back: its server may be cut off from the registry, or may not have
    heard yet that another one took the place. So the place remembers it for REMEMBER seconds after its last renewal, or
    after it was displaced. While there is no lease, nobody who is older than one of these gets the place. A connector
    knows its own tunnels best: what it publishes stands for all that it had there before (`since`).

    Every method raises RegistryUnavailable, and ValueError for a slot that is not below MAX_SLOTS.
    """

    async def publish(self, route: Route, *, ttl: float) -> bool:
        """Take the place (session, slot) for `ttl` seconds. False: a route with the same or a newer epoch holds it, or
        one with a newer epoch may be back.

        A route of the same connector is replaced, unless it began later: calls may arrive in another order. An agent
        that stands by (STANDING_BY) need not wait for who may be back: if there is no lease, and no newer one of
        another agent in any slot of the session, it has the place, and the others are forgotten.
        """
        ...

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        """Extend leases; those that are gone are set again. Returns the routes that another owner has taken, or may be
        about to take again since it has a newer one.

        An owner with an older epoch has taken nothing: it came back late, and its lease is replaced.
        """
        ...

    async def withdraw(self, route: Route) -> bool:
        """Remove the lease if it is still this one (compare and delete), and forget this route. Whether it was."""
        ...

    async def find(self, session: str) -> Sequence[Route]:
        """The routes of a session by slot; empty if there is none."""
        ...

    async def changes(self, tell: Tell) -> NoReturn:
        """Tell of every session whose routes somebody publishes, sets again or withdraws, until cancelled.

        A mere renewal is no change, and the end of a lease is not told. None comes first, when nothing will be missed
        from now on, and again whenever something may have been missed: look at everything anew then. Alone among these
        methods it raises nothing: while the registry is away it waits for it.
        """
        ...


class Store(Protocol):
    """Values with a life-time. Keys are ASCII without spaces; values are at most 64 KiB.

    Every method raises RegistryUnavailable, and ValueError for a key or value outside these limits.
    """

    async def put(self, key: str, value: bytes, *, ttl: float) -> None:
        """Set or replace a value, for `ttl` seconds."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value, None if there is none or its time is over."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Get and delete in one step: of two callers only one has the value."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a value; quiet if there is none."""
        ...

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What `get` gives for each key, in one step."""
        ...

    async def claim(self, key: str, value: bytes, *, ttl: float) -> bool:
        """Set a value for `ttl` seconds, if there is none; whether this value is there afterwards.

        Of several callers with different values one succeeds; who lost the answer may ask again.
        """
        ...

    async def replace(self, key: str, value: bytes) -> bool:
        """Replace a value whose time is not over, and leave it its time; whether there was one."""
        ...

    async def prolong(self, key: str, *, ttl: float) -> None:
        """Let a value live for `ttl` seconds from now, unless it lives longer; quiet if there is none."""
        ...

    async def agree(self, key: str, value: bytes) -> bytes:
        """Set a value that has no life-time, if there is none; the one that is there afterwards.

        Of several callers with different values all get the same answer.
        """
        ...


def check_slot(slot: int) -> None:
    """Raises ValueError unless 0 <= slot < MAX_SLOTS."""
    if not 0 <= slot < MAX_SLOTS:
        raise ValueError(f"slot {slot} is not in 0..{MAX_SLOTS - 1}")


def check_key(key: str) -> None:
    """Raises ValueError unless `key` may be a key of a `Store`."""
    if not _STORE_KEY.fullmatch(key):
        raise ValueError("a key is 1 to 200 printable ASCII characters without spaces")


def check_value(value: bytes) -> None:
    """Raises ValueError if a value is larger than MAX_VALUE."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"a value of {len(value)} bytes is over the limit of {MAX_VALUE}")
