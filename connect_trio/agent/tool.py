"""The tool of a Studio: started here or found on a port of this container, and reached over loopback only."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from connect_trio.agent.files import serve_files
from connect_trio.children import CannotStart, start_child
from connect_trio.ports import NoFreePort, free_ports
from connect_trio.transport.sockets import Socket

HOST = "127.0.0.1"
POLL = 0.1
PATIENCE = 15.0  # seconds that one stream waits for a tool that is still starting
STOP_GRACE = 3.0
CONNECT_TIMEOUT = 5.0

logger = logging.getLogger(__name__)


class ToolUnavailable(Exception):
    """The tool takes no connection; the text says why, for a visitor to read."""


class Tool:
    """A tool on a loopback port. `problem` is None while there is hope, else what to tell visitors."""

    def __init__(self, port: int, *, start_timeout: float, host: str = HOST) -> None:
        self.port = port
        self.problem: str | None = None
        self.listening = trio.Event()
        self._host = host
        self._start_timeout = start_timeout

    async def connect(self) -> Socket:
        """A connection to the tool; waits a while if it is still starting. Raises ToolUnavailable."""
        with trio.move_on_after(PATIENCE):
            while True:
                sock = await self._try()
                if sock is not None:
                    return sock
                if self.problem is not None:
                    raise ToolUnavailable(self.problem)
                if self.listening.is_set():
                    raise ToolUnavailable(f"the tool does not accept connections on port {self.port} any more")
                await trio.sleep(POLL)
        raise ToolUnavailable(f"the tool is still starting: nothing listens on port {self.port} yet")

    async def _try(self) -> Socket | None:
        try:
            sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as exc:  # out of files: that may pass
            logger.warning("the tool cannot be tried", extra={"port": self.port, "reason": str(exc)})
            return None
        try:
            with trio.move_on_after(CONNECT_TIMEOUT):
                await sock.connect((self._host, self.port))
                if is_its_own_peer(sock):
                    return None
                return Socket(socket.socket(fileno=sock.detach()))
        except OSError:
            return None
        finally:
            sock.close()
        return None

    async def watch(self) -> None:
        """Wait until the tool listens, and say so; say once if it takes too long, and go on waiting."""
        with trio.move_on_after(self._start_timeout):
            await self._wait_listening()
            return
        if self.problem is None:
            self.problem = f"the tool does not listen on port {self.port}, {self._start_timeout:g} s after its start"
            logger.error("the tool does not listen", extra={"port": self.port, "waited": self._start_timeout})
        await self._wait_listening()
        self.problem = None

    async def _wait_listening(self) -> None:
        while True:
            sock = await self._try()
            if sock is not None:
                break
            await trio.sleep(POLL)
        sock.close()
        self.listening.set()
        logger.info("the tool listens", extra={"port": self.port})


def is_its_own_peer(sock: trio.socket.SocketType) -> bool:
    """Whether a connection has met itself: the kernel may take for its source the very port that nobody listens on.

    RFC 9293, section 3.5, calls that a simultaneous open. It happens to whoever tries a free port often enough.
    """
    return bool(sock.getsockname() == sock.getpeername())


def free_port() -> int:
    """A loopback port that nothing uses now, nor soon will: a tool may take a while until it listens there."""
    try:
        (port,) = free_ports(1)
    except NoFreePort:
        return _any_port()
    return port


def _any_port() -> int:
    """One that the kernel chooses, which may give it to a connection before the tool listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


async def run_command(tool: Tool, command: Sequence[str], *, root: Path, env: Mapping[str, str]) -> None:
    """Run the user's tool in `root` until it ends, with its port in CONNECT_TOOL_PORT and for {port} in its arguments.

    What {prefix} stands for there is CONNECT_TOOL_PATH_PREFIX of `env`, or nothing.
    An end, at once or later, is one line in the log and the `problem` that visitors read.
    """
    prefix = env.get("CONNECT_TOOL_PATH_PREFIX", "")
    arguments = [argument.replace("{port}", str(tool.port)).replace("{prefix}", prefix) for argument in command]
    try:
        child = start_child(arguments, cwd=root, env={**env, "CONNECT_TOOL_PORT": str(tool.port)})
    except CannotStart as exc:
        tool.problem = f"the tool cannot be started: {exc}"
        logger.error("the tool cannot be started", extra={"command": arguments[0], "reason": str(exc)})
        return
    try:
        code = await child.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
        tool.problem = f"the tool {how}"
        logger.error("the tool has ended", extra={"command": arguments[0], "exit": code})
    finally:
        await child.stop(grace=STOP_GRACE)


async def run_files(
    root: Path, *, port: int, path_prefix: str, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `root` by the integrated file server; starts with its port. Raises OSError."""
    await serve_files(root, host=HOST, port=port, path_prefix=path_prefix, task_status=task_status)
