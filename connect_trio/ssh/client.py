"""What an SSH client does, and what can be done to it, in words that know neither asyncssh nor asyncio.

`bridge` speaks SSH: it calls a `Visitor` for a connection, and a `SessionHandler` or `ForwardHandler` for each channel.
In turn these have a `Channel`, and a `Client`. Nothing here waits unless it is a coroutine; nothing blocks.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from enum import IntEnum
from typing import Protocol

import attrs
import trio

from connect_trio.channels.messages import Exec, Shell, Size, Subsystem


class Why(IntEnum):
    """Why a connection is ended (RFC 4253, section 11.1)."""

    PROTOCOL_ERROR = 2
    SERVICE_NOT_AVAILABLE = 7
    BY_APPLICATION = 11
    TOO_MANY_CONNECTIONS = 12
    NO_MORE_AUTH_METHODS_AVAILABLE = 14
    ILLEGAL_USER_NAME = 15


class Disconnect(Exception):
    """The connection is to end. text: what the client shows to its user, one line."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why
        self.text = text


class ChannelRefused(Exception):
    """A channel is not opened; the text is shown to the user. shortage: whether there is no place for it."""

    def __init__(self, text: str, *, shortage: bool = False) -> None:
        super().__init__(text)
        self.shortage = shortage


@attrs.frozen
class Key:
    """A public key. blob: as RFC 4253, section 6.6, has it."""

    blob: bytes = attrs.field(repr=False)

    @property
    def fingerprint(self) -> str:
        """As OpenSSH writes it: "SHA256:..."."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def algorithm(self) -> str:
        """ "ssh-ed25519"; empty if the blob is none of a key."""
        length = int.from_bytes(self.blob[:4])
        name = self.blob[4 : 4 + length]
        return name.decode() if len(name) == length and name.isascii() and name.decode().isprintable() else ""


class Channel(Protocol):
    """Our end of an open channel. Once it is closed, all calls do nothing."""

    @property
    def writable(self) -> bool:
        """Whether more may be written: nothing waits for the client, nor for a new key. See `Handler.writable`."""
        ...

    def write(self, data: bytes | memoryview, *, stderr: bool = False) -> None: ...

    def write_eof(self) -> None: ...

    def exit(self, status: int) -> None:
        """Tell the status, and close when all that was written is out."""
        ...

    def exit_signal(self, name: str, core_dumped: bool, message: str) -> None:
        """Tell the signal ("TERM"), and close when all that was written is out."""
        ...

    def close(self) -> None:
        """Close when all that was written is out."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Handler(Protocol):
    """What happens on a channel."""

    def opened(self, channel: Channel) -> None: ...

    def data(self, data: bytes) -> None: ...

    def eof(self) -> None: ...

    def writable(self) -> None:
        """`Channel.writable` may be true again."""
        ...

    def closed(self) -> None:
        """The channel is closed in both directions; nothing else is called after that."""
        ...


class SessionHandler(Handler, Protocol):
    """What happens on a channel of the type "session". Answers say whether a request is granted."""

    def pty(self, term: str, size: Size, modes: Mapping[int, int]) -> bool: ...

    def env(self, name: bytes, value: bytes) -> bool: ...

    def forward_agent(self) -> bool: ...

    def start(self, what: Shell | Exec | Subsystem) -> bool: ...

    def resize(self, size: Size) -> None: ...

    def signal(self, name: str) -> None: ...


@attrs.frozen
class Listening:
    """A remote forward that the agent listens for. port: where, 0 for a path. close: ends it; never blocks."""

    port: int
    close: Callable[[], None]


class Visitor(Protocol):
    """Whoever is behind a connection. Coroutines run as tasks of the connection, and are cancelled with it."""

    def began(self, client: Client) -> None:
        """The connection is there; its handshake begins."""
        ...

    def heard(self) -> None:
        """The client has shown that it speaks SSH."""
        ...

    def names(self, user: str) -> None:
        """The client says who it is; it may say so again. Raises Disconnect."""
        ...

    async def offers(self, key: Key) -> bool:
        """Whether this key could let the user in. Raises Disconnect."""
        ...

    async def proves(self, key: Key) -> bool:
        """Whether the user comes in, who has the private key of this one. Raises Disconnect."""
        ...

    def entered(self) -> None:
        """The client is logged in."""
        ...

    async def session(self) -> SessionHandler:
        """Raises ChannelRefused."""
        ...

    async def forward_tcp(self, host: str, port: int) -> Handler:
        """Raises ChannelRefused."""
        ...

    async def forward_unix(self, path: str) -> Handler:
        """Raises ChannelRefused."""
        ...

    async def listen_tcp(self, host: str, port: int) -> Listening | None:
        """None if that cannot be done."""
        ...

    async def listen_unix(self, path: str) -> Listening | None:
        """None if that cannot be done."""
        ...


class Client(Protocol):
    """A connected client."""

    @property
    def nursery(self) -> trio.Nursery:
        """For tasks of the connection; cancelled when it ends."""
        ...

    def banner(self, text: str) -> None:
        """Show a line to the user; only before the login."""
        ...

    def disconnect(self, why: Why, text: str) -> None:
        """End the connection, and tell why. What was written before arrives first."""
        ...

    def open_tcp(self, handler: Handler, listened: tuple[str, int], peer: tuple[str, int]) -> Awaitable[None]:
        """Open a channel for a connection to what `listen_tcp` began. Raises ChannelRefused."""
        ...

    def open_unix(self, handler: Handler, path: str) -> Awaitable[None]:
        """Open a channel for a connection to what `listen_unix` began. Raises ChannelRefused."""
        ...

    def open_agent(self, handler: Handler) -> Awaitable[None]:
        """Open a channel to the client's SSH agent. Raises ChannelRefused."""
        ...
