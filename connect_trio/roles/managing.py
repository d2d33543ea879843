"""The management port of a role: there before the role is ready, and until it has taken its leave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from connect_trio import __version__
from connect_trio.config import ProxySettings, ServerSettings
from connect_trio.management.app import Management
from connect_trio.management.exposition import Exposition
from connect_trio.management.health import Health
from connect_trio.management.server import is_loopback, serve_management
from connect_trio.metrics import Family, Reading
from connect_trio.roles.draining import Drain
from connect_trio.roles.listeners import listen, port_of

REDIS, LISTENERS, PLATFORM = "redis", "listeners", "platform"


class Managed:
    """What the management port shows of a role. read: its numbers, once there are any."""

    def __init__(self, role: str, families: Sequence[Family]) -> None:
        self.health = Health(REDIS, LISTENERS)
        self.read: Callable[[], Iterable[Reading]] = lambda: ()
        self.port: int | None = None
        self._role = role
        self._families = families
        self._drain: Drain | None = None
        self._wanted = False

    def drains(self, drain: Drain) -> None:
        """What a drain is, from now on."""
        self._drain = drain
        if self._wanted:
            drain.begin()

    @asynccontextmanager
    async def open(self, settings: ServerSettings | ProxySettings) -> AsyncIterator[None]:
        """Listen, if the settings want it, as long as the block lasts. Raises CannotListen."""
        if settings.management_port is None:
            yield
            return
        sock = listen(settings.management_host, settings.management_port, variable="CONNECT_MANAGEMENT_PORT")
        self.port = port_of(sock)
        management = Management(
            health=self.health,
            exposition=Exposition(self._families, self._readings),
            drain=self._begin,
            key=settings.management_auth_key,
            local=is_loopback(sock),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_management, management, sock)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    def _begin(self) -> None:
        if self._drain is None:
            self._wanted = True
        else:
            self._drain.begin()

    def _readings(self) -> Iterable[Reading]:
        yield Reading("connect_info", 1, (self._role, __version__))
        yield Reading("connect_draining", self.health.draining)
        yield from self.read()
