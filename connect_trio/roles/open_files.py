"""The limit of open files: each connection is one, and the usual soft limit of 1024 is gone in no time."""

from __future__ import annotations

import contextlib
import logging
import resource

from connect_trio import children  # noqa: F401 - it remembers the limit that we were started with: import it first

VISITORS = 10_000  # edge.context.Limits
LINKS = 100  # each server and proxy has one to each of the other kind
TUNNELS = 10_000  # at one server
TUNNELS_THROUGH = 2_000  # through one proxy; the agent's side of each is among the visitors
STREAMS = 2_000  # each is a connection of the agent to its tool, or a forward; a session of an SSH user is up to four
SSH_CONNECTIONS = 2_000  # CONNECT_SSH_MAX_CONNECTIONS
OTHERS = 100  # listeners, Redis, Platform, logs, files

NEEDED = {
    "proxy": (VISITORS + SSH_CONNECTIONS + LINKS + TUNNELS_THROUGH + OTHERS, "visitors, links and tunnels"),
    "server": (TUNNELS + LINKS + OTHERS, "tunnels and links"),
    "agent": (STREAMS + OTHERS, "streams and tunnels"),
}
"""Role -> how many files it may have open when all that it takes is taken, and what most of them are."""

logger = logging.getLogger(__name__)


def provide(role: str) -> None:
    """Raise our limit as far as we may; warn in one line if that is not as far as the role needs."""
    limit = raise_limit()
    needed, what = NEEDED.get(role, (0, ""))
    if limit != resource.RLIM_INFINITY and limit < needed:
        logger.warning(
            "the limit of open files is too low for the %s that this %s is made for; raise it (ulimit -Hn)",
            what,
            role,
            extra={"limit": limit, "needed": needed},
        )


def raise_limit() -> int:
    """Set the soft limit to the hard one, where that is permitted; the soft limit that holds from now on.

    What we start as a child gets back the one that we were started with (children.py).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems bound it further, and say so only here.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
