"""What a process tells about itself in numbers: the families, and one reading of them.

Counted as plain integers where things happen, and read only when somebody asks. docs/operations.md has these tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs


@attrs.frozen
class Family:
    """One metric. Of a counter, whose name ends in `_total`, only the increase says something."""

    name: str
    help: str
    labels: Sequence[str] = ()

    @property
    def counter(self) -> bool:
        return self.name.endswith("_total")


@attrs.frozen
class Reading:
    """One number of a family, with the values of its labels in their order."""

    name: str
    value: float
    labels: Sequence[str] = ()


def readings(name: str, values: Mapping[str, float]) -> list[Reading]:
    """Those of a family with one label."""
    return [Reading(name, value, (label,)) for label, value in values.items()]


BOTH = (
    Family("connect_info", "1, with the role and the version of this process.", ("role", "version")),
    Family("connect_draining", "1 while the process is being drained, else 0."),
    Family("connect_registry_failures_total", "Calls of the registry that it did not answer.", ("call",)),
)

SERVER = (
    *BOTH,
    Family("connect_server_tunnels", "Tunnels of agents that are up."),
    Family("connect_server_tunnels_accepted_total", "Tunnels that came up."),
    Family("connect_server_tunnels_ended_total", "Tunnels that were up and have ended, by reason.", ("reason",)),
    Family("connect_server_tunnels_refused_total", "Tunnels that were not taken here."),
    Family("connect_server_links", "Links of proxies."),
    Family("connect_server_circuits", "Streams that pass through this server."),
    Family("connect_server_held_bytes", "Bytes that wait here because the next hop does not take them."),
    Family("connect_server_routes", "Tunnels of this server that the registry knows."),
)

PROXY = (
    *BOTH,
    Family("connect_proxy_visitors", "Connections of visitors, agents' tunnels among them."),
    Family("connect_proxy_tunnels", "Agents' tunnels that pass through this proxy."),
    Family("connect_proxy_requests_total", "Answers to requests, by the class of their status.", ("status",)),
    Family("connect_proxy_upgraded", "Upgraded connections, WebSockets among them."),
    Family("connect_proxy_upgraded_total", "Connections that were upgraded.", ("protocol",)),
    Family("connect_proxy_live", "What is open of sessions, by what it is.", ("kind",)),
    Family("connect_proxy_ended_total", "What was ended, by what it was and for what reason.", ("kind", "cause")),
    Family("connect_proxy_access_age_seconds", "Since Platform last said of everybody who is in that they may."),
    Family("connect_proxy_sessions_ending", "Sessions with visitors that are planned to end within 15 minutes."),
    Family("connect_proxy_streams", "Streams to agents, by whether they have a way now.", ("state",)),
    Family("connect_proxy_streams_detached_total", "How often a stream lost its way."),
    Family("connect_proxy_streams_resumed_total", "How often a stream found another way."),
    Family("connect_proxy_streams_moved_total", "How often a stream changed its way while the old one worked."),
    Family("connect_proxy_streams_refused_total", "Streams that were not opened: there were as many as there may be."),
    Family("connect_proxy_streams_reset_total", "Streams that this proxy dropped, by code of the reset.", ("code",)),
    Family("connect_proxy_stream_memory_bytes", "Bytes that the streams of this proxy keep."),
    Family("connect_proxy_stream_memory_limit_bytes", "Bytes beyond which detached streams are dropped."),
    Family("connect_proxy_stream_share_bytes", "Bytes that one stream may have in each direction now."),
    Family("connect_proxy_links", "Links to servers."),
    Family("connect_proxy_parked_dials", "Requests that wait for an agent that is (re)connecting."),
    Family("connect_proxy_ssh_connections", "SSH connections, by whether they are logged in.", ("state",)),
    Family("connect_proxy_ssh_logins_total", "SSH connections by what became of their login.", ("outcome",)),
    Family("connect_proxy_ssh_channels", "SSH channels that are open."),
    Family("connect_proxy_ssh_channels_total", "SSH channels, by whether there was a place.", ("outcome",)),
    Family(
        "connect_proxy_activity_visits", "Visitors at sessions: those who are there, and whose end is to be reported."
    ),
    Family("connect_proxy_activity_waiting", "Visits that Platform has not been told of for certain."),
    Family("connect_proxy_activity_delivered_total", "Visits in reports that Platform has taken."),
    Family("connect_proxy_activity_failures_total", "Reports of activity that have to be sent again."),
    Family("connect_proxy_activity_missed_total", "Visits that Platform does not know whole, by reason.", ("reason",)),
)
