"""Which connection the present task serves; log lines carry it without being told.

Tasks inherit the context of the task that started them, so binding it once per connection is enough.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

connection_id: ContextVar[str | None] = ContextVar("connection_id", default=None)
"""The id of the connection that this task serves, None outside of one."""


def serving(connection: str) -> _Serving:
    """Within the block, and in tasks started in it, log lines carry this connection id."""
    return _Serving(connection)


class _Serving:
    """There is one for each connection, for as long as that lives: a third of a generator's size."""

    __slots__ = ("_connection", "_token")

    def __init__(self, connection: str) -> None:
        self._connection = connection
        self._token: Token[str | None] | None = None

    def __enter__(self) -> None:
        self._token = connection_id.set(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            connection_id.reset(self._token)
