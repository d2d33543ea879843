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
        meaning="What all streams of the process may keep in memory together, in bytes.",
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
