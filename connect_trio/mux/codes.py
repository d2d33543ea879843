"""Numbers that travel in frames: why a stream or a wire ended."""

from __future__ import annotations

from enum import IntEnum


class ResetCode(IntEnum):
    """Why a stream was dropped (RESET). Unknown numbers from a newer peer are shown as they are."""

    APP = 1
    PROTOCOL = 2
    DETACHED_TIMEOUT = 3
    BUDGET = 4
    UNKNOWN = 5
    REVOKED = 6
    SHUTDOWN = 7


class RejectCode(IntEnum):
    """Why a stream was not opened (REJECT)."""

    REFUSED = 1
    UNREACHABLE = 2
    UNSUPPORTED = 3
    BUDGET = 4
    OVERLOADED = 5


class DetachCode(IntEnum):
    """Why an id is dead on a wire although its stream may live (DETACH)."""

    LOST = 1
    NO_ROUTE = 2
    STALE = 3
    MOVED = 4
    LINK_LOST = 5
    CONGESTED = 6
    DRAINING = 7


class GoawayCode(IntEnum):
    """Why a wire is about to end (GOAWAY)."""

    DRAIN = 1
    PROTOCOL = 2
    VERSION = 3
    DISPLACED = 4
    SHUTDOWN = 5
    OVERLOADED = 6
    VIA = 7


class Peer(IntEnum):
    """What kind of process said HELLO."""

    OPENER = 1
    ACCEPTOR = 2
    SWITCH = 3


def name_of(kind: type[IntEnum], number: int) -> str:
    """The name of a code, or its number where a newer peer knows more than we do."""
    try:
        return kind(number).name
    except ValueError:
        return str(number)
