"""Headers of a tunnel's request by which the tunnels of one agent keep apart: at which servers and proxies it is not
to end. Ids are those of processes: 16 bytes, new at each start. And one by which an agent keeps out of another's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

AVOID = b"x-connect-avoid"
"""Servers that the agent has tunnels at: take another one if there is one."""

STRICTLY = b"x-connect-avoid-strictly"
"""With the value 1: rather refuse the tunnel than end it at a server to avoid."""

AVOID_PROXY = b"x-connect-avoid-proxy"
"""Proxies that the agent's other tunnels pass through."""

YIELD = b"x-connect-yield"
"""With the value 1: this agent takes the place of no other agent of its session, whatever its token says."""

VIA = b"x-connect-via"
"""From the proxy to the server: the proxy that the tunnel passes through."""

PROXY = b"x-connect-proxy"
"""In the answer: the proxy that this tunnel passes through."""

CONFLICT = 409
"""The status of who is to be avoided."""

MAX_IDS = 8
_ID = re.compile(rb"[0-9a-f]{32}")


def is_id(value: bytes) -> bool:
    return _ID.fullmatch(value) is not None


def parse_ids(values: Iterable[bytes]) -> tuple[str, ...]:
    """The ids in the values of one header; none if it is not there. Raises ValueError, also for too many."""
    found: list[str] = []
    for value in values:
        for member in value.split(b",", MAX_IDS):
            member = member.strip(b" \t")
            if not is_id(member) or len(found) == MAX_IDS:
                raise ValueError(f"it must be 1 to {MAX_IDS} ids of 32 lower-case hex digits, separated by commas")
            found.append(member.decode("ascii"))
    return tuple(found)


def ids_value(ids: Iterable[str]) -> bytes:
    """The value of a header that names these."""
    return ", ".join(ids).encode("ascii")
