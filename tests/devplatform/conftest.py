"""A served development Platform and a browser for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.platform import RunningPlatform, running_platform


@pytest.fixture
async def platform() -> AsyncIterator[RunningPlatform]:
    async with running_platform() as running:
        yield running


@pytest.fixture
async def http(platform: RunningPlatform) -> AsyncIterator[httpx2.AsyncClient]:
    async with platform.browser() as client:
        yield client
