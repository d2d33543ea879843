"""Faults that hit a running `connect_trio dev --processes` from outside, and where to hit it.

Who is connected with whom is read from /proc; processes are killed, connections are destroyed by `ss -K` (both ends get
a reset) or starved by a packet filter in a table of its own (neither end hears anything any more).
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import attrs
import pytest
import redis

from connect_trio.routing.registry import MAX_SLOTS
from tests.support.connections import Connection, connections_of, environment, listened_to
from tests.support.e2e import DevStack, listening_ports, process_of, wait_until
from tests.support.metrics import metric
from tests.support.parts import REASON, require
from tests.support.visits import HERE

WEIGHING = 0.3
"""Seconds for which connections are watched to find the one that carries most."""

WEIGHTY = 4096
"""Bytes that the busiest connection carries meanwhile, at least: under load it is many times as much."""

TUNNELS = 2
"""Of each session, in every stack here."""

_MOVES = 12


SPREAD = 180.0
"""Seconds for everything to be whole again: agents look for another server at growing intervals."""


class Scene:
    """The parts of a stack that matter for one session, and one proxy at which its visitors come in.

    session: its id.
    """

    def __init__(self, stack: DevStack, session: str) -> None:
        self.stack = stack
        self.session = session
        self.port = int(stack.document["connect_url"].rpartition(":")[2])
        self.door = int(stack.document["proxies"][0].rpartition(":")[2])
        self._whole = {role: len(pids) for role, pids in stack.now()["pids"].items()}

    def agent(self) -> int:
        """The session's agent, which is told by its token's file."""
        ours = f"agent-{self.session}.token"
        agents = self.stack.pids("agent")
        return next(pid for pid in agents if environment(pid).get("CONNECT_AGENT_TOKEN_FILE", "").endswith(ours))

    def visitors_proxy(self) -> int:
        return next(pid for pid in self.stack.pids("proxy") if self.door in listening_ports(pid))

    def other_proxies(self) -> list[int]:
        return [pid for pid in self.stack.pids("proxy") if self.door not in listening_ports(pid)]

    def tunnels(self) -> list[Connection]:
        """The session's tunnels, as far as from its agent to a proxy."""
        return [one for one in connections_of(self.agent()) if one.peer == self.port]

    def carrier(self, tunnel: Connection) -> int | None:
        """The proxy through which a tunnel passes."""
        for pid in self.stack.pids("proxy"):
            if any((one.port, one.peer) == (tunnel.peer, tunnel.port) for one in connections_of(pid)):
                return pid
        return None

    def links(self) -> list[Connection]:
        """Those of the visitors' proxy."""
        ports = {port for pid in self.stack.pids("server") if (port := port_of(pid, "CONNECT_LISTENER_PORT"))}
        return [one for one in connections_of(self.visitors_proxy()) if one.peer in ports]

    def server_of(self, link: Connection) -> int:
        pids = self.stack.pids("server")
        return next(pid for pid in pids if port_of(pid, "CONNECT_LISTENER_PORT") == link.peer)

    def is_whole(self) -> bool:
        """Whether everything runs, all sessions have their tunnels, which are apart, with none that was replaced and
        still lingers, and the visitors' proxy has a link."""
        running = {role: len(pids) for role, pids in self.stack.now()["pids"].items()}
        return running == self._whole and len(self.tunnels()) == TUNNELS and self.are_apart() and bool(self.links())

    def are_apart(self) -> bool:
        """Whether the tunnels of each session are at as many servers as there are, and no others are there.

        With one server it has them all; with two, each has one of each session.
        """
        servers = self.stack.document["management"]["server"]
        spread = min(TUNNELS, len(servers))
        places = self.places()
        if not all(len(at) == TUNNELS and len(set(at)) == spread for at in places):
            return False
        routes = Counter(address for at in places for address in at)
        key = self.stack.document["management_key"]
        try:
            there = sorted(metric(url, key, "connect_server_tunnels") for url in servers)
        except OSError:
            return False
        return there == sorted([*routes.values(), *[0] * (len(servers) - len(routes))])

    def places(self) -> list[list[str]]:
        """Of each session the servers where proxies find its tunnels, as the registry says."""
        host, _, port = self.stack.document["redis"].partition(":")
        keys = [f"connect:dev:{self.port}:{one['id']}" for one in self.stack.document["sessions"]]
        try:
            with redis.Redis(host, int(port), single_connection_client=True) as client:
                found = [client.mget([f"{key}:{slot}" for slot in range(MAX_SLOTS)]) for key in keys]
        except redis.ConnectionError:
            return []
        return [[json.loads(value)["address"] for value in values if value is not None] for values in found]

    def wait_until_whole(self) -> None:
        what = f"every process, a link, and {TUNNELS} tunnels of each session, spread over the servers"
        wait_until(self.is_whole, what, every=0.1, patience=SPREAD)


