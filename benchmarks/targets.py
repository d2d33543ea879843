"""What is measured, each in processes of its own: the tool itself, a plain relay chain, and Connect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import attrs

from benchmarks.login import log_in

HERE = Path(__file__).resolve().parent
STOP = 15.0


class CannotMeasure(Exception):
    """Something that is to be measured does not start; the text says what."""


@attrs.frozen(kw_only=True)
class Target:
    """Something that answers as the tool does. pids: the processes on the way, by role."""

    name: str
    port: int
    host: str = "localhost"
    cookie: str = "theme=dark"
    pids: dict[str, list[int]] = attrs.field(factory=dict)


@contextmanager
def running(command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, text=True, stdin=subprocess.DEVNULL, cwd=HERE.parent, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def tool() -> Iterator[Target]:
    """The tool, asked directly."""
    with running([sys.executable, str(HERE / "tool.py"), "0"], stdout=subprocess.PIPE) as process:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise CannotMeasure("the benchmark's tool does not start")
        yield Target(name="tool", port=int(line), pids={"tool": [process.pid]})


@contextmanager
def relay_chain(tool_port: int) -> Iterator[Target]:
    """Plain relays on the way that Connect's bytes go: proxy, server, the proxy again, agent."""
    with (
        _listener() as entry,
        _listener() as switch,
        _listener() as tunnel,
        _listener() as agent,
        _relay({entry: _port(switch), tunnel: _port(agent)}) as proxy_process,
        _relay({switch: _port(tunnel)}) as server_process,
        _relay({agent: tool_port}) as agent_process,
    ):
        pids = {"proxy": [proxy_process.pid], "server": [server_process.pid], "agent": [agent_process.pid]}
        yield Target(name="relay", port=_port(entry), pids=pids)


def _listener() -> socket.socket:
    # Relays know each other's ports before any of them runs; until then the kernel keeps connections waiting.
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@contextmanager
def _relay(routes: dict[socket.socket, int]) -> Iterator[subprocess.Popen[str]]:
    pairs = [f"{listener.fileno()}:{port}" for listener, port in routes.items()]
    descriptors = [listener.fileno() for listener in routes]
    with running([sys.executable, "-m", "benchmarks.relay", *pairs], pass_fds=descriptors) as process:
        yield process


@contextmanager
def connect_stack(name: str, *, websocket_only: bool = False, module: str = "connect_trio") -> Iterator[Target]:
    """Connect, each role a process, and the Studio of a visitor who has logged in.

    websocket_only: whether the tunnel is a WebSocket instead of the raw upgrade. module: what to run as Connect.
    """
    command = [sys.executable, "-m", module, "dev", "--processes", "--port", "0", "--platform-port", "0"]
    env = os.environ | {"CONNECT_TUNNEL_WEBSOCKET_ONLY": str(websocket_only).lower()}
    with TemporaryDirectory() as folder:
        state = Path(folder, "state.json")
        command += ["--json", "--state", str(state), "--", sys.executable, str(HERE / "tool.py"), "{port}"]
        with running(command, env=env, stdout=subprocess.PIPE) as process:
            if process.stdout is None or not process.stdout.readline():
                raise CannotMeasure("the development stack does not start; what it said is above")
            yield _studio(name, state)


def _studio(name: str, state: Path) -> Target:
    """The first Studio, once its agent is there, as a visitor who has logged in."""
    document = json.loads(state.read_text())
    session, user = document["sessions"][0], document["users"][0]
    cookie = log_in(session["url"], user["username"], user["password"])
    pids = json.loads(state.read_text())["pids"]  # agents may be later than everything else
    url = urlsplit(session["url"])
    return Target(
        name=name,
        port=url.port or 80,
        host=url.netloc,
        cookie=cookie,
        pids={"proxy": pids["proxy"], "server": pids["server"], "agent": pids["agent"][:1]},
    )
