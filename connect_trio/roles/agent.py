"""The role `agent`: starts the tool of a Studio (or finds it), and serves it through a tunnel."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from connect_trio.agent.announcing import Announcer
from connect_trio.agent.client import TunnelClient
from connect_trio.agent.dialling import TunnelDialler
from connect_trio.agent.forward import Forwarder
from connect_trio.agent.listening import ListenPolicy, private_directory
from connect_trio.agent.places import Places
from connect_trio.agent.shell.programs import Setup
from connect_trio.agent.shell.serving import NoShells, ShellServer
from connect_trio.agent.shell.targets import TargetPolicy
from connect_trio.agent.tool import Tool, free_port, run_command, run_files
from connect_trio.config import ROLES, AgentSettings, variables
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.mux.hub import open_hub
from connect_trio.roles.stopping import Farewell, run_with_farewell

# What a tool must not see of the environment: every role's secrets, since `dev` runs all roles in one process.
SECRETS = {
    name
    for role in ROLES.values()
    for _, spec in variables(role)
    if spec.secret
    for name in (spec.name, f"{spec.name}_FILE")
}


@attrs.frozen
class AgentRunning:
    """tool_port: the loopback port of the tool. tool: what it is, in a word."""

    tool_port: int
    tool: str


async def run_agent(
    settings: AgentSettings, *, task_status: trio.TaskStatus[AgentRunning] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled. Starts with an AgentRunning once a tunnel is up; raises TunnelRefused, OSError."""
    with private_directory() as directory:
        places = ListenPolicy(
            directory=directory,
            forwards=settings.ssh and settings.ssh_remote_forward,
            agents=settings.ssh and settings.ssh_agent_forward,
        )
        run = partial(_run, settings, places)
        await run_with_farewell(run, task_status=task_status)


async def _run(
    settings: AgentSettings, policy: ListenPolicy, *, task_status: trio.TaskStatus[tuple[AgentRunning, Farewell]]
) -> None:
    async with trio.open_nursery() as nursery, open_hub() as hub:
        tool, name = await _start_tool(settings, nursery)
        nursery.start_soon(tool.watch)
        announcer = Announcer(nursery, policy)
        shells = _shells(settings, nursery, announcer) if settings.ssh else NoShells()
        forwarder = Forwarder(tool, nursery, announcer, shells)
        acceptor = Acceptor(forwarder.on_open, budget=Budget(settings.stream_memory))
        acceptor.alarm = hub.alarm
        hub.add(acceptor)
        dialler = TunnelDialler(
            proxy_url=settings.proxy_url,
            token=_token_source(settings),
            instance=secrets.token_bytes(16),
            websocket_only=settings.websocket_only,
        )
        places = Places()
        for slot in range(settings.tunnels):
            nursery.start_soon(TunnelClient(hub, acceptor, dialler, places, slot=slot).run, name=f"tunnel {slot}")
        await places.up.wait()
        task_status.started((AgentRunning(tool.port, name), partial(_take_leave, acceptor)))
        await trio.sleep_forever()


async def _take_leave(acceptor: Acceptor) -> None:
    """Visitors need not wait for an agent that does not come back."""
    acceptor.shut_down("the Studio's agent was stopped")
    await trio.lowlevel.checkpoint()


async def _start_tool(settings: AgentSettings, nursery: trio.Nursery) -> tuple[Tool, str]:
    root = Path(settings.root)
    if settings.command:
        tool = Tool(settings.tool_port or free_port(), start_timeout=settings.tool_start_timeout)
        run = lambda: run_command(tool, settings.command, root=root, env=_environment(settings))  # noqa: E731
        nursery.start_soon(run, name="tool")
        return tool, Path(settings.command[0]).name
    if settings.tool_port is not None:
        return Tool(settings.tool_port, start_timeout=settings.tool_start_timeout), f"port {settings.tool_port}"

    async def files(task_status: trio.TaskStatus[int]) -> None:
        await run_files(root, port=0, path_prefix=settings.tool_path_prefix, task_status=task_status)

    port: int = await nursery.start(files)
    return Tool(port, start_timeout=settings.tool_start_timeout), "files"


def _environment(settings: AgentSettings) -> dict[str, str]:
    """What the tool, and the sessions of SSH users, find in their environment."""
    env = {name: value for name, value in os.environ.items() if name not in SECRETS}
    if settings.tool_path_prefix:
        env["CONNECT_TOOL_PATH_PREFIX"] = settings.tool_path_prefix
    return env


def _shells(settings: AgentSettings, nursery: trio.Nursery, announcer: Announcer) -> ShellServer:
    setup = Setup(
        environ=_environment(settings),
        folder=Path(settings.root).absolute(),
        shell=settings.ssh_shell,
        sftp_server=settings.ssh_sftp_server,
        accepted=settings.ssh_accept_env,
    )
    return ShellServer(
        nursery,
        setup,
        targets=TargetPolicy(allowed=settings.ssh_forward, networks=settings.ssh_forward_networks),
        knows_agent=announcer.knows_agent,
        max_channels=settings.ssh_channels,
    )


def _token_source(settings: AgentSettings) -> Callable[[], str]:
    """Where each dial takes its token from; a file is read anew, so that a renewed token counts."""
    if settings.token is not None:
        token = settings.token
        return lambda: token
    path = settings.token_file
    assert path is not None, "the settings hold exactly one of token and token_file"
    return lambda: Path(path).read_text().strip()