def port_of(pid: int, variable: str) -> int:
    """A port that a process was told; 0 if it is gone."""
    return int(environment(pid).get(variable, 0))


def server_ports(pid: int) -> set[int]:
    """Where a server listens, for proxies and for tunnels."""
    return {port_of(pid, "CONNECT_LISTENER_PORT"), port_of(pid, "CONNECT_TUNNEL_PORT")}


def busiest(candidates: Sequence[Connection]) -> Connection:
    """Of these, the one over which most is sent just now."""
    assert candidates, "there is no such connection"
    if len(candidates) == 1:
        return candidates[0]

    def look() -> Connection | None:
        before = [sent_over(one) for one in candidates]
        time.sleep(WEIGHING)
        moved = [sent_over(one) - earlier for one, earlier in zip(candidates, before, strict=True)]
        return candidates[moved.index(max(moved))] if max(moved) >= WEIGHTY else None

    return wait_until(look, "a connection that carries something")


def sent_over(connection: Connection) -> int:
    """Bytes that a connection has carried, in both directions."""
    return sum(map(int, re.findall(r"\bbytes_(?:acked|received):(\d+)", run("ss", "-Htin", *ends(connection)))))


@attrs.frozen
class Fault:
    """strike: hits when it is entered, and gives the time (time.monotonic) from which a pause counts; leaving it undoes
    what does not pass by itself. visible: whether somebody is told that the connection is gone. cuts: whether it takes
    the right to interfere with connections. prepare: brings about what it needs.
    """

    name: str
    strike: Callable[[Scene], AbstractContextManager[float]]
    visible: bool = True
    cuts: bool = False
    prepare: Callable[[Scene], object] = lambda scene: None


@contextmanager
def kill_busy_server(scene: Scene) -> Iterator[float]:
    """The stack starts it again."""
    pid = scene.server_of(busiest(scene.links()))
    since = time.monotonic()
    kill(scene, pid)
    yield since


@contextmanager
def drain_busy_server(scene: Scene) -> Iterator[float]:
    """Asked to stop, as for an upgrade; the time counts from then, and a pause is one that nobody should notice."""
    pid = scene.server_of(busiest(scene.links()))
    since = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_for_end(scene, pid)
    yield since


@contextmanager
def kill_only_server(scene: Scene) -> Iterator[float]:
    """The time counts from when there is a server again, for without one nothing can go on."""
    [pid] = scene.stack.pids("server")
    ports = server_ports(pid)
    kill(scene, pid)
    wait_until(lambda: ports <= listened_to(), "a server that listens again", every=0.002)
    yield time.monotonic()


@contextmanager
def kill_other_proxy(scene: Scene) -> Iterator[float]:
    """One at which none of the session's visitors is, but through which its bytes pass."""
    pid = busy_other_proxy(scene) or next(iter(others_that_carry(scene)))
    since = time.monotonic()
    kill(scene, pid)
    yield since


