"""The role `proxy`: visitors' HTTP and WebSocket, and the way in for agents' tunnels."""

from __future__ import annotations

import logging
import random
import secrets
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import trio

from connect_trio.config import ProxySettings
from connect_trio.edge.listener import Edge
from connect_trio.edge.login import LoginGate
from connect_trio.identity.service import Identity, open_identity
from connect_trio.identity.watcher import SessionWatcher
from connect_trio.links import open_links
from connect_trio.metrics import PROXY
from connect_trio.roles.draining import Drain, ProxyDrain
from connect_trio.roles.listeners import all_listening, listen, port_of
from connect_trio.roles.managing import LISTENERS, PLATFORM, REDIS, Managed
from connect_trio.roles.measuring import CountingRegistry, read_proxy
from connect_trio.roles.registry import answers, in_memory, redis_from
from connect_trio.roles.stopping import Farewell, run_with_farewell
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.names import HostNames, split_address
from connect_trio.routing.registry import Registry, Store

logger = logging.getLogger(__name__)


class StorageUnusable(Exception):
    """CONNECT_STORAGE_ROOT cannot be written; the text says how to mend it."""


@attrs.frozen
class ProxyRunning:
    """http_port: where visitors connect. extra_port: this process's own second port, management_port: None for none."""

    http_port: int
    extra_port: int | None
    management_port: int | None = None


async def run_proxy(
    settings: ProxySettings,
    *,
    registry: Registry | None = None,
    store: Store | None = None,
    task_status: trio.TaskStatus[ProxyRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then it is drained: what runs may end, and agents come by another way.

    registry, store: None for Redis, as the settings say. Raises CannotListen, StorageUnusable and RegistryUnavailable,
    in groups; starts with a ProxyRunning.
    """
    await run_with_farewell(partial(_serve, settings, registry, store), task_status=task_status)


async def _serve(
    settings: ProxySettings,
    registry: Registry | None,
    store: Store | None,
    *,
    task_status: trio.TaskStatus[tuple[ProxyRunning, Farewell]],
) -> None:
    names = HostNames(settings.proxy_url)
    managed = Managed("proxy", PROXY)
    managed.health.provide(PLATFORM, partial(_is_there, settings.platform_url))
    async with AsyncExitStack() as stack:
        listeners = _listeners(settings, stack)
        await stack.enter_async_context(managed.open(settings))
        if registry is None or store is None:
            redis = await redis_from(settings, stack)
            registry, store = redis.registry, redis.store
            managed.health.provide(REDIS, partial(answers, redis))
        else:
            managed.health.provide(REDIS, in_memory)
        identity = await _identity(settings, store, stack)
        counted = CountingRegistry(registry)
        cached = CachedRegistry(counted, ttl=settings.local_cache_ttl)
        instance = secrets.token_bytes(16)
        dialer, pool = await stack.enter_async_context(open_links(cached, instance=instance))
        edge = Edge(
            gate=_gate(settings, names, identity, store),
            dialer=dialer,
            names=names,
            pick_server=_Servers(settings.tunnel_url).pick,
            instance=instance,
            trusted_proxies=[str(network) for network in settings.trusted_proxies],
        )
        watcher = SessionWatcher(identity.control_plane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(watcher.run, edge.scopes.live, edge.scopes.end))
            await nursery.start(edge.serve, listeners)
            managed.health.provide(LISTENERS, partial(all_listening, *listeners))
            managed.read = partial(read_proxy, edge, dialer, pool, counted)
            drain = Drain(ProxyDrain(edge, pool, cached, grace=settings.drain_grace).run, managed.health, nursery)
            managed.drains(drain)
            extra = port_of(listeners[1]) if len(listeners) > 1 else None
            logger.info("proxy is ready", extra={"port": port_of(listeners[0]), "url": settings.proxy_url})
            task_status.started((ProxyRunning(port_of(listeners[0]), extra, managed.port), drain.finish))


async def _is_there(url: str) -> bool:
    """Whether somebody listens at this URL. Raises OSError."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    async with await trio.open_tcp_stream(parts.hostname or "", port):
        return True


def _listeners(settings: ProxySettings, stack: AsyncExitStack) -> list[socket.socket]:
    """The shared port, and this process's own one if it has one; both are closed with `stack`."""
    host = settings.http_host
    shared = listen(host, settings.http_port, variable="CONNECT_HTTP_PORT", reuse_port=settings.reuse_port)
    listeners = [stack.enter_context(shared)]
    if settings.extra_port is not None:
        listeners.append(stack.enter_context(listen(host, settings.extra_port, variable="CONNECT_HTTP_EXTRA_PORT")))
    return listeners


async def _identity(settings: ProxySettings, store: Store, stack: AsyncExitStack) -> Identity:
    return await stack.enter_async_context(
        open_identity(
            platform_url=settings.platform_url,
            proxy_url=settings.proxy_url,
            store=store,
            storage_root=_storage(settings.storage_root),
            client_name=settings.client_name,
            grant_type=settings.grant_type,
            registration_token=settings.registration_token,
        )
    )


def _gate(settings: ProxySettings, names: HostNames, identity: Identity, store: Store) -> LoginGate:
    return LoginGate(
        names=names,
        platform_url=settings.platform_url,
        oidc=identity.oidc,
        authorizer=identity.authorizer,
        store=store,
        store_stale=settings.local_cache_ttl,
    )


def _storage(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageUnusable(
            f"CONNECT_STORAGE_ROOT={root} cannot be used ({exc.strerror}): name a folder that this process may write"
        ) from exc
    return root


class _Servers:
    """The servers' tunnel addresses (CONNECT_TUNNEL_URL), in another order each time, so that agents spread."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = [split_address(address) for address in addresses]

    async def pick(self) -> Sequence[tuple[str, int]]:
        await trio.lowlevel.checkpoint()
        return random.sample(self._addresses, len(self._addresses))
