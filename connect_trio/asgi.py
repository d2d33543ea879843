"""Pages of our own: an ASGI application on a loopback port, its connections owned here.

hypercorn speaks HTTP; the accept loop and the sockets are ours, because hypercorn's own loop sends under a shield
without a deadline: one client that stopped reading would hold up its shutdown for ever. And some requests that are
nearly right make it raise, which would end its loop. Here a connection can be cut from outside, its sends have a
deadline, its troubles are its own, and it reads in pieces large enough for bulk.
"""

from __future__ import annotations

import logging
import socket
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from connect_trio.transport.sockets import Data, Socket

RECEIVE_SIZE = 256 * 1024
QUEUE_LENGTH = 4
"""Received pieces that wait for the application, per request: 1 MiB at most; then the socket is not read."""
KEEP_ALIVE_TIMEOUT = 120
"""Seconds. Longer than whoever keeps connections to us, or they would send into a closing one."""
SEND_TIMEOUT = 15 * 60
"""Seconds in which a client that is sent something has to take at least some of it."""
MAX_HEAD_SIZE = 64 * 1024

logger = logging.getLogger(__name__)


class Connection:
    """One client's connection, in the shape that hypercorn wants of a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = Socket.adopt(stream)
        self._scope = trio.CancelScope()

    @property
    def socket(self) -> socket.socket:
        return self._socket.sock

    async def serve(self, app: ASGIApp, config: Config, context: WorkerContext) -> None:
        """Serve this connection's requests until it ends; it is closed afterwards in any case."""
        state = ConnectionState({"connection": self})
        server = TCPServer(wrap_app(app, 0, "asgi"), config, context, state, self)  # type: ignore[arg-type]
        try:
            with self._scope:
                await server
        except* Exception as group:  # noqa: BLE001 - it is told, and one connection's trouble is not everyone's
            # What an application raises is caught and logged in full by hypercorn: this is hypercorn's own.
            logger.warning("a connection failed", extra={"reason": repr(_first(group))})
        finally:
            self._socket.close()

    def abort(self) -> None:
        """Cut the connection with a reset and cancel its tasks."""
        self._socket.abort()
        self._scope.cancel()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Some bytes, more than asked for if there are; empty at the end."""
        await trio.lowlevel.checkpoint()
        return await self._socket.receive_some(RECEIVE_SIZE)

    async def send_all(self, data: Data) -> None:
        """Raises trio.BrokenResourceError, also when nothing was taken for SEND_TIMEOUT; then it is cut."""
        view = memoryview(data)
        while view := view[self._socket.send_now(view) :]:
            with trio.move_on_after(SEND_TIMEOUT) as waiting:
                await self._socket.wait_writable()
            if waiting.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("the client stopped reading")

    async def send_eof(self) -> None:
        if not self._socket.closed:
            self._socket.send_eof_now()

    async def aclose(self) -> None:
        await self._socket.aclose()


async def serve_app(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; started with the port. Raises OSError if the address is not to be had.

    When cancelled, every connection is cut at once: whoever serves files has nothing to finish that a client could not
    ask for again.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, app, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])


async def serve_listeners(
    app: ASGIApp,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve_app`, on sockets that listen already."""
    config = _config()
    # hypercorn makes a context per worker; None: any number of requests.
    context = WorkerContext(None)
    connections: set[Connection] = set()

    async def handle(stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        connections.add(connection)
        try:
            await connection.serve(app, config, context)
        finally:
            connections.remove(connection)

    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(partial(trio.serve_listeners, handle, listeners, handler_nursery=nursery))
            task_status.started()
            await trio.sleep_forever()
        finally:
            # Reaches also the tasks that a shield of hypercorn keeps from the cancellation.
            for connection in connections:
                connection.abort()


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logger
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_TIMEOUT
    config.keep_alive_max_requests = 1_000_000
    config.h11_max_incomplete_size = MAX_HEAD_SIZE
    config.max_app_queue_size = QUEUE_LENGTH
    return config
