"""The switch for paths: as it is set, or as Platform says, and says otherwise later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from connect_trio.identity.client import PlatformUnavailable
from connect_trio.identity.control_plane import ControlPlane
from connect_trio.identity.path_routing import AUTO, INTERVAL, OFF, ON, PathRouting
from connect_trio.identity.service import open_identity
from connect_trio.routing.memory import MemoryStore
from tests.support.scripted import scripted_platform


class Platform:
    """Says `said`; raises it if it is an error. asked: how often."""

    def __init__(self, said: bool | Exception | None) -> None:
        self.said = said
        self.asked = 0

    async def __call__(self) -> bool | None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(("setting", "on"), [(ON, True), (OFF, False)])
async def test_where_it_is_set_platform_is_not_asked(setting: str, on: bool) -> None:
    platform = Platform(not on)
    paths = PathRouting(setting, platform)
    async with trio.open_nursery() as nursery:
        await nursery.start(paths.run)
    assert (paths(), platform.asked) == (on, 0)


@pytest.mark.parametrize(("said", "on"), [(True, True), (False, False), (None, False)])
async def test_it_is_known_at_the_start(said: bool | None, on: bool, nursery: trio.Nursery) -> None:
    paths = PathRouting(AUTO, Platform(said))
    assert not paths()
    await nursery.start(paths.run)
    assert paths() is on


async def test_what_platform_says_later_counts(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    platform = Platform(False)
    paths = PathRouting(AUTO, platform)
    await nursery.start(paths.run)
    for said, on in ((True, True), (PlatformUnavailable("away"), True), (None, False)):
        platform.said = said
        await trio.sleep(INTERVAL + 1)
        assert paths() is on


async def test_a_platform_that_starts_late_is_asked_again_soon(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    platform = Platform(PlatformUnavailable("away"))
    paths = PathRouting(AUTO, platform)
    await nursery.start(paths.run)
    platform.said = True
    await trio.sleep(6)
    assert paths()


async def test_a_platform_that_does_not_answer_holds_no_proxy_up(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async def ask() -> bool | None:
        await trio.sleep_forever()

    with trio.fail_after(10):
        await nursery.start(PathRouting(AUTO, ask).run)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"contract": 1, "path_routing": True}), True),
        ((200, {"contract": 1, "path_routing": False}), False),
        ((404, {"error": "no such call"}), None),
    ],
)
async def test_platform_is_asked_by_its_contract(answer: tuple[int, object], said: bool | None) -> None:
    async with platform_that_answers(answer) as control_plane:
        assert await control_plane.path_routing() is said


@pytest.mark.parametrize("answer", [(500, {}), (200, {"contract": 1}), (200, {"path_routing": "yes"}), (200, [True])])
async def test_nonsense_says_nothing(answer: tuple[int, object]) -> None:
    async with platform_that_answers(answer) as control_plane:
        with pytest.raises(PlatformUnavailable):
            await control_plane.path_routing()


@asynccontextmanager
async def platform_that_answers(info: tuple[int, object]) -> AsyncIterator[ControlPlane]:
    async with scripted_platform() as platform:
        platform.serve_metadata()
        platform.serve_registration()
        platform.answers["GET /api/connect/info"] = info
        async with open_identity(
            platform_url=platform.url, proxy_url="http://connect.localhost", store=MemoryStore()
        ) as identity:
            yield identity.control_plane
