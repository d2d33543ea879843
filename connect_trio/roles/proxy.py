"""The role `proxy`: visitors' HTTP and WebSocket, and the way in for agents' tunnels."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import trio

from connect_trio.config import ProxySettings
from connect_trio.edge.listener import Edge
from connect_trio.edge.login import LoginGate
from connect_trio.edge.login_ends import Lives
from connect_trio.identity.path_routing import PathRouting
from connect_trio.identity.registration import ClientCredentials
from connect_trio.identity.reporter import ActivityReporter
from connect_trio.identity.service import Identity, open_identity
from connect_trio.link_pool import LinkPool
from connect_trio.links import LinkDialer, open_links
from connect_trio.metrics import PROXY
from connect_trio.mux.budget import Budget
from connect_trio.roles.draining import Drain, ProxyDrain
from connect_trio.roles.life import this_life
from connect_trio.roles.listeners import all_listening, listen, port_of
from connect_trio.roles.managing import LISTENERS, PLATFORM, REDIS, Managed
from connect_trio.roles.measuring import CountingRegistry, read_proxy
from connect_trio.roles.registry import answers, in_memory, redis_from
from connect_trio.roles.reporting import report_activity
from connect_trio.roles.ssh import Ssh, read_ssh, ssh_from
from connect_trio.roles.stopping import Farewell, run_with_farewell
from connect_trio.roles.trust import Trust, client_tls, platform_tls, reload_client_tls, trust_from
from connect_trio.roles.tunnel_servers import TunnelServers, open_tunnel_servers
from connect_trio.roles.watching import Watching
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.names import HostNames, address_of
from connect_trio.routing.redis import Redis
from connect_trio.routing.registry import Registry, Store
from connect_trio.transport.trusted import Dialler

logger = logging.getLogger(__name__)


class StorageUnusable(Exception):
    """CONNECT_STORAGE_ROOT cannot be written; the text says how to mend it."""


@attrs.frozen
class ProxyRunning:
    """http_port: where visitors connect. extra_port: this process's own second port, management_port: None for none.

    ssh_port, ssh_fingerprint: of the SSH edge, None where it is not enabled.
    """

    http_port: int
    extra_port: int | None
    management_port: int | None = None
    ssh_port: int | None = None
    ssh_fingerprint: str | None = None


async def run_proxy(
    settings: ProxySettings,
    *,
    registry: Registry | None = None,
    store: Store | None = None,
    task_status: trio.TaskStatus[ProxyRunning] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then it is drained: what runs may end, and agents come by another way.

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
    names = HostNames(settings.proxy_url, settings.studio_domain)
    managed = Managed("proxy", PROXY)
    managed.health.provide(PLATFORM, partial(_is_there, settings.platform_url))
    async with AsyncExitStack() as stack:
        listeners = _listeners(settings, stack)
        await stack.enter_async_context(managed.open(settings))
        redis, registry, store = await _shared(settings, registry, store, stack)
        managed.health.provide(REDIS, in_memory if redis is None else partial(answers, redis))
        trust = await trust_from(settings, redis.store if redis is not None else None)
        identity = await stack.enter_async_context(_identity(settings, store))
        counted = CountingRegistry(registry)
        cached = CachedRegistry(counted, ttl=settings.local_cache_ttl)
        instance = secrets.token_bytes(16)
        dialler = _dialler(settings, trust, instance)
        dialer, pool = await stack.enter_async_context(_links(settings, cached, dialler, instance))
        servers = await stack.enter_async_context(open_tunnel_servers(settings.tunnel_url))
        paths = PathRouting(settings.path_routing, identity.background.path_routing)
        gate = _gate(settings, names, identity, store, paths)
        edge = _edge(settings, gate, names, dialer, servers, dialler, instance, paths)
        reporter = ActivityReporter(edge.activity, identity.background, reporter=instance.hex())
        ssh = ssh_from(settings, identity, dialer, edge, stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trust.keep)
            nursery.start_soon(report_activity, reporter)
            watching = Watching(edge.scopes, gate, identity, nursery)
            await nursery.start(paths.run)
            await nursery.start(edge.serve, listeners)
            managed.health.provide(LISTENERS, partial(all_listening, *listeners))
            if ssh is not None:
                await nursery.start(ssh.edge.serve, ssh.listener)
                managed.health.provide(LISTENERS, partial(all_listening, *listeners, ssh.listener))
            managed.read = lambda: chain(
                read_proxy(edge, dialer, pool, counted, reporter), watching.readings(), read_ssh(ssh)
            )
            draining = ProxyDrain(edge, pool, cached, grace=settings.drain_grace, ssh=None if ssh is None else ssh.edge)
            drain = Drain(draining.run, managed.health, nursery)
            managed.drains(drain)
            logger.info("proxy is ready", extra={"port": port_of(listeners[0]), "url": settings.proxy_url})
            task_status.started((_running(listeners, managed, ssh), drain.finish))


async def _shared(
    settings: ProxySettings, registry: Registry | None, store: Store | None, stack: AsyncExitStack
) -> tuple[Redis | None, Registry, Store]:
    """What proxies share, and the Redis that it is in, if it is in one."""
    if registry is not None and store is not None:
        return None, registry, store
    redis = await redis_from(settings, stack)
    return redis, redis.registry, redis.store


def _edge(
    settings: ProxySettings,
    gate: LoginGate,
    names: HostNames,
    dialer: LinkDialer,
    servers: TunnelServers,
    dialler: Dialler,
    instance: bytes,
    paths: PathRouting,
) -> Edge:
    return Edge(
        gate=gate,
        dialer=dialer,
        names=names,
        pick_server=servers.pick,
        connect=lambda ip, port: dialler.tunnel(ip, port, name=servers.name_of(ip, port)),
        instance=instance,
        trusted_proxies=[str(network) for network in settings.trusted_proxies],
        frame_ancestors=settings.ancestors,
        path_routing=paths,
    )


def _running(listeners: Sequence[socket.socket], managed: Managed, ssh: Ssh | None) -> ProxyRunning:
    return ProxyRunning(
        http_port=port_of(listeners[0]),
        extra_port=port_of(listeners[1]) if len(listeners) > 1 else None,
        management_port=managed.port,
        ssh_port=None if ssh is None else ssh.port,
        ssh_fingerprint=None if ssh is None else ssh.edge.host_key.fingerprint,
    )


def _dialler(settings: ProxySettings, trust: Trust, instance: bytes) -> Dialler:
    """What connects to servers; authorities are read anew when the process is asked to."""
    dialler = Dialler(trust.keyring, instance=instance, tls=client_tls(settings))
    if dialler.tls is not None:
        this_life().on_reload("authorities of links", partial(reload_client_tls, settings, dialler))
    return dialler


async def _is_there(url: str) -> bool:
    """Whether somebody listens at this URL. Raises OSError."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    async with await trio.open_tcp_stream(address_of(parts.hostname or ""), port):
        return True


