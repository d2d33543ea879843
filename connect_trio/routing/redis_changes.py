"""The channel on which servers tell that they changed a route: Redis' pub/sub, by coredis.

What is said while nobody is subscribed is lost, so whoever follows is told of every new subscription, too. It has a
connection of its own: an answer to SUBSCRIBE comes as a message if it is good and as an answer if it is not, and on a
shared connection the latter would be taken for the answer to another command.
"""

from __future__ import annotations

import logging
import math
from contextlib import aclosing
from typing import NoReturn

import anyio
import trio
from coredis.connection import BaseConnection
from coredis.exceptions import ConnectionError as ConnectionLost

from connect_trio.routing.redis_client import RedisClient
from connect_trio.routing.registry import Tell

logger = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT = 5.0
"""Seconds for the answer to SUBSCRIBE."""

REFUSED_REST = 30.0
"""Seconds until the next try where Redis does not let us subscribe: proxies then learn of changes by asking."""

_MAX_NAME = 64  # bytes of a session's name that are believed to be one
_MAX_SAID = 32 * 1024  # bytes of a message: several hundred names, as a renewal tells them


async def follow(client: RedisClient, channel: str, tell: Tell) -> NoReturn:
    """Tell what is said on `channel`, for ever, over a connection beside that of `client`; None for each beginning."""
    listener = client.another()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        nursery.start_soon(listener.watch)
        refused = False
        while True:
            connection = await listener.connected()
            begun = await _listen(connection, channel, tell)
            if begun is None:
                level = logging.DEBUG if refused else logging.WARNING
                logger.log(level, "Redis does not let us subscribe to changes", extra={"channel": channel})
                connection.invalidate("cannot subscribe")
                await trio.sleep(REFUSED_REST)
            refused = begun is None
    raise AssertionError("a nursery with endless tasks ended")


async def _listen(connection: BaseConnection, channel: str, tell: Tell) -> bool | None:
    """Return when the connection is lost: whether it was subscribed before. None: no answer came in time."""
    begun = False
    name = channel.encode()
    try:
        connection.send_command(b"SUBSCRIBE", channel)
        async with aclosing(connection.push_messages) as messages:
            with trio.move_on_after(SUBSCRIBE_TIMEOUT) as scope:
                async for kind, *rest in messages:
                    if kind == b"subscribe":
                        begun, scope.deadline = True, math.inf
                        tell(None)
                    elif kind == b"message" and rest[0] == name:
                        _pass_on(rest[1], tell)
    except (ConnectionLost, anyio.ClosedResourceError, anyio.BrokenResourceError):
        await trio.lowlevel.checkpoint()
        return begun
    return None


def _pass_on(said: object, tell: Tell) -> None:
    """Redis is shared: what is no session's name is nobody's business."""
    for name in said.split(b",") if isinstance(said, bytes) and len(said) <= _MAX_SAID else ():
        if len(name) <= _MAX_NAME and name.isalnum():
            tell(name.decode("ascii"))
