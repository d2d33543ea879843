"""What a user puts into ~/.ssh/config to reach a Studio by a short name."""

from __future__ import annotations

from connect_trio.routing.names import session_of

_BLOCK = """\
Host {label}
    HostName {host}
    Port {port}
    User {user}@{label}
    # What this connection may use besides files and a shell; take out the "#" where you want it.
    # ForwardAgent yes
    ServerAliveInterval 15
    ServerAliveCountMax 4
    # Several sessions over one connection: quicker, and they share its 30 channels.
    ControlMaster auto
    ControlPath ~/.ssh/connect-%C
    ControlPersist 60
"""


def client_config(*, label: str, host: str, port: int, user: str) -> str:
    """A block for ~/.ssh/config. label: "a23ce7967". Raises ValueError where it names no Studio."""
    session_of(label)
    return _BLOCK.format(label=label, host=_reachable(host), port=port, user=user)


def _reachable(host: str) -> str:
    """Names below "localhost" are this machine, which not every resolver knows."""
    return "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