def _listeners(settings: ProxySettings, stack: AsyncExitStack) -> list[socket.socket]:
    """The shared port, and this process's own one if it has one; both are closed with `stack`."""
    host = settings.http_host
    shared = listen(host, settings.http_port, variable="CONNECT_HTTP_PORT", reuse_port=settings.reuse_port)
    listeners = [stack.enter_context(shared)]
    if settings.extra_port is not None:
        listeners.append(stack.enter_context(listen(host, settings.extra_port, variable="CONNECT_HTTP_EXTRA_PORT")))
    return listeners


def _links(
    settings: ProxySettings, registry: CachedRegistry, dialler: Dialler, instance: bytes
) -> AbstractAsyncContextManager[tuple[LinkDialer, LinkPool]]:
    return open_links(
        registry,
        instance=instance,
        connect=dialler.link,
        patience=settings.resume_timeout,
        budget=Budget(settings.stream_memory),
    )


def _identity(settings: ProxySettings, store: Store) -> AbstractAsyncContextManager[Identity]:
    return open_identity(
        platform_url=settings.platform_url,
        proxy_url=settings.proxy_url,
        store=store,
        storage_root=_storage(settings.storage_root),
        client_name=settings.client_name,
        grant_type=settings.grant_type,
        registration_token=settings.registration_token,
        client=_client(settings),
        tls=platform_tls(settings),
        oidc_path=settings.oidc_path,
    )


def _client(settings: ProxySettings) -> ClientCredentials | None:
    """The client that Platform was told of by hand, if it was."""
    if settings.client_id is None or settings.client_secret is None:
        return None
    return ClientCredentials(client_id=settings.client_id, client_secret=settings.client_secret)


def _gate(settings: ProxySettings, names: HostNames, identity: Identity, store: Store, paths: PathRouting) -> LoginGate:
    idle, longest = settings.logins
    return LoginGate(
        names=names,
        platform_url=settings.platform_url,
        oidc=identity.oidc,
        authorizer=identity.authorizer,
        store=store,
        store_stale=settings.local_cache_ttl,
        path_routing=paths,
        lives=Lives(idle=idle, longest=longest),
    )


def _storage(root: Path) -> Path:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageUnusable(
            f"CONNECT_STORAGE_ROOT={root} cannot be used ({exc.strerror}): name a folder that this process may write"
        ) from exc
    return root
