"""The management port itself."""

from __future__ import annotations

import ipaddress
import socket

import trio

from connect_trio.asgi import serve_listeners
from connect_trio.management.app import Management, create_app


async def serve_management(
    management: Management, sock: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve on a listening socket until cancelled; it is closed in the end."""
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    async with listener:
        await serve_listeners(create_app(management), [listener], task_status=task_status)


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine reaches a listening socket."""
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
