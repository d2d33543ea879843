"""Listening sockets of the roles: bound with a clear error, accepted without tasks that nobody owns."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import trio

BACKLOG = 1024
# What accept(2) says of the listener or of the call, and not of one peer: it will say so for ever.
_LASTING = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger(__name__)


class CannotListen(Exception):
    """A port cannot be had; the text says why and how to mend it."""


def listen(host: str, port: int, *, variable: str, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket on one address; port 0 takes a free one. Raises CannotListen, naming `variable`.

    host: "::" is every address of this machine, and those of IPv4 alone where there is no IPv6.
    """
    if host == "::" and not _has_ipv6():
        host = "0.0.0.0"  # noqa: S104 - what was asked for
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and host in ("::", ""):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise CannotListen(_explain(exc, host, port, variable)) from exc
    sock.setblocking(False)
    return sock


def _has_ipv6() -> bool:
    """Whether the kernel has it, and has not switched it off, as in many containers."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _explain(exc: OSError, host: str, port: int, variable: str) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or choose another with {variable}"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs more rights than this process has: choose one above 1023 with {variable}"
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: see {variable}"
    return f"cannot listen on {host}:{port} ({exc.strerror or exc}): see {variable}"


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


async def all_listening(*listeners: socket.socket) -> bool:
    """Whether connections arrive at all of these."""
    await trio.lowlevel.checkpoint()
    return all(
        sock.fileno() >= 0 and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) for sock in listeners
    )


async def accept_forever(
    listener: socket.socket, handler: Callable[[socket.socket], Awaitable[None]], nursery: trio.Nursery, name: str
) -> None:
    """Start `handler` in `nursery` for each connection. Out of files, it waits and says so once.

    Raises OSError if the listener itself is broken.
    """
    complained = False
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
            continue
        except OSError as exc:
            if exc.errno in _LASTING:
                raise
            if exc.errno not in _EXHAUSTED:
                await trio.lowlevel.checkpoint()
                continue  # the peer was gone before it was accepted
            if not complained:
                logger.error("cannot accept connections", extra={"listener": name, "reason": os.strerror(exc.errno)})
            complained = True
            await trio.sleep(0.1)
            continue
        complained = False
        nursery.start_soon(_serve, handler, sock, name, name=name)
        await trio.lowlevel.checkpoint()


async def _serve(handler: Callable[[socket.socket], Awaitable[None]], sock: socket.socket, name: str) -> None:
    """One connection. A bug that it meets ends it, loudly, and nobody else's."""
    try:
        await handler(sock)
    except Exception:
        logger.exception("a connection failed: this is a bug", extra={"listener": name})
    finally:
        sock.close()
