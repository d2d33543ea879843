"""The settings of each role, filled from environment variables; see docs/configuration.md.

Only the roles and the command line see these; every other module takes plain arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connect_trio.config.converters import log_level
from connect_trio.config.environment import (
    ConfigError,
    Variable,
    file_of,
    load,
    names,
    secret_texts,
    unknown_variables,
    variables,
)
from connect_trio.config.reporting import Report, report_on, settings_warnings
from connect_trio.config.settings import ProxySettings, RedisSettings, ServerSettings
from connect_trio.config.settings_agent import AgentSettings
from connect_trio.config.settings_platform import PlatformSettings

__all__ = [
    "NOT_READ",
    "ROLES",
    "AgentSettings",
    "ConfigError",
    "PlatformSettings",
    "ProxySettings",
    "RedisSettings",
    "Report",
    "ServerSettings",
    "Variable",
    "file_of",
    "load_agent",
    "load_platform",
    "load_proxy",
    "load_server",
    "log_level",
    "names",
    "report",
    "secret_texts",
    "settings_warnings",
    "variables",
    "warnings_for",
]


ROLES: Mapping[str, type[Any]] = {
    "server": ServerSettings,
    "proxy": ProxySettings,
    "agent": AgentSettings,
    "platform": PlatformSettings,
}

NOT_READ = (
    "CONNECT_POLICY_B64",
    "CONNECT_POLICY_FILE",
    "CONNECT_TELEMETRY_FLUSH_INTERVAL",
    "CONNECT_TELEMETRY_TTL",
    "CONNECT_TELEMETRY_STREAM_EMIT_INTERVAL",
)
"""Variables of the operators' contract that this version does not read."""


def load_server(environ: Mapping[str, str]) -> ServerSettings:
    """Raises ConfigError with a line for every error."""
    return load(ServerSettings, environ)


def load_proxy(environ: Mapping[str, str]) -> ProxySettings:
    """Raises ConfigError with a line for every error."""
    return load(ProxySettings, environ)


def load_agent(environ: Mapping[str, str], *, command: tuple[str, ...] = ()) -> AgentSettings:
    """Raises ConfigError with a line for every error."""
    return load(AgentSettings, environ, command=command)


def load_platform(environ: Mapping[str, str]) -> PlatformSettings:
    """Raises ConfigError with a line for every error."""
    return load(PlatformSettings, environ)


def warnings_for(environ: Mapping[str, str]) -> list[str]:
    """A line for every variable CONNECT_* that no role reads, with the name that was probably meant."""
    known = {name for settings in ROLES.values() for name in names(settings)}
    return unknown_variables(environ, known=known, not_read=NOT_READ)


def report(role: str, environ: Mapping[str, str]) -> Report:
    """What holds for a role of ROLES, with the warnings of `warnings_for`."""
    found = report_on(ROLES[role], environ)
    return Report(rows=found.rows, errors=found.errors, warnings=warnings_for(environ) + found.warnings)
