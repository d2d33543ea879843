"""The role `platform`: the development Platform as a process of its own."""

from __future__ import annotations

import trio

from connect_trio.config import PlatformSettings
from connect_trio.devplatform.server import serve
from connect_trio.devplatform.studios import StudioPolicy


async def run_platform(
    settings: PlatformSettings, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; starts with the address. Raises `devplatform.server.CannotServe`."""
    await serve(
        url=settings.url,
        host=settings.host,
        port=settings.port,
        connect_url=settings.connect_url,
        studio_domain=settings.studio_domain,
        dev_key=settings.dev_key,
        registration_token=settings.registration_token,
        state_dir=settings.state_dir,
        tool=settings.tool,
        policy=StudioPolicy(allowed_workspaces=settings.allowed_workspaces, path_routing=settings.path_routing),
        task_status=task_status,
    )
