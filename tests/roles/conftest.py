"""The parts that tests of roles share; those that run as processes find each other over a real Redis."""

from __future__ import annotations

from tests.support.redis import redis_server

__all__ = ["redis_server"]
