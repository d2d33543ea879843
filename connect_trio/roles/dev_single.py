"""The development stack in one process: every role in one nursery, over the registry in memory."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from connect_trio.agent.backoff import Backoff
from connect_trio.agent.client import TunnelRefused
from connect_trio.config import AgentSettings, load_agent, load_platform, load_proxy, load_server
from connect_trio.devplatform.state import Studio
from connect_trio.roles.agent import run_agent
from connect_trio.roles.dev_plan import AGENTS_WITHIN, Plan
from connect_trio.roles.dev_report import Report
from connect_trio.roles.dev_tokens import keep_tokens
from connect_trio.roles.platform import run_platform
from connect_trio.roles.proxy import run_proxy
from connect_trio.roles.server import run_server
from connect_trio.routing.memory import MemoryRegistry, MemoryStore

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Roles:
    """The entry functions of the roles; tests pass others."""

    platform: Callable[..., Awaitable[None]] = run_platform
    server: Callable[..., Awaitable[None]] = run_server
    proxy: Callable[..., Awaitable[None]] = run_proxy
    agent: Callable[..., Awaitable[None]] = run_agent
    tokens: Callable[..., Awaitable[None]] = keep_tokens


async def run_single(
    plan: Plan,
    report: Report,
    *,
    roles: Roles | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until cancelled; starts when everything can be used. Raises what the roles raise, in groups.

    Platform outlives the others, which take their leave there.
    """
    roles = roles or Roles()
    platform = trio.CancelScope()

    async def run_platform_to_the_end(*, task_status: trio.TaskStatus[None]) -> None:
        with platform:
            await roles.platform(load_platform(plan.platform_env()), task_status=task_status)

    async with trio.open_nursery() as outer:
        await outer.start(run_platform_to_the_end)
        report.runs("platform", os.getpid())
        platform.shield = True  # from now on, for a start that hangs must be cancellable
        try:
            await _run_others(plan, report, roles, task_status)
        finally:
            platform.cancel()


async def _run_others(plan: Plan, report: Report, roles: Roles, task_status: trio.TaskStatus[None]) -> None:
    registry, store = MemoryRegistry(), MemoryStore()
    async with trio.open_nursery() as nursery:

        async def start(role: str, run: Callable[..., Awaitable[None]]) -> None:
            await nursery.start(run, name=role)
            report.runs(role, os.getpid())

        await nursery.start(roles.tokens, plan)
        await start("server", partial(roles.server, load_server(plan.server_env(0)), registry=registry))
        await start("proxy", partial(roles.proxy, load_proxy(plan.proxy_env(0)), registry=registry, store=store))
        agents = [Agent(studio, plan, roles.agent) for studio in plan.studios]
        for agent in agents:
            nursery.start_soon(agent.keep, name=f"agent {agent.studio.id}")
        with trio.move_on_after(AGENTS_WITHIN):
            for agent in agents:
                await agent.connected.wait()
        report.runs("agent", os.getpid())
        task_status.started()


class Agent:
    """The agent of one session. Where Platform has stopped the session, it tries again until it is let in."""

    def __init__(self, studio: Studio, plan: Plan, run: Callable[..., Awaitable[None]]) -> None:
        self.studio = studio
        self.connected = trio.Event()
        self._settings: AgentSettings = load_agent(plan.agent_env(studio), command=plan.options.command)
        self._run = run

    async def keep(self) -> None:
        """Run until cancelled."""
        backoff = Backoff()
        while True:
            began = trio.current_time()
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._run, self._settings)
                    self.connected.set()
            except* TunnelRefused as group:
                logger.warning("the agent was refused", extra={"session": self.studio.id, "reason": _first(group)})
            backoff.held(trio.current_time() - began)
            await trio.sleep(backoff.delay(random.random()))  # noqa: S311 - spreads dials, keeps no secret


def _first(group: BaseExceptionGroup[TunnelRefused]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
