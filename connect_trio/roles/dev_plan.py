"""What the development stack consists of, decided before anything starts: ports, keys, the environment of each role.

Whether the roles then run in one process or in many, they are configured by the same variables.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from connect_trio.devplatform.state import PlatformState, Studio, User
from connect_trio.logs import printable
from connect_trio.ports import LOOPBACK, NoFreePort, free_ports
from connect_trio.roles.listeners import CannotListen, listen
from connect_trio.routing.names import HostNames, studio_base

SSH_PORT = 2222

MANAGEMENT_KEY = "CONNECT_MANAGEMENT_AUTH_KEY"

AGENTS_WITHIN = 2.0
"""Seconds that readiness waits for agents; what is late comes up by itself."""

_LOG_LEVELS = ("CONNECT_LOG_LEVEL", "CONNECT_CLIENT_LOG_LEVEL")
_STREAMS = ("CONNECT_RESUME_TIMEOUT", "CONNECT_STREAM_MEMORY")
_SSH_CAPS = ("CONNECT_SSH_MAX_CONNECTIONS", "CONNECT_SSH_MAX_CONN_CHANNELS", "CONNECT_SSH_HANDSHAKE_TIMEOUT")
_LEVEL_FILES = ("CONNECT_LOG_LEVEL_FILE", "CONNECT_CLIENT_LOG_LEVEL_FILE")
_DOMAIN = "CONNECT_STUDIO_DOMAIN"
_PATHS = "CONNECT_PATH_ROUTING"
_INHERITED = (
    *_LOG_LEVELS,
    *_LEVEL_FILES,
    *_STREAMS,
    *_SSH_CAPS,
    "CONNECT_TUNNEL_WEBSOCKET_ONLY",
    "CONNECT_CLUSTER_KEY",
    "CONNECT_DRAIN_GRACE",
    _DOMAIN,
    "CONNECT_FRAME_ANCESTORS",
    _PATHS,
)
_PLATFORM_PATHS = "TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING"
_DRAIN_GRACE = "2s"  # whoever presses Ctrl-C does not want to wait
_LONGEST_NAME = 32
_LONGEST_SHOWN = 80


class CannotRun(Exception):
    """The development stack cannot run like this; the text says why, and how to mend it."""


@attrs.frozen(kw_only=True)
class DevOptions:
    """What `connect_trio dev` was asked for.

    port, platform_port, ssh_port: 0 for any free one; ssh_port None: 2222 if that is free and `port` is not 0, else
    any. authorized_key: file with public keys of alice, None for the user's own ones. root: the folder that Studios
    show. command: the tool of both sessions; empty for the integrated file server. processes: each role as
    processes of its own, as many as `servers` and `proxies` say, over the Redis at `redis` ("host:port") or one of
    our own. json: one line of JSON when ready. state: the file that always holds the same object.
    """

    port: int = 8080
    platform_port: int = 8081
    root: Path = attrs.field(factory=Path.cwd)
    command: tuple[str, ...] = ()
    processes: bool = False
    servers: int = 1
    proxies: int = 1
    redis: str | None = None
    json: bool = False
    state: Path | None = None
    ssh_port: int | None = None
    authorized_key: Path | None = None


@attrs.frozen(kw_only=True)
class ServerPorts:
    """Ports of one server on loopback: where proxies connect, and where tunnels arrive."""

    listener: int
    tunnel: int


@attrs.frozen(kw_only=True)
class Plan:
    """Everything that is decided. Made by `make_plan`.

    port, platform_port, ssh_port: never 0. ssh_key: file with the host key of SSH, None for one that proxies make.
    ssh_fingerprint: of it. ssh_users_keys: public keys of alice, a line each. extra_ports: each proxy's own port,
    if there are several processes. management_ports: of servers and proxies, likewise. redis_port: of our own
    Redis; None if none is needed. work: a folder for this run. environ: what children inherit of our environment.
    """

    options: DevOptions
    port: int
    platform_port: int
    ssh_port: int
    servers: tuple[ServerPorts, ...]
    extra_ports: tuple[int, ...]
    management_ports: Mapping[str, tuple[int, ...]]
    redis_port: int | None
    work: Path
    environ: Mapping[str, str]
    ssh_key: Path | None = None
    ssh_fingerprint: str | None = None
    ssh_users_keys: tuple[str, ...] = ()
    dev_key: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    registration_token: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    management_key: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def management(self) -> dict[str, list[str]]:
        """Where each process of a role is managed."""
        return {role: [f"http://{LOOPBACK}:{port}" for port in ports] for role, ports in self.management_ports.items()}

    @property
    def connect_url(self) -> str:
        return f"http://connect.localhost:{self.port}"

    @property
    def platform_url(self) -> str:
        return f"http://localhost:{self.platform_port}"

    @property
    def tool(self) -> str:
        """A short name of the sessions' tool, for people to read."""
        return tool_name(self.options.command)

    @property
    def studios(self) -> Sequence[Studio]:
        """The sessions of the development Platform that run, each with an agent."""
        return tuple(studio for studio in PlatformState(tool=self.tool).all_studios() if studio.running)

    @property
    def users(self) -> Sequence[User]:
        return tuple(PlatformState(tool=self.tool).users.values())

    @property
    def names(self) -> HostNames:
        return HostNames(self.connect_url, self.environ.get(_DOMAIN, "").strip() or None)

    def studio_url(self, studio: Studio) -> str:
        return self.names.studio_url(studio.label)

    def path_url(self, studio: Studio) -> str | None:
        """The same below a path of Connect's own host; None where paths are off."""
        return self.names.studio_path_url(studio.label) if self.path_routing else None

    def token_file(self, studio: Studio) -> Path:
        return self.work / f"agent-{studio.id}.token"

    @property
    def redis_address(self) -> str:
        """host:port; in one process nobody connects to it."""
        return self.options.redis or f"{LOOPBACK}:{self.redis_port or 6379}"

    def platform_env(self) -> dict[str, str]:
        return self._env(
            PLATFORM_URL=self.platform_url,
            CONNECT_PROXY_URL=self.connect_url,
            CONNECT_DEVPLATFORM_KEY=self.dev_key,
            CONNECT_DEVPLATFORM_STATE=str(self.work / "platform"),
            CONNECT_DEVPLATFORM_TOOL=self.tool,
            CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN=self.registration_token,
        )

    def server_env(self, number: int) -> dict[str, str]:
        ports = self.servers[number]
        return self._env(
            **self._redis_env(),
            **self._life_env("server", number),
            CONNECT_BIND_HOST=LOOPBACK,
            CONNECT_LISTENER_PORT=str(ports.listener),
            CONNECT_TUNNEL_PORT=str(ports.tunnel),
            CONNECT_ADVERTISE_ADDRESS=f"{LOOPBACK}:{ports.listener}",
        )

    def proxy_env(self, number: int) -> dict[str, str]:
        shared: dict[str, str] = {}
        if self.extra_ports:
            shared = {
                "CONNECT_HTTP_REUSE_PORT": "true",
                "CONNECT_HTTP_EXTRA_PORT": str(self.extra_ports[number]),
            }
        return self._env(
            **self._redis_env(),
            **self._life_env("proxy", number),
            **shared,
            CONNECT_HTTP_HOST=LOOPBACK,
            CONNECT_HTTP_PORT=str(self.port),
            CONNECT_PROXY_URL=self.connect_url,
            CONNECT_TUNNEL_URL=",".join(f"{LOOPBACK}:{ports.tunnel}" for ports in self.servers),
            PLATFORM_URL=self.platform_url,
            CONNECT_STORAGE_ROOT=str(self.work / f"proxy-{number + 1}"),
            CONNECT_OIDC_CLIENT_REGISTRATION_TOKEN=self.registration_token,
            CONNECT_SSH_ENABLED="true",
            CONNECT_SSH_ADDR=f"{LOOPBACK}:{self.ssh_port}",
            **({"CONNECT_SSH_KEY_PATH": str(self.ssh_key)} if self.ssh_key else {}),
        )

    def agent_env(self, studio: Studio) -> dict[str, str]:
        return self._env(
            CONNECT_PROXY_URL=self.connect_url,
            CONNECT_AGENT_TOKEN_FILE=str(self.token_file(studio)),
            CONNECT_FILES_ROOT=str(self.options.root),
            **({"CONNECT_TOOL_PATH_PREFIX": studio_base(studio.label)} if self.path_routing else {}),
        )

    @property
    def path_routing(self) -> bool:
        """Whether Studios are below paths, and their tools have to serve there."""
        setting = self.environ.get(_PATHS, "").strip() or "auto"
        return setting == "on" or (
            setting == "auto" and self.environ.get(_PLATFORM_PATHS, "").strip().lower() in ("true", "1", "t")
        )

    def _redis_env(self) -> dict[str, str]:
        # Two stacks over one Redis have the same two sessions, so each has keys of its own.
        return {
            "CONNECT_REDIS_ADDRESS": self.redis_address,
            "CONNECT_REDIS_PREFIX": f"connect:dev:{self.port}",
        }

    def _life_env(self, role: str, number: int) -> dict[str, str]:
        grace = {"CONNECT_DRAIN_GRACE": self.environ.get("CONNECT_DRAIN_GRACE", _DRAIN_GRACE)}
        if role not in self.management_ports:
            return grace
        return {
            **grace,
            "CONNECT_MANAGEMENT_PORT": str(self.management_ports[role][number]),
            MANAGEMENT_KEY: self.management_key,
        }

    def _env(self, **variables: str) -> dict[str, str]:
        return {**self.environ, **variables}


