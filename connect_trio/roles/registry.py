"""The registry and store that a role's settings name."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from connect_trio.config import ConfigError, ProxySettings, RedisSettings, ServerSettings
from connect_trio.routing.redis import Redis, TlsFiles, open_redis
from connect_trio.routing.redis_tls import TlsFileError

READY = 10.0  # seconds that a starting role waits for Redis before it says so and ends

logger = logging.getLogger(__name__)


async def redis_from(settings: ServerSettings | ProxySettings, stack: AsyncExitStack) -> Redis:
    """Redis, reachable. It is closed with `stack`.

    Raises ConfigError for TLS files that cannot be used, RegistryUnavailable with one line that names the address.
    """
    redis = await stack.enter_async_context(
        open_redis(
            address=settings.redis_address,
            user=settings.redis_user,
            password=settings.redis_password,
            db=settings.redis_db,
            prefix=settings.redis_prefix,
            tls=tls_from(settings),
            sentinel=settings.redis_sentinel,
            sentinel_user=settings.redis_sentinel_user,
            sentinel_password=settings.redis_sentinel_password,
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


def tls_from(settings: RedisSettings) -> TlsFiles | None:
    """How to speak TLS to Redis, None for plain TCP. Raises ConfigError for files that cannot be used."""
    paths = {
        "ca": settings.redis_tls_ca_file,
        "cert": settings.redis_tls_cert_file,
        "key": settings.redis_tls_key_file,
    }
    if not settings.redis_tls:
        for which, path in paths.items():
            if path is not None:
                logger.warning("%s is set, but without CONNECT_REDIS_TLS_ENABLE=true nothing uses it", _variable(which))
        return None
    files = TlsFiles(
        verify=not settings.redis_tls_skip_verify,
        ca_file=_text(paths["ca"]),
        cert_file=_text(paths["cert"]),
        key_file=_text(paths["key"]),
    )
    try:
        files.context()
    except TlsFileError as exc:
        raise ConfigError([f'{_variable(exc.which)} is "{paths[exc.which]}": {exc}']) from exc
    return files


def _variable(which: str) -> str:
    return f"CONNECT_REDIS_TLS_{which.upper()}_FILE"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
