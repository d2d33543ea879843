"""Where an agent listens for a proxy: on loopback, and in a directory of its own. Nowhere else, whoever asks."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from connect_trio.control import one_line
from connect_trio.transport.sockets import Socket

LOOPBACK = ("127.0.0.1", "::1")
BACKLOG = 128

logger = logging.getLogger(__name__)

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CannotListen(Exception):
    """It cannot be listened there; the text says why, for who asked."""


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


@attrs.frozen(kw_only=True)
class ListenPolicy:
    """Where it may be listened.

    hosts: addresses of this machine, each an IP address. directory: for unix sockets, of this user alone (0700); it is
    made when it is first needed. Without it there are no unix sockets. forwards: whether at all for TCP and unix
    sockets, agents: whether for forwarded SSH agents.
    """

    hosts: Collection[str] = LOOPBACK
    directory: Path | None = attrs.field(default=None, converter=_absolute)
    forwards: bool = True
    agents: bool = False


@attrs.define(eq=False)
class Listener:
    """A listening socket. address: as it is told: "127.0.0.1:8080", "[::1]:8080" or a path."""

    network: str
    address: str
    _listener: trio.SocketListener

    async def accept(self) -> tuple[Socket, dict[str, str]]:
        """A connection, and what there is to tell about it.

        Raises OSError if it was lost or there are no files for it, trio.ClosedResourceError if the listener was closed.
        """
        stream = await self._listener.accept()
        sock = socket.socket(fileno=stream.socket.detach())
        told = {"address": self.address}
        try:
            if self.network == "tcp":
                told["peer"] = _host_port(*sock.getpeername()[:2])
            return Socket(sock), told
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Listen no more; a unix socket's file goes too. May be called twice."""
        if self._listener.socket.fileno() < 0:
            return
        self._listener.socket.close()
        if self.network != "tcp":
            try:
                os.unlink(self.address)
            except OSError as exc:  # somebody else has tidied up
                logger.info("a unix socket was gone before its end", extra={"path": self.address, "reason": str(exc)})


def open_listener(network: str, address: str, places: ListenPolicy) -> Listener:
    """Listen at `address` as docs/control.md writes it. Raises CannotListen."""
    try:
        if network == "agent":
            return _listen_agent(address, places)
        if not places.forwards:
            raise CannotListen("this Studio forwards no connections out of it")
        if network == "tcp":
            return _listen_tcp(address, places.hosts)
        return _listen_unix(address, places.directory)
    except OSError as exc:
        raise CannotListen(f"{one_line(address)} cannot be listened on: {exc.strerror or exc}") from exc


def _listen_tcp(address: str, hosts: Collection[str]) -> Listener:
    match = _HOST_PORT.fullmatch(address)
    port = int(match[3]) if match is not None else 0
    if match is None or port > 0xFFFF:
        raise CannotListen("not an address; write HOST:PORT, with port 0 for any free one")
    host = match[1] or match[2]
    try:
        ip = ipaddress.ip_address(LOOPBACK[0] if host == "localhost" else host)
    except ValueError:
        ip = None
    if ip is None or str(ip) not in hosts:
        raise CannotListen(f"the agent listens on {', '.join(hosts)} only, not on {one_line(host)}")
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    sock = _listen(family, (str(ip), port))
    return Listener("tcp", _host_port(*sock.getsockname()[:2]), _trio_listener(sock))


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_unix(address: str, directory: Path | None) -> Listener:
    if directory is None:
        raise CannotListen("this agent has no directory for unix sockets")
    path = directory / (address or f"{secrets.token_hex(8)}.sock")
    if path.parent != directory or not _FILE_NAME.fullmatch(path.name):
        raise CannotListen(f"the agent keeps its unix sockets in {directory}; write a plain file name, or nothing")
    if not str(path).isprintable():  # then it could not be told to who asked
        raise CannotListen("the agent's directory for unix sockets has a name that cannot be told")
    _make_private(directory)
    sock = _listen(socket.AF_UNIX, str(path))
    return Listener("unix", str(path), _trio_listener(sock))


def _listen_agent(address: str, places: ListenPolicy) -> Listener:
    if not places.agents:
        raise CannotListen("this Studio takes no forwarded SSH agent; its settings can allow it")
    if address:
        raise CannotListen("the socket of a forwarded SSH agent has a name of the agent's choice: write nothing")
    listener = _listen_unix(f"ssh-agent-{secrets.token_hex(8)}", places.directory)
    listener.network = "agent"
    return listener


def _make_private(directory: Path) -> None:
    """Raises CannotListen if others could come to this directory, OSError if it cannot be made."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise CannotListen(f"{directory} is not private: it must belong to the agent's user, with mode 0700")


def _listen(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    """A socket that is bound, and listens. A file that is there already is left alone. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _trio_listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


@contextmanager
def private_directory() -> Iterator[Path | None]:
    """A directory for unix sockets that goes with the block; None where there can be none, which stops no agent."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="connect-"))
    except OSError as exc:
        logger.warning("no directory for unix sockets, so none can be forwarded", extra={"reason": str(exc)})
        yield None
        return
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
