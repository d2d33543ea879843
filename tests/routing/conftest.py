"""The parts that tests of routing share."""

from __future__ import annotations

from tests.support.redis import authority, client_files, redis_server, tight_redis

__all__ = ["authority", "client_files", "redis_server", "tight_redis"]
