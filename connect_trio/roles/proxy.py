"""The role `proxy`: visitors' HTTP and WebSocket, and the way in for agents' tunnels."""

from __future__ import annotations

import logging
import secrets
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from connect_trio.config import ProxySettings
from connect_trio.edge.listener import Edge
from connect_trio.edge.login import LoginGate
from connect_trio.identity.service import Identity, open_identity
from connect_trio.identity.watcher import SessionWatcher
from connect_trio.links import open_links
from connect_trio.mux.budget import Budget
from connect_trio.roles.listeners import listen, port_of
from connect_trio.roles.registry import redis_from
from connect_trio.roles.stopping import Farewell, run_with_farewell
from connect_trio.roles.trust import client_tls, trust_from
from connect_trio.roles.tunnel_servers import open_tunnel_servers
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.names import HostNames
from connect_trio.routing.registry import Registry, Store
from connect_trio.transport.trusted import Dialler

STOP = 2.0  # seconds that running requests have when the process is asked to stop

logger = logging.getLogger(__name__)


class StorageUnusable(Exception):
    """CONNECT_STORAGE_ROOT cannot be written; the text says how to mend it."""


@attrs.frozen
class ProxyRunning:
    """http_port: where visitors connect. extra_port: this process's own second port, None for none."""

    http_port: int
    extra_port: int | None


async def run_proxy(
    settings: ProxySettings,
    *,
    registry: Registry | None = None,
    store: Store | None = None,
    task_status: trio.TaskStatus[ProxyRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then running requests have a moment to end.

    registry, store: None for Redis, as the settings say; without Redis and CONNECT_CLUSTER_KEY, only servers in this
    process are trusted. Raises CannotListen, KeyUnusable, StorageUnusable, TlsUnusable and RegistryUnavailable, in
    groups; starts with a ProxyRunning.
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
    async with AsyncExitStack() as stack:
        listeners = _listeners(settings, stack)
        redis = None
        if registry is None or store is None:
            redis = await redis_from(settings, stack)
            registry, store = redis.registry, redis.store
        trust = await trust_from(settings, redis.store if redis is not None else None)
        identity = await stack.enter_async_context(_identity(settings, store))
        cached = CachedRegistry(registry, ttl=settings.local_cache_ttl)
        instance = secrets.token_bytes(16)
        dialler = Dialler(trust.keyring, instance=instance, tls=client_tls(settings))
        links = open_links(
            cached,
            instance=instance,
            connect=dialler.link,
            patience=settings.resume_timeout,
            budget=Budget(settings.stream_memory),
        )
        dialer, _ = await stack.enter_async_context(links)
        servers = await stack.enter_async_context(open_tunnel_servers(settings.tunnel_url))
        edge = Edge(
            gate=_gate(settings, names, identity, store),
            dialer=dialer,
            names=names,
            pick_server=servers.pick,
            connect=lambda ip, port: dialler.tunnel(ip, port, name=servers.name_of(ip, port)),
            instance=instance,
            trusted_proxies=[str(network) for network in settings.trusted_proxies],
        )
        watcher = SessionWatcher(identity.control_plane)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trust.keep)
            nursery.start_soon(partial(watcher.run, edge.scopes.live, edge.scopes.end))
            await nursery.start(edge.serve, listeners)
            extra = port_of(listeners[1]) if len(listeners) > 1 else None
            logger.info("proxy is ready", extra={"port": port_of(listeners[0]), "url": settings.proxy_url})
            task_status.started((ProxyRunning(port_of(listeners[0]), extra), partial(edge.drain, STOP)))


def _listeners(settings: ProxySettings, stack: AsyncExitStack) -> list[socket.socket]:
    """The shared port, and this process's own one if it has one; both are closed with `stack`."""
    host = settings.http_host
    shared = listen(host, settings.http_port, variable="CONNECT_HTTP_PORT", reuse_port=settings.reuse_port)
    listeners = [stack.enter_context(shared)]
    if settings.extra_port is not None:
        listeners.append(stack.enter_context(listen(host, settings.extra_port, variable="CONNECT_HTTP_EXTRA_PORT")))
    return listeners


def _identity(settings: ProxySettings, store: Store) -> AbstractAsyncContextManager[Identity]:
    return open_identity(
        platform_url=settings.platform_url,
        proxy_url=settings.proxy_url,
        store=store,
        storage_root=_storage(settings.storage_root),
        client_name=settings.client_name,
        grant_type=settings.grant_type,
        registration_token=settings.registration_token,
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