def make_plan(options: DevOptions, *, work: Path, environ: Mapping[str, str]) -> Plan:
    """Decide ports, keys and the tool's program.

    Raises CannotRun, and CannotListen if a port that was asked for is in use.
    """
    domain = environ.get(_DOMAIN, "").strip()
    try:
        HostNames("http://connect.localhost", domain or None)
    except ValueError as exc:
        raise CannotRun(f'{_DOMAIN} is "{printable(domain, _LONGEST_SHOWN)}": {exc}') from exc
    asked = [
        (options.port, "--port"),
        (options.platform_port, "--platform-port"),
        (options.ssh_port or 0, "--ssh-port"),
    ]
    if options.port and options.port == options.platform_port:
        raise CannotRun(f"--port and --platform-port are both {options.port}; choose two different ones")
    for port, option in asked:
        # Looked at before anything starts, so that a child's failure is not the first to tell.
        listen(LOOPBACK, port, variable=option).close()
    proxies = options.proxies if options.processes else 0
    own_redis = options.processes and options.redis is None
    managed = {"server": options.servers, "proxy": proxies} if options.processes else {}
    needed = 3 + 2 * options.servers + proxies + sum(managed.values()) + 1
    try:
        free = free_ports(needed, besides=[port for port, _ in asked])
    except NoFreePort as exc:
        raise CannotRun(str(exc)) from exc
    return Plan(
        options=attrs.evolve(options, command=resolved(options.command, root=options.root)),
        port=options.port or free.pop(),
        platform_port=options.platform_port or free.pop(),
        ssh_port=options.ssh_port or (_usual_ssh_port(options) or free.pop()),
        servers=tuple(ServerPorts(listener=free.pop(), tunnel=free.pop()) for _ in range(options.servers)),
        extra_ports=tuple(free.pop() for _ in range(proxies)),
        management_ports={role: tuple(free.pop() for _ in range(count)) for role, count in managed.items()},
        redis_port=free.pop() if own_redis else None,
        work=work,
        environ=inherited(environ),
        management_key=environ.get(MANAGEMENT_KEY) or secrets.token_urlsafe(24),
    )


