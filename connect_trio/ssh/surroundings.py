"""What the channels of one connection have in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from connect_trio.channels.messages import ChannelError
from connect_trio.dial import Dialer, DialError, Failure, Target, ToolStream
from connect_trio.identity.grants import Grant
from connect_trio.ssh.client import Client
from connect_trio.ssh.places import Places

DIAL: Final = 30.0  # seconds that the agent, and whoever it asks, has to take a channel
LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Surroundings:
    """peer: the client's address and port. local: the address and port that it connected to.

    agent_socket: makes the path of a socket in the Studio that leads to the client's SSH agent; it raises DialError.
    touch: called when bytes pass. window: bytes of output that a new session may keep for its client.
    """

    client: Client
    dialer: Dialer
    grant: Grant
    places: Places
    peer: tuple[str, int]
    local: tuple[str, int]
    agent_socket: Callable[[], Awaitable[str]]
    touch: Callable[[], None]
    window: Callable[[], int]

    @property
    def session(self) -> str:
        return self.grant.session

    async def dial(self, kind: str, metadata: Mapping[str, str]) -> ToolStream:
        """A stream that the agent has accepted. Raises DialError."""
        try:
            with trio.fail_after(DIAL):
                return await self.dialer.dial(Target(grant=self.grant, kind=kind, metadata=metadata))
        except trio.TooSlowError:
            raise DialError(
                Failure(status=504, part="agent", text=f"The Studio did not answer within {DIAL:g} s.")
            ) from None

    def why(self, error: BaseException) -> str:
        """What to tell the user of an error that ended a stream."""
        if isinstance(error, ChannelError):
            return f"the agent breaks the channel protocol: {error}"
        return self.dialer.explain(error).text
