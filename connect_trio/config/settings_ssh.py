# ruff: noqa: RUF009 - `variable` returns an attrs field
"""The settings of the proxy's SSH edge."""

from __future__ import annotations

from pathlib import Path

import attrs

from connect_trio.config import converters as to
from connect_trio.config.environment import variable


@attrs.frozen(kw_only=True, slots=False)  # or there could be no second base class with fields
class SshSettings:
    """Part of the proxy's settings."""

    ssh_enabled: bool = variable(
        "CONNECT_SSH_ENABLED", to.boolean, default="false", meaning="Whether the proxy serves SSH."
    )
    ssh_addr: tuple[str, int] = variable(
        "CONNECT_SSH_ADDR", to.listen_address, default=":2222", meaning="Address and port where SSH clients connect."
    )
    ssh_key_path: Path | None = variable(
        "CONNECT_SSH_KEY_PATH",
        to.readable_file,
        meaning="File with the host key; if none is set, one is made and kept in CONNECT_STORAGE_ROOT.",
    )
    ssh_key_value: bytes | None = variable(
        "CONNECT_SSH_KEY_VALUE_BASE64",
        to.base64_text,
        secret=True,
        meaning="Host key as base64 of what such a file holds; CONNECT_SSH_KEY_PATH wins over it.",
    )
    ssh_max_connections: int = variable(
        "CONNECT_SSH_MAX_CONNECTIONS",
        to.whole_number(1, 100_000, "a number of connections"),
        default="2000",
        meaning="How many SSH connections there may be at once; further ones are turned away.",
    )
    ssh_max_channels: int = variable(
        "CONNECT_SSH_MAX_CONN_CHANNELS",
        to.whole_number(1, 1000, "a number of channels"),
        default="30",
        meaning="How many channels one SSH connection may have at once, whichever end opened them.",
    )
    ssh_handshake_timeout: float = variable(
        "CONNECT_SSH_HANDSHAKE_TIMEOUT",
        to.positive_duration,
        default="1m",
        meaning="How long an SSH client may take until it is logged in.",
    )