def _usual_ssh_port(options: DevOptions) -> int | None:
    """The one that everybody knows, unless it was said otherwise, or somebody has it."""
    if options.ssh_port is not None or options.port == 0:
        return None
    try:
        listen(LOOPBACK, SSH_PORT, variable="--ssh-port").close()
    except CannotListen:
        return None
    return SSH_PORT


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Our environment less what would configure a role behind our back. Roles are quiet unless told otherwise."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or not name.startswith(("CONNECT_", "PLATFORM_URL", "LOCAL_CACHE_TTL"))
    }
    return dict.fromkeys(_LOG_LEVELS, "WARN") | kept


def resolved(command: Sequence[str], *, root: Path) -> tuple[str, ...]:
    """The command with the whole path of its program, as tools are started elsewhere. Raises CannotRun.

    Looked for like a shell does from here, then from `root`, then beside our interpreter: a virtual environment need
    not be active.
    """
    if not command:
        return ()
    program, *arguments = command
    beside = str(Path(sys.executable).parent)
    found = shutil.which(program) or shutil.which(str(root / program)) or shutil.which(program, path=beside)
    if found is None:
        raise CannotRun(f"there is no program {program}: install it, or write its whole path")
    return (str(Path(found).absolute()), *arguments)


def tool_name(command: Sequence[str]) -> str:
    """The program's name, made fit for a name: "/usr/bin/Jupyter" -> "jupyter"; "files" without a command."""
    if not command:
        return "files"
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(command[0]).name.lower())
    return name.strip("-")[:_LONGEST_NAME].strip("-") or "tool"
