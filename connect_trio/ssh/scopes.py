"""What the SSH edge needs of whoever knows all that is open, and ends it with a session, a user's access or a key."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import trio

from connect_trio.identity.grants import Grant
from connect_trio.identity.watcher_keys import UsedKey


class Hold(AbstractContextManager[Any], Protocol):
    """One connection, for as long as the block lasts. farewell: begins its end, with the reason for its user; True if
    that takes a moment."""

    farewell: Callable[[str], bool] | None


class Scopes(Protocol):
    def enter(self, grant: Grant, scope: trio.CancelScope, key: UsedKey) -> Hold:
        """For `with`, around a connection that is logged in. When it is to end, so is `scope`, after the farewell."""
        ...
