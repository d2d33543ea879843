"""Free ports of loopback, for what is started a moment later."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Where they are taken from: below those that kernels give to outgoing connections, or one of these might have the port
before whoever it is for binds it."""

_TRIES = 200


class NoFreePort(Exception):
    """There are not as many; the text says what to do."""


def free_ports(count: int, *, besides: Sequence[int] = ()) -> list[int]:
    """As many different ports that nobody listens on. Raises NoFreePort if they cannot be found."""
    found: list[int] = []
    for _ in range(_TRIES + count):
        candidate = random.choice(PORTS)  # noqa: S311 - only so that two programs seldom meet
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, candidate))
            except OSError:
                continue
        if candidate not in found and candidate not in besides:
            found.append(candidate)
        if len(found) == count:
            return found
    raise NoFreePort(f"no {count} free ports between {PORTS[0]} and {PORTS[-1]}; end some of what listens there")
