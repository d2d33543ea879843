"""A proxy tells Platform who is connected: through a real edge, to the real development Platform, to its very end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from connect_trio.identity import reporter as reporter_module
from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.reporter import ActivityReporter
from connect_trio.identity.service import open_identity
from connect_trio.roles import reporting as module
from connect_trio.roles.life import Life, living
from connect_trio.roles.reporting import report_activity
from connect_trio.routing.memory import MemoryStore
from tests.support.edge import PROXY, SESSION, World, open_world, upgrade
from tests.support.platform import CONNECT_URL, DEV_KEY, RunningPlatform, running_platform

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@attrs.frozen
class Scene:
    world: World
    platform: RunningPlatform
    reporter: ActivityReporter

    async def visits(self) -> list[dict[str, Any]]:
        async with self.platform.browser() as http:
            answer = await http.get("/api/dev/activity", headers={"authorization": f"Bearer {DEV_KEY}"})
            return list(answer.json()["visits"])

    async def until(self, *, connected: int) -> None:
        """Wait until Platform knows of so many visits that last."""
        with trio.fail_after(60):
            while sum(visit["disconnected_at"] is None for visit in await self.visits()) != connected:
                await trio.sleep(0.05)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(reporter_module, "INTERVAL", 0.05)
    async with (
        running_platform() as platform,
        open_world() as world,
        open_identity(platform_url=platform.url, proxy_url=CONNECT_URL, store=MemoryStore()) as identity,
    ):
        reporter = ActivityReporter(world.edge.activity, identity.background, reporter=PROXY.hex())
        yield Scene(world, platform, reporter)


async def test_platform_knows_who_is_connected_and_hears_of_the_end_of_the_process(
    scene: Scene, nursery: trio.Nursery
) -> None:
    scope = trio.CancelScope()

    async def proxy() -> None:
        with scope:
            await report_activity(scene.reporter)

    async with trio.open_nursery() as running:
        running.start_soon(proxy)
        client, tool = await scene.world.request(upgrade())
        await tool.head()
        await tool.send(SWITCHED)
        await client.head()
        await scene.until(connected=1)
        (visit,) = await scene.visits()
        assert (visit["session"], visit["subject"]) == (SESSION, "sub-alice")
        scope.cancel()
    await scene.until(connected=0)
    (visit,) = await scene.visits()
    assert visit["connected_at"] <= visit["last_active"] <= visit["disconnected_at"]


async def test_a_process_that_is_to_hurry_does_not_wait_for_platform(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL", 3600.0)
    life = Life()

    async def never(report: object) -> None:
        life.hurry()
        await trio.sleep_forever()

    monkeypatch.setattr(scene.reporter._control_plane, "report", never)
    visit = scene.world.edge.activity.visit(SESSION, "sub-alice")
    with visit, living(life), trio.fail_after(60), trio.CancelScope() as scope:
        scope.cancel()
        await report_activity(scene.reporter)
    assert scene.reporter.counts.lost
    assert scene.reporter.waiting == 0


async def test_a_platform_that_was_away_hears_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter_module, "_FIRST_PAUSE", 0.05)
    real, failures = scene.reporter._control_plane.report, 3

    async def sometimes(report: dict[str, Any]) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise PlatformUnavailable("away")
        await real(report)

    monkeypatch.setattr(scene.reporter._control_plane, "report", sometimes)
    async with trio.open_nursery() as running:
        running.start_soon(scene.reporter.run)
        with scene.world.edge.activity.visit(SESSION, "sub-alice"):
            await scene.until(connected=1)
        running.cancel_scope.cancel()
    assert scene.reporter.counts.failures == 3
