"""The registry and store that a role's settings name."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import trio

from connect_trio.config import ProxySettings, ServerSettings
from connect_trio.routing.redis import Redis, open_redis, tls_context

READY = 10.0  # seconds that a starting role waits for Redis before it says so and ends


async def redis_from(settings: ServerSettings | ProxySettings, stack: AsyncExitStack) -> Redis:
    """Redis, reachable. It is closed with `stack`. Raises RegistryUnavailable with one line that names the address."""
    tls = None
    if settings.redis_tls:
        tls = tls_context(
            verify=not settings.redis_tls_skip_verify,
            cert_file=_text(settings.redis_tls_cert_file),
            key_file=_text(settings.redis_tls_key_file),
        )
    redis = await stack.enter_async_context(
        open_redis(
            address=settings.redis_address,
            user=settings.redis_user,
            password=settings.redis_password,
            db=settings.redis_db,
            prefix=settings.redis_prefix,
            tls=tls,
        )
    )
    await redis.wait_ready(READY)
    return redis


async def answers(redis: Redis) -> bool:
    """Whether Redis answers now. Raises RegistryUnavailable."""
    await redis.ping()
    return True


async def in_memory() -> bool:
    """What is in this process is there."""
    await trio.lowlevel.checkpoint()
    return True


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
