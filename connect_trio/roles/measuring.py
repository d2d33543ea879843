"""What a role counts, as readings of its metrics. Looked at only when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from typing import NoReturn, TypeVar

from connect_trio.edge.listener import Edge
from connect_trio.identity.activity import Activity
from connect_trio.identity.reporter import ActivityReporter
from connect_trio.link_pool import LinkPool
from connect_trio.links import LinkDialer
from connect_trio.metrics import Reading, readings
from connect_trio.mux.codes import ResetCode, name_of
from connect_trio.roles.server_links import Server
from connect_trio.routing.registry import Registry, RegistryUnavailable, Route, Tell
from connect_trio.sessions import TunnelTable

T = TypeVar("T")


class CountingRegistry:
    """A `Registry` that counts what another one did not answer. failures: by the name of the method."""

    def __init__(self, registry: Registry) -> None:
        self.failures: Counter[str] = Counter(publish=0, renew=0, withdraw=0, find=0)
        self._registry = registry

    async def publish(self, route: Route, *, ttl: float) -> bool:
        return await self._counted("publish", self._registry.publish(route, ttl=ttl))

    async def renew(self, routes: Sequence[Route], *, ttl: float) -> Sequence[Route]:
        return await self._counted("renew", self._registry.renew(routes, ttl=ttl))

    async def withdraw(self, route: Route) -> bool:
        return await self._counted("withdraw", self._registry.withdraw(route))

    async def find(self, session: str) -> Sequence[Route]:
        return await self._counted("find", self._registry.find(session))

    async def changes(self, tell: Tell) -> NoReturn:
        await self._registry.changes(tell)  # which fails nobody

    async def _counted(self, call: str, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except RegistryUnavailable:
            self.failures[call] += 1
            raise

    def readings(self) -> Iterable[Reading]:
        return readings("connect_registry_failures_total", self.failures)


def read_server(server: Server, table: TunnelTable, registry: CountingRegistry) -> Iterable[Reading]:
    yield Reading("connect_server_tunnels", len(table))
    yield Reading("connect_server_tunnels_accepted_total", table.counts.accepted)
    yield from readings("connect_server_tunnels_ended_total", table.counts.ended)
    yield Reading("connect_server_tunnels_refused_total", server.refused)
    yield Reading("connect_server_links", len(server.links))
    yield Reading("connect_server_circuits", server.circuits)
    yield Reading("connect_server_held_bytes", server.held)
    yield Reading("connect_server_routes", table.published)
    yield from registry.readings()


def read_proxy(
    edge: Edge, dialer: LinkDialer, pool: LinkPool, registry: CountingRegistry, reporter: ActivityReporter
) -> Iterable[Reading]:
    counts, opener = edge.counts, dialer.opener
    yield Reading("connect_proxy_visitors", edge.connections)
    yield Reading("connect_proxy_tunnels", len(edge.tunnels))
    classes = {f"{number}xx": counts.answers[number] for number in range(1, 6)}
    yield from readings("connect_proxy_requests_total", classes)
    yield Reading("connect_proxy_upgraded", edge.upgraded)
    yield from readings("connect_proxy_upgraded_total", {"websocket": counts.websockets, "other": counts.others})
    states = {"attached": len(opener.streams) - opener.detached, "detached": opener.detached}
    yield from readings("connect_proxy_streams", states)
    yield Reading("connect_proxy_streams_detached_total", opener.counts.detached)
    yield Reading("connect_proxy_streams_resumed_total", opener.counts.resumed)
    yield Reading("connect_proxy_streams_moved_total", opener.counts.moved)
    yield Reading("connect_proxy_streams_refused_total", opener.counts.refused)
    known: dict[str, float] = {code.name: opener.counts.resets[code] for code in ResetCode}
    others = {name_of(ResetCode, code): count for code, count in opener.counts.resets.items()}
    yield from readings("connect_proxy_streams_reset_total", known | others)
    yield Reading("connect_proxy_stream_memory_bytes", opener.budget.used)
    yield Reading("connect_proxy_stream_memory_limit_bytes", opener.budget.limit)
    yield Reading("connect_proxy_stream_share_bytes", min(opener.window, opener.budget.share))
    yield Reading("connect_proxy_links", pool.count)
    yield Reading("connect_proxy_parked_dials", dialer.parked)
    yield from _read_activity(edge.activity, reporter)
    yield from registry.readings()


def _read_activity(activity: Activity, reporter: ActivityReporter) -> Iterable[Reading]:
    counts = reporter.counts
    yield Reading("connect_proxy_activity_visits", len(activity))
    yield Reading("connect_proxy_activity_waiting", reporter.waiting)
    yield Reading("connect_proxy_activity_delivered_total", counts.delivered)
    yield Reading("connect_proxy_activity_failures_total", counts.failures)
    missed = {"full": activity.counts.untold, "merged": activity.counts.merged, "refused": counts.lost}
    yield from readings("connect_proxy_activity_missed_total", missed)