@contextmanager
def stopped_agent(scene: Scene) -> Iterator[None]:
    """No fault, as it does not last: whoever is asked meanwhile answers later."""
    pid = scene.agent()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: (process := process_of(pid)) is not None and process.state == "T", "the agent to stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lead_through_other_proxy(scene: Scene) -> None:
    """Cut tunnels until the busiest one passes through another proxy than the visitors', or at least some other one."""
    for attempt in range(_MOVES):
        if busy_other_proxy(scene) or (attempt > _MOVES // 2 and others_that_carry(scene)):
            return
        reset(busiest(scene.tunnels()))
        scene.wait_until_whole()
    raise AssertionError(f"after {_MOVES} cuts still no tunnel passes through another proxy than the visitors'")


def busy_other_proxy(scene: Scene) -> int | None:
    carrier = scene.carrier(busiest(scene.tunnels()))
    return carrier if carrier in scene.other_proxies() else None


def others_that_carry(scene: Scene) -> set[int]:
    return {pid for tunnel in scene.tunnels() if (pid := scene.carrier(tunnel)) in scene.other_proxies()}


def resetting(find: Callable[[Scene], Sequence[Connection]]) -> Callable[[Scene], AbstractContextManager[float]]:
    @contextmanager
    def strike(scene: Scene) -> Iterator[float]:
        connection = busiest(find(scene))
        since = time.monotonic()
        reset(connection)
        yield since

    return strike


def silencing(find: Callable[[Scene], Sequence[Connection]]) -> Callable[[Scene], AbstractContextManager[float]]:
    return lambda scene: silent(busiest(find(scene)))


FAULTS = (
    Fault("server drained", drain_busy_server),
    Fault("server killed", kill_busy_server),
    Fault("tunnel reset", resetting(Scene.tunnels), cuts=True),
    Fault("link reset", resetting(Scene.links), cuts=True),
    Fault("other proxy killed", kill_other_proxy, cuts=True, prepare=lead_through_other_proxy),
    Fault("tunnel silent", silencing(Scene.tunnels), visible=False, cuts=True),
    Fault("link silent", silencing(Scene.links), visible=False, cuts=True),
)
ONLY_SERVER = Fault("only server killed", kill_only_server)


def kill(scene: Scene, *pids: int) -> None:
    """End processes of a stack at once, and wait until the stack has noticed."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for_end(scene, *pids)


def wait_for_end(scene: Scene, *pids: int) -> None:
    """Wait until the stack has noticed that these have ended."""
    wait_until(
        lambda: set(pids).isdisjoint(pid for running in scene.stack.now()["pids"].values() for pid in running),
        f"the end of {pids}",
    )


def reset(connection: Connection) -> None:
    """Destroy a connection: its owner gets an error, its peer a reset."""
    run("ss", "-Ktn", *ends(connection))
    wait_until(lambda: not connection.lives(), f"the end of {connection}")


@contextmanager
def silent(connection: Connection) -> Iterator[float]:
    """Let nothing of a connection arrive any more, in either direction; nobody is told."""
    table = f"connect_faults_{os.getpid()}_{connection.port}_{connection.peer}"
    pairs = ((connection.port, connection.peer), (connection.peer, connection.port))
    rules = [f"iif lo tcp sport {source} tcp dport {target} counter drop" for source, target in pairs]
    # On the way in: what is dropped on the way out is an error that the sender's kernel hears of.
    lines = [f"table inet {table} {{", "chain arriving {", "type filter hook input priority -300", *rules, "}", "}"]
    try:
        since = time.monotonic()
        run("nft", "\n".join(lines))
        yield since
        dropped = sum(map(int, re.findall(r"packets (\d+)", run("nft", f"list table inet {table}"))))
        assert dropped, f"nothing was sent over {connection} while it was silent"
    finally:
        subprocess.run([require("nft"), f"delete table inet {table}"], capture_output=True)


@functools.cache
def may_cut() -> bool:
    """Whether this user, and this kernel, can do to connections what the faults here do."""
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as client:
        try:
            with silent(Connection(client.getsockname()[1], server.getsockname()[1], "")):
                client.send(b"lost")
            run("ss", "-Ktn", *ends(Connection(client.getsockname()[1], server.getsockname()[1], "")))
        except AssertionError:
            return False
        try:
            client.getpeername()
        except OSError:
            return True
        return False


def require_cuts() -> None:
    """Skip a test where connections cannot be cut from outside."""
    require("ss")
    require("nft")
    if not may_cut():
        pytest.skip(f"{REASON}the right to cut connections (root, and a kernel with nf_tables and INET_DIAG_DESTROY)")


def ends(connection: Connection) -> list[str]:
    """A connection as `ss` filters for it."""
    return ["src", f"{HERE}:{connection.port}", "dst", f"{HERE}:{connection.peer}"]


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([require(program), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
    return done.stdout
