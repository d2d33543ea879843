"""Where a name becomes a stream: what visitors' code knows of everything behind it.

`edge` (and later `ssh`) receives a `Dialer` and never learns that Redis or the mux exist.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

import attrs
import trio.abc

from connect_trio.identity.grants import Grant
from connect_trio.mux.buffers import Buffer


@attrs.frozen(kw_only=True)
class Target:
    """What a stream is for.

    grant: whose it is, and that they may: no stream to a session without one.
    kind: what the agent connects the stream to; "http" is the tool's port.
    """

    grant: Grant
    kind: str = "http"
    metadata: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def session(self) -> str:
        """Id of the Studio session, 8 lower-case hex digits."""
        return self.grant.session


@attrs.frozen(kw_only=True)
class Failure:
    """Why a stream could not be had or did not last, in the words of whoever waits at the other end.

    status: the HTTP status that says it best (502, 503, 504, 404).
    part: which part failed: "tool", "agent", "server", "registry", "proxy" or "session".
    """

    status: int
    part: str
    text: str


class DialError(Exception):
    """No stream could be had; `failure` says which part failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class ToolStream(trio.abc.HalfCloseableStream):
    """A stream to a tool. Besides trio's contract it can hand over received bytes without copying them.

    A refusal shows in the next call as a `trio.BrokenResourceError`, which `Dialer.explain` turns into a `Failure`.
    While the way to the tool is lost, the stream is `detached`: calls wait and go on when another way is found. An
    `expendable` stream is given up instead.
    """

    expendable: bool

    @abstractmethod
    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]:
        """Received bytes, and the buffer to `drop()` once the bytes are no longer needed; empty at the end.

        Where the buffer is None, the bytes may be kept. Raises trio.BrokenResourceError and trio.ClosedResourceError.
        """

    @abstractmethod
    async def wait_attached(self) -> None:
        """Return when bytes can pass (again); raises trio.BrokenResourceError if the stream has ended."""

    @abstractmethod
    async def wait_accepted(self) -> None:
        """Return when the agent has connected to the tool; raises trio.BrokenResourceError if it refused."""

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether the stream could be used again: attached, open in both directions, nothing unread."""

    @property
    @abstractmethod
    def detached(self) -> bool:
        """Whether nothing can pass at the moment, because the way to the tool is lost."""

    @abstractmethod
    def reset(self, text: str = "") -> None:
        """End both directions at once; the tool's connection is cut. Never blocks."""


class Dialer(Protocol):
    async def dial(self, target: Target) -> ToolStream:
        """A new stream to the tool of `target.session`. Raises DialError."""
        ...

    def explain(self, error: BaseException) -> Failure:
        """What to tell a visitor about an error that `dial` or a `ToolStream` raised."""
        ...
