"""The stack in one process, with roles of the test's own."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from connect_trio.agent.client import TunnelRefused
from connect_trio.roles.dev_plan import AGENTS_WITHIN, Plan
from connect_trio.roles.dev_report import Report
from connect_trio.roles.dev_single import Roles, run_single
from tests.roles.test_dev_plan import plan_of


@attrs.define
class Stage:
    """Roles that note their entrance and exit. agent: what agents do once they are on."""

    agent: Callable[[], Awaitable[None]] = trio.sleep_forever
    connects: bool = True
    log: list[str] = attrs.field(factory=list)

    def roles(self) -> Roles:
        return Roles(
            platform=self._role("platform"),
            server=self._role("server"),
            proxy=self._role("proxy"),
            agent=self._agent,
            tokens=self._tokens,
        )

    def _role(self, name: str) -> Callable[..., Awaitable[None]]:
        async def role(settings: object, *, task_status: trio.TaskStatus[None], **shared: object) -> None:
            self.log.append(name)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.log.append(f"{name} ended")

        return role

    async def _tokens(self, plan: Plan, *, task_status: trio.TaskStatus[None]) -> None:
        for studio in plan.studios:
            plan.token_file(studio).write_text("token")
        task_status.started()

    async def _agent(self, settings: object, *, task_status: trio.TaskStatus[None]) -> None:
        self.log.append("agent")
        if self.connects:
            task_status.started()
        await self.agent()


async def test_the_roles_start_in_order_and_in_this_process(tmp_path: Path, nursery: trio.Nursery) -> None:
    stage = Stage()
    report = await start(nursery, plan_of(tmp_path), stage.roles())
    assert stage.log == ["platform", "server", "proxy", "agent", "agent"]
    assert report.pids == {role: [os.getpid()] for role in ("platform", "server", "proxy", "agent")}


async def test_platform_ends_after_those_that_take_their_leave_there(tmp_path: Path) -> None:
    stage = Stage()

    async def unhurried(settings: object, *, task_status: trio.TaskStatus[None], **shared: object) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            stage.log.append("leave taken")

    async with trio.open_nursery() as nursery:
        await start(nursery, plan_of(tmp_path), attrs.evolve(stage.roles(), proxy=unhurried))
        nursery.cancel_scope.cancel()
    assert stage.log[-2:] == ["leave taken", "platform ended"]


async def test_an_agent_that_does_not_come_up_does_not_hold_up_the_rest(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    plan = plan_of(tmp_path)
    before = trio.current_time()
    await start(nursery, plan, Stage(connects=False).roles())
    assert trio.current_time() - before == AGENTS_WITHIN


async def test_an_agent_that_is_refused_tries_again(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused() -> None:
        raise TunnelRefused("this session is stopped")

    stage = Stage(agent=refused)
    await start(nursery, plan_of(tmp_path), stage.roles())
    await trio.sleep(60)
    assert stage.log.count("agent") > 4
    assert "platform ended" not in stage.log
    assert any("refused" in record.message for record in caplog.records)


async def test_a_role_that_fails_ends_the_stack(tmp_path: Path) -> None:
    async def broken(settings: object, *, task_status: trio.TaskStatus[None], **shared: object) -> None:
        raise OSError("no way")

    stage = Stage()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="no way"), flatten_subgroups=True):
        await run_single(plan_of(tmp_path), Report(plan_of(tmp_path)), roles=attrs.evolve(stage.roles(), proxy=broken))
    assert sorted(stage.log) == ["platform", "platform ended", "server", "server ended"]


async def start(nursery: trio.Nursery, plan: Plan, roles: Roles) -> Report:
    report = Report(plan)

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await run_single(plan, report, roles=roles, task_status=task_status)

    await nursery.start(run)
    return report
