"""Connections that begin in the Studio: `ssh -R`, and the forwarded SSH agent. One control stream for a connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import attrs
import trio

from connect_trio.dial import DialError, Failure
from connect_trio.reverse import Connection, Listener, ListenError, Reverse, open_reverse
from connect_trio.ssh.client import ChannelRefused, Listening
from connect_trio.ssh.forward import Forward
from connect_trio.ssh.surroundings import Surroundings

AGENT: Final = "agent"  # the network of a forwarded SSH agent

# What clients write for "all addresses", or for none: in a Studio that is its loopback, as with sshd's defaults.
_LOOPBACK: Final = {
    "": "localhost",
    "*": "localhost",
    "localhost": "localhost",
    "0.0.0.0": "localhost",  # noqa: S104 - it is not listened on
    "127.0.0.1": "127.0.0.1",
    "::": "[::1]",
    "::1": "[::1]",
}

logger = logging.getLogger(__name__)


@attrs.frozen
class _Tcp:
    host: str
    port: int


@attrs.frozen
class _Unix:
    path: str


@attrs.frozen
class _Agent:
    pass


_Wanted = _Tcp | _Unix | _Agent


class RemoteForwards:
    """What one client lets listen in the Studio."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._reverse: Reverse | None = None
        self._wanted: dict[Listener, _Wanted] = {}
        self._agent: Listener | None = None
        self._listening = trio.Lock()

    async def tcp(self, host: str, port: int) -> Listening | None:
        loopback = _LOOPBACK.get(host)
        if loopback is None:
            logger.info("a remote forward is refused", extra={"address": host, "reason": "it is no loopback address"})
            return None
        return await self._listen("tcp", f"{loopback}:{port}", lambda bound: _Tcp(host, bound))

    async def unix(self, path: str) -> Listening | None:
        # "./name" is how OpenSSH's client is told of a path that has no folder: the agent has one for it.
        return await self._listen("unix", path.removeprefix("./"), lambda _: _Unix(path))

    async def agent_socket(self) -> str:
        """The path of a socket that leads to the client's SSH agent; one for all its sessions. Raises DialError."""
        async with self._listening:
            reverse = await self._control()
            if self._agent is None or self._agent not in self._wanted:
                try:
                    self._agent = await reverse.listen(AGENT, "")
                except ListenError as exc:
                    raise DialError(Failure(status=502, part="agent", text=str(exc))) from exc
                self._wanted[self._agent] = _Agent()
            return self._agent.address

    async def _listen(self, network: str, address: str, wanted: Callable[[int], _Wanted]) -> Listening | None:
        async with self._listening:
            try:
                reverse = await self._control()
                listener = await reverse.listen(network, address)
            except (DialError, ListenError) as exc:
                logger.info("a remote forward failed", extra={"address": address, "reason": str(exc)})
                return None
            port = int(listener.address.rpartition(":")[2]) if network == "tcp" else 0
            self._wanted[listener] = wanted(port)
        return Listening(port, partial(self._close, listener))

    def _close(self, listener: Listener) -> None:
        if self._wanted.pop(listener, None) is not None:
            self._surroundings.client.nursery.start_soon(self._unlisten, listener)

    async def _unlisten(self, listener: Listener) -> None:
        try:
            await listener.aclose()
        except (DialError, ListenError) as exc:
            logger.info("a listener could not be closed", extra={"address": listener.address, "reason": str(exc)})

    # the control stream

    async def _control(self) -> Reverse:
        """The control stream, opened when it is first needed, and again when it was lost. Raises DialError."""
        if self._reverse is None or self._reverse.failure is not None:
            self._wanted.clear()
            self._reverse = await self._surroundings.client.nursery.start(self._keep)
        assert self._reverse is not None
        return self._reverse

    async def _keep(self, *, task_status: trio.TaskStatus[Reverse]) -> None:
        surroundings = self._surroundings
        async with open_reverse(surroundings.dialer, surroundings.grant, self._connected) as reverse:
            task_status.started(reverse)
            await reverse.wait_ended()
            await trio.sleep_forever()  # connections outlive it

    async def _connected(self, connection: Connection) -> None:
        async with self._listening:  # its listener may be about to be known
            wanted = self._wanted.get(connection.listener) if connection.listener is not None else None
        if wanted is None:
            connection.stream.reset("nobody listens there any more")
            return
        try:
            await self._surroundings.places.take()
            forward = Forward(self._surroundings)
            await forward.accept(connection.stream, self._opening(forward, wanted, connection))
        except ChannelRefused as exc:
            connection.stream.reset(str(exc))
            logger.info("the client took no connection", extra={"reason": str(exc)})

    def _opening(self, forward: Forward, wanted: _Wanted, connection: Connection) -> Callable[[], Awaitable[None]]:
        client = self._surroundings.client
        match wanted:
            case _Tcp(host, port):
                return lambda: client.open_tcp(forward, (host, port), _peer_of(connection))
            case _Unix(path):
                return lambda: client.open_unix(forward, path)
            case _Agent():
                return lambda: client.open_agent(forward)


def _peer_of(connection: Connection) -> tuple[str, int]:
    host, _, port = connection.metadata.get("peer", "").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() and len(port) <= 5 else ("127.0.0.1", 0)
