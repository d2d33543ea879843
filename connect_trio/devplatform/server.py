"""Serving the development Platform on this machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import trio

from connect_trio.asgi import serve_listeners
from connect_trio.devplatform.app import create_app
from connect_trio.devplatform.keys import KeyRing
from connect_trio.devplatform.notifications import Notifier
from connect_trio.devplatform.state import Studio
from connect_trio.devplatform.studios import StudioPolicy

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class CannotServe(Exception):
    """The development Platform cannot start; the text says why, and how to mend it."""


async def serve(
    *,
    url: str | None,
    host: str = "127.0.0.1",
    port: int = 0,
    connect_url: str,
    studio_domain: str | None = None,
    dev_key: str | None,
    registration_token: str | None = None,
    state_dir: Path | None = None,
    tool: str = "files",
    studios: Sequence[Studio] | None = None,
    policy: StudioPolicy | None = None,
    keys: KeyRing | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; starts with its address.

    url: the address for browsers and Connect, None for that of the listener; the port 0 in it becomes the real one.
    host: loopback only, since everybody knows the passwords. port: 0 for any free one. The rest is as in `create_app`.
    Raises CannotServe.
    """
    notifier = Notifier()
    sock = _listening_socket(host, port)
    try:
        url = _own_url(url, host, sock.getsockname()[1])
        app = await create_app(
            url=url,
            connect_url=connect_url,
            studio_domain=studio_domain,
            dev_key=dev_key,
            registration_token=registration_token,
            state_dir=state_dir,
            tool=tool,
            studios=studios,
            policy=policy,
            keys=keys,
            notifier=notifier,
        )
    except OSError as exc:
        sock.close()
        reason = f"{exc.filename or state_dir}: {exc.strerror or exc}"
        raise CannotServe(f"Platform's state cannot be kept ({reason}); give it a folder that it may write") from exc
    except BaseException:
        sock.close()
        raise
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        nursery.start_soon(notifier.run)
        await nursery.start(serve_listeners, app, [listener])
        task_status.started(url)


def _own_url(url: str | None, host: str, port: int) -> str:
    parts = urlsplit(url or f"http://{f'[{host}]' if ':' in host else host}:0")
    if parts.port != 0:
        return parts.geturl()
    return parts._replace(netloc=f"{parts.netloc.removesuffix(':0')}:{port}").geturl()


def _listening_socket(host: str, port: int) -> socket.socket:
    if host not in _LOOPBACK:
        raise CannotServe(f"the development Platform listens on this machine only: 127.0.0.1 or ::1, not {host}")
    address = "127.0.0.1" if host == "localhost" else host
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(100)
    except (OSError, OverflowError) as exc:
        sock.close()
        reason = getattr(exc, "strerror", None) or str(exc)
        raise CannotServe(f"Platform cannot listen on {address}:{port} ({reason}); choose another port") from exc
    return sock
