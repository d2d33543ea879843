# ruff: noqa: RUF009 - `variable` returns an attrs field
"""The settings of the agent; see settings.py."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path

import attrs

from connect_trio.config import converters as to
from connect_trio.config.environment import variable


@attrs.frozen(kw_only=True)
class AgentSettings:
    """The agent: runs beside the tool. command: the tool's command, from the command line; empty if it runs already."""

    proxy_url: str = variable(
        "CONNECT_PROXY_URL", to.base_url, required=True, meaning="URL of Connect itself, where the agent dials in."
    )
    token: str | None = variable(
        "CONNECT_AGENT_TOKEN",
        to.token,
        secret=True,
        addition=True,
        meaning="Token, bound to one session, that the agent authenticates with.",
    )
    token_file: Path | None = variable(
        "CONNECT_AGENT_TOKEN_FILE",
        to.readable_file,
        addition=True,
        meaning="File with the agent's token, read again before each dial; instead of CONNECT_AGENT_TOKEN.",
    )
    tool_port: int | None = variable(
        "CONNECT_TOOL_PORT", to.port, meaning="Port of the tool on 127.0.0.1; if not set, a free one is chosen."
    )
    tool_path_prefix: str = variable(
        "CONNECT_TOOL_PATH_PREFIX",
        to.path_prefix,
        default="",
        meaning="Path below which the tool serves, if Studios are below paths.",
    )
    tool_start_timeout: float = variable(
        "CONNECT_TOOL_START_TIMEOUT",
        to.positive_duration,
        default="60s",
        addition=True,
        meaning="How long the tool may take until it listens on its port.",
    )
    root: Path = variable(
        "CONNECT_FILES_ROOT",
        to.existing_folder,
        default=".",
        addition=True,
        meaning="Folder that the integrated file server shows, and where the tool is started.",
    )
    tunnels: int = variable(
        "CONNECT_AGENT_TUNNELS",
        to.tunnels,
        default="2",
        addition=True,
        meaning="How many tunnels the agent keeps, 1 to 4, to different servers where there are several.",
    )
    websocket_only: bool = variable(
        "CONNECT_TUNNEL_WEBSOCKET_ONLY",
        to.boolean,
        default="false",
        addition=True,
        meaning="Whether the tunnel is a WebSocket from the first dial on, without a try of the leaner upgrade.",
    )
    stream_memory: int = variable(
        "CONNECT_STREAM_MEMORY",
        to.size,
        default="256MiB",
        addition=True,
        meaning="What all streams of the process may keep in memory together; the fuller, the less each one.",
    )
    ssh: bool = variable(
        "CONNECT_AGENT_SSH",
        to.boolean,
        default="true",
        addition=True,
        meaning="Whether the agent serves SSH users; who may come is the proxy's to decide.",
    )
    ssh_channels: int = variable(
        "CONNECT_AGENT_SSH_CHANNELS",
        to.channels,
        default="1000",
        addition=True,
        meaning="How many channels of SSH users there may be at once: shells, commands and forwarded connections.",
    )
    ssh_shell: Path | None = variable(
        "CONNECT_AGENT_SSH_SHELL",
        to.program,
        addition=True,
        meaning="Shell of SSH users; if not set, that of SHELL, else that of the user's entry in /etc/passwd.",
    )
    ssh_sftp_server: Path | None = variable(
        "CONNECT_AGENT_SSH_SFTP_SERVER",
        to.program,
        addition=True,
        meaning="OpenSSH's sftp-server, if it is not in one of the usual places.",
    )
    ssh_accept_env: tuple[str, ...] = variable(
        "CONNECT_AGENT_SSH_ACCEPT_ENV",
        to.variable_names,
        default="LANG LC_* COLORTERM NO_COLOR TZ GIT_PROTOCOL GIT_AUTHOR_* GIT_COMMITTER_*",
        addition=True,
        meaning="Environment variables that SSH clients may set, separated by spaces.",
    )
    ssh_forward: bool = variable(
        "CONNECT_AGENT_SSH_FORWARD",
        to.boolean,
        default="true",
        addition=True,
        meaning="Whether SSH users may forward connections into the Studio (ssh -L, -D, -W, VS Code).",
    )
    ssh_forward_networks: tuple[to.Network, ...] = variable(
        "CONNECT_AGENT_SSH_FORWARD_CIDRS",
        to.networks,
        default="127.0.0.0/8 ::1/128",
        addition=True,
        meaning="Where these may go, as CIDR blocks separated by spaces; never to where clouds keep credentials.",
    )
    ssh_remote_forward: bool = variable(
        "CONNECT_AGENT_SSH_REMOTE_FORWARD",
        to.boolean,
        default="true",
        addition=True,
        meaning="Whether the agent listens, on loopback only, for connections out of the Studio (ssh -R).",
    )
    ssh_agent_forward: bool = variable(
        "CONNECT_AGENT_SSH_AGENT_FORWARD",
        to.boolean,
        default="false",
        addition=True,
        meaning="Whether the Studio may ask the SSH agents of its users (ssh -A).",
    )
    log_level: str = variable(
        "CONNECT_CLIENT_LOG_LEVEL", to.log_level, default="INFO", meaning="Log level: DEBUG, INFO, WARN or ERROR."
    )
    log_level_file: Path | None = variable(
        "CONNECT_CLIENT_LOG_LEVEL_FILE",
        to.path,
        addition=True,
        meaning="File with the log level, read at SIGHUP; instead of CONNECT_CLIENT_LOG_LEVEL from then on.",
    )
    command: tuple[str, ...] = ()
    tool_host: str = attrs.field(default="127.0.0.1", init=False)

    @staticmethod
    def problems(given: AbstractSet[str]) -> list[str]:
        """What is wrong with the variables together."""
        one, other = "CONNECT_AGENT_TOKEN", "CONNECT_AGENT_TOKEN_FILE"
        if one in given and other in given:
            return [f"{one} and {other} are both set; set only one of them"]
        if one not in given and other not in given:
            return [f"{one} is not set, nor is {other}; set one of them to the session's token"]
        return []
