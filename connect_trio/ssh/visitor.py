"""Whoever is behind an SSH connection: the login, then channels and forwards, each over streams of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Self

import attrs
import trio

from connect_trio.dial import Dialer
from connect_trio.identity.activity import Activity
from connect_trio.ssh.client import Client, Handler, Key, Listening, SessionHandler, Why
from connect_trio.ssh.forward import Forward
from connect_trio.ssh.keys import KeyChecker
from connect_trio.ssh.login import Authorize, Login
from connect_trio.ssh.places import Counts, Places
from connect_trio.ssh.remote import RemoteForwards
from connect_trio.ssh.scopes import Scopes
from connect_trio.ssh.session import Session
from connect_trio.ssh.surroundings import Surroundings

TCP: Final = "tcp"
UNIX: Final = "unix"

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class House:
    """What all visitors have in common. channels: at most so many at once for each of them. window: bytes that a new
    channel may keep in one direction."""

    checker: KeyChecker
    authorize: Authorize
    dialer: Dialer
    scopes: Scopes
    activity: Activity
    channels: int
    window: Callable[[], int]
    counts: Counts = attrs.field(factory=Counts)


class SshVisitor:
    """`client.Visitor` for one connection.

    id: names it in the log. scope: cancels it. on_entered: called when the visitor is logged in. Use as a context
    manager around its life.
    """

    def __init__(
        self,
        house: House,
        *,
        id: str,  # noqa: A002 - the term
        peer: tuple[str, int],
        local: tuple[str, int],
        scope: trio.CancelScope,
        on_entered: Callable[[], object],
    ) -> None:
        self._house = house
        self._places = Places(house.channels, house.counts)
        self._stack = ExitStack()
        self._scope = scope
        self._on_entered = on_entered
        self._client: Client
        self._surroundings: Surroundings
        self._remote: RemoteForwards
        self._login: Login
        self.id = id
        self.peer = peer
        self._local = local
        self.spoke = False
        self.logged_in = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._places.abandon()
        if self.logged_in:
            logger.info("ssh: disconnected", extra=self._who())
        elif self.failed:
            self._house.counts.refused += 1
            reason = self._login.refusal or "the client had no other key, or gave up"
            logger.info("ssh: a login failed", extra={**self._who(), "reason": reason})
        else:
            logger.debug("ssh: a connection without a login from %s", self.peer[0])

    @property
    def failed(self) -> bool:
        """Whether a login was tried in vain; who only connects, like the probes of a balancer, did not."""
        return not self.logged_in and self.spoke and self._login.user is not None

    def _who(self) -> dict[str, object]:
        login = self._login
        account = login.account
        who: dict[str, object] = {"connection": self.id, "peer": self.peer[0]}
        if account is not None:
            who |= {"user": account.user, "session": account.session}
        if login.key is not None:
            who["key"] = login.key.fingerprint
        return who

    # the login

    def began(self, client: Client) -> None:
        self._client = client
        self._login = Login(self._house.checker, self._house.authorize, client.banner)

    def heard(self) -> None:
        self.spoke = True

    def names(self, user: str) -> None:
        self._login.names(user)

    async def offers(self, key: Key) -> bool:
        return await self._login.offers(key)

    async def proves(self, key: Key) -> bool:
        return await self._login.proves(key)

    def entered(self) -> None:
        grant = self._login.grant
        assert grant is not None
        self.logged_in = True
        hold = self._house.scopes.enter(grant, self._scope, self._login.used_key())
        hold.farewell = self.end
        self._stack.enter_context(hold)
        presence = self._stack.enter_context(self._house.activity.visit(grant.session, grant.subject))
        self._surroundings = Surroundings(
            client=self._client,
            dialer=self._house.dialer,
            grant=grant,
            places=self._places,
            peer=self.peer,
            local=self._local,
            agent_socket=lambda: self._remote.agent_socket(),
            touch=lambda: presence.touch(trio.current_time()),
            window=self._house.window,
        )
        self._remote = RemoteForwards(self._surroundings)
        self._house.counts.logins += 1
        self._on_entered()
        logger.info("ssh: logged in", extra=self._who())

    def refuse(self, text: str) -> None:
        """Turn the client away before its login."""
        self._client.disconnect(Why.TOO_MANY_CONNECTIONS, text)

    def end(self, reason: str) -> bool:
        """Begin the end of the connection, which tells its user why."""
        logger.info("ssh: a connection is ended", extra={**self._who(), "reason": reason})
        self._client.disconnect(Why.BY_APPLICATION, reason)
        return True

    # channels

    async def session(self) -> SessionHandler:
        await self._places.take()
        return Session(self._surroundings)

    async def forward_tcp(self, host: str, port: int) -> Handler:
        return await self._forward(TCP, {"host": host, "port": str(port)})

    async def forward_unix(self, path: str) -> Handler:
        return await self._forward(UNIX, {"path": path})

    async def _forward(self, kind: str, metadata: dict[str, str]) -> Handler:
        await self._places.take()
        forward = Forward(self._surroundings)
        await self._client.nursery.start(forward.dial, kind, metadata)
        return forward

    async def listen_tcp(self, host: str, port: int) -> Listening | None:
        return await self._remote.tcp(host, port)

    async def listen_unix(self, path: str) -> Listening | None:
        return await self._remote.unix(path)
