"""The proxy's SSH edge: its key, its port and its numbers, as the settings say."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import AsyncExitStack

import attrs
import trio

from connect_trio.config import ProxySettings
from connect_trio.dial import Dialer
from connect_trio.edge.listener import Edge
from connect_trio.edge.scopes import Hold, Kind, SessionScopes
from connect_trio.identity.grants import Grant
from connect_trio.identity.service import Identity
from connect_trio.identity.watcher_keys import UsedKey
from connect_trio.metrics import Reading, readings
from connect_trio.roles.listeners import listen, port_of
from connect_trio.ssh.hostkeys import host_key_from
from connect_trio.ssh.listener import SshEdge
from connect_trio.ssh.platform_keys import PlatformKeys


@attrs.frozen
class SshScopes:
    """A `ssh.scopes.Scopes`: SSH connections among all that is open."""

    scopes: SessionScopes

    def enter(self, grant: Grant, scope: trio.CancelScope, key: UsedKey) -> Hold:
        return self.scopes.enter(grant, Kind.SSH, scope, key=key)


@attrs.frozen
class Ssh:
    """edge: serves `listener`."""

    edge: SshEdge
    listener: socket.socket

    @property
    def port(self) -> int:
        return port_of(self.listener)


def ssh_from(
    settings: ProxySettings, identity: Identity, dialer: Dialer, browsers: Edge, stack: AsyncExitStack
) -> Ssh | None:
    """None where it is not enabled. browsers: the HTTP edge, which knows all that is open.

    Raises CannotListen and HostKeyUnusable.
    """
    if not settings.ssh_enabled:
        return None
    host, port = settings.ssh_addr
    edge = SshEdge(
        host_key=host_key_from(settings.ssh_key_path, settings.ssh_key_value, settings.storage_root),
        checker=PlatformKeys(identity.control_plane),
        authorize=identity.authorizer.check,
        dialer=dialer,
        activity=browsers.activity,
        scopes=SshScopes(browsers.scopes),
        max_connections=settings.ssh_max_connections,
        max_channels=settings.ssh_max_channels,
        handshake_timeout=settings.ssh_handshake_timeout,
        trusted_proxies=settings.trusted_proxies,
    )
    listener = listen(host, port, variable="CONNECT_SSH_ADDR", reuse_port=settings.reuse_port)
    return Ssh(edge, stack.enter_context(listener))


def read_ssh(ssh: Ssh | None) -> Iterable[Reading]:
    if ssh is None:
        return
    edge, counts = ssh.edge, ssh.edge.counts
    states = {"entered": edge.connections - edge.crowd.strangers, "stranger": edge.crowd.strangers}
    yield from readings("connect_proxy_ssh_connections", states)
    logins = {"entered": counts.logins, "refused": counts.refused, "turned_away": counts.turned_away}
    yield from readings("connect_proxy_ssh_logins_total", logins)
    yield Reading("connect_proxy_ssh_channels", counts.open)
    yield from readings(
        "connect_proxy_ssh_channels_total", {"opened": counts.channels, "refused": counts.channels_refused}
    )
