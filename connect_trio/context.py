"""Which connection the present task serves; log lines carry it without being told.

Tasks inherit the context of the task that started them, so binding it once per connection is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

connection_id: ContextVar[str | None] = ContextVar("connection_id", default=None)
"""The id of the connection that this task serves, None outside of one."""


@contextmanager
def serving(connection: str) -> Iterator[None]:
    """Within the block, and in tasks started in it, log lines carry this connection id."""
    token = connection_id.set(connection)
    try:
        yield
    finally:
        connection_id.reset(token)
