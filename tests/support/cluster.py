"""Several servers and proxies over a real Redis, and many agents in few processes: who is to be killed is killed here.

Unlike `connect_trio dev` nothing is started again by itself, and there are as many sessions as a test wants.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from connect_trio import launch
from connect_trio.devplatform.state import Studio
from connect_trio.ports import free_ports
from connect_trio.roles.dev_plan import DevOptions, Plan, make_plan
from connect_trio.roles.running import READY_FD
from tests.support import survival_tool
from tests.support.balancer import Balancer, balancer
from tests.support.cluster_platform import OWNER, studios
from tests.support.connections import listened_to
from tests.support.e2e import ARTIFACTS, ROOT, file_name, wait_until
from tests.support.metrics import metric
from tests.support.processes import PATIENCE, clean_environ
from tests.support.redis import RedisServer
from tests.support.visits import Visitor

TUNNELS = 2
"""Of each agent."""

AGENTS_PER_PROCESS = 100


class Member:
    """A process that tells when it is ready (`connect_trio.roles.running`), and may be ended and started again."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, *, told: str | None = None
    ) -> None:
        """told: what it gets on stdin."""
        self.name = name
        self._command = command
        self._env = env
        self._log = log
        self._told = told
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process

    def start(self) -> None:
        """Start it, and do not wait for it."""
        self._pipe, writing = os.pipe()
        # The kernel ends it with us, whatever happens to us.
        guard = [sys.executable, launch.__file__, str(int(signal.SIGKILL)), str(os.getpid()), "20000"]
        with self._log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*guard, *self._command],
                env={**clean_environ(), **self._env, READY_FD: str(writing)},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[writing],
            )
        os.close(writing)
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write((self._told or "").encode())

    def wait_until_ready(self) -> dict[str, Any]:
        """What it says when it is ready."""
        with open(self._pipe) as pipe:
            line = pipe.readline()
        assert line, f"{self.name} has ended: {self._log.read_text(errors='replace')[-2000:]}"
        document: dict[str, Any] = json.loads(line)
        return document

    def restart(self) -> None:
        """Start it after its end, and wait until it is ready."""
        self.start()
        self.wait_until_ready()

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait for that."""
        self._running.kill()
        self._running.wait(PATIENCE)
        self._process = None

    def terminate(self) -> None:
        """Ask it to stop."""
        self._running.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> None:
        """Until it has stopped. Asserts that it says that it could."""
        code = self._running.wait(PATIENCE)
        assert code == 0, f"{self.name} exited with {code}"
        self._process = None

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self.kill()


@attrs.frozen
class Cluster:
    """plan: ports and keys. sessions: one for each agent. balancer: what stands before the proxies, if anything.
    platform: remembers nothing when it is started again.

    tool: its port. cookies: of a visitor who has logged in, by session.
    """

    name: str
    plan: Plan
    redis: RedisServer
    platform: Member
    sessions: Sequence[Studio]
    servers: Sequence[Member]
    proxies: Sequence[Member]
    balancer: Balancer | None
    tool: int
    cookies: dict[str, str] = attrs.field(factory=dict)
    _count: list[int] = attrs.field(factory=lambda: [0])

    def port(self, proxy: int) -> int:
        """The own port of a proxy."""
        return self.plan.extra_ports[proxy]

    @property
    def log(self) -> Path:
        return log_of(self.name)

    def counts(self, proxies: Iterable[int]) -> dict[str, int]:
        """What has become of the streams of these proxies, since their start."""
        return {
            name: sum(self.metric("proxy", number, f"connect_proxy_streams_{name}_total") for number in proxies)
            for name in ("detached", "resumed", "moved")
        }

    def spread(self) -> dict[str, str]:
        """How many tunnels each proxy and each server has."""
        return {
            role: "+".join(str(self.metric(role, number, f"connect_{role}_tunnels")) for number in range(len(members)))
            for role, members in (("proxy", self.proxies), ("server", self.servers))
        }

    def metric(self, role: str, number: int, name: str) -> int:
        """What a process tells; one without labels."""
        return metric(self.plan.management[role][number], self.plan.management_key, name)

    def routes(self) -> int:
        """How many tunnels the registry knows."""
        with self.redis.admin() as admin:
            keys = admin.keys(f"connect:dev:{self.plan.port}:*:[0-3]")
        assert isinstance(keys, list)
        return len(keys)

    def wait_until_whole(self) -> None:
        """Until each agent has all its tunnels."""
        wanted = TUNNELS * len(self.sessions)
        wait_until(lambda: self.routes() >= wanted, f"{wanted} routes", every=0.1)

    def doors(self, port: int) -> list[tuple[int, str, str]]:
        """Of each session, for visitors who come in at this port."""
        hosts = (self.plan.studio_url(studio).removeprefix("http://").partition("/")[0] for studio in self.sessions)
        cookies = (self.cookies[studio.id] for studio in self.sessions)
        return [(port, host, cookie) for host, cookie in zip(hosts, cookies, strict=True)]

    def numbers(self, count: int) -> int:
        """The first of as many numbers of flows that no other load here has."""
        self._count[0] += count
        return self._count[0] - count


@contextmanager
def cluster(
    name: str,
    work: Path,
    *,
    servers: int,
    proxies: int,
    agents: int,
    grace: str,
    balanced: bool = False,
    alternating: bool = False,
) -> Iterator[Cluster]:
    """Start everything, log a visitor in at all sessions, and end everything in the end.

    name: of the log among the artifacts. balanced: HAProxy before the proxies; else they share a port. alternating: as
    for `balancer`. grace: CONNECT_DRAIN_GRACE.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    log_of(name).unlink(missing_ok=True)
    with ExitStack() as stack:
        redis = RedisServer(work)
        redis.start()
        stack.callback(redis.stop)
        options = DevOptions(
            port=0,
            platform_port=0,
            root=work,
            processes=True,
            servers=servers,
            proxies=proxies,
            redis=redis.address,
        )
        plan = make_plan(options, work=work, environ={**clean_environ(), "CONNECT_DRAIN_GRACE": grace})
        log = log_of(name)
        members = {
            "server": [role("server", number, plan.server_env(number), log) for number in range(servers)],
            "proxy": [role("proxy", number, proxy_env(plan, number, balanced), log) for number in range(proxies)],
        }
        platform = program("cluster_platform", [str(agents)], plan.platform_env(), log)
        base = [platform, *members["server"], *members["proxy"]]
        start_all(base, stack)
        front = stack.enter_context(in_front(plan, work, alternating=alternating)) if balanced else None
        tool = start_tool(plan, log, stack)
        running = Cluster(
            name, plan, redis, platform, studios(agents), members["server"], members["proxy"], front, tool
        )
        start_all(fleets(running, tool), stack)
        running.wait_until_whole()
        log_in(running)
        yield running


def log_of(name: str) -> Path:
    return ARTIFACTS / f"{file_name(name)}.log"


def role(name: str, number: int, env: Mapping[str, str], log: Path) -> Member:
    return Member(f"{name} {number + 1}", [sys.executable, "-m", "connect_trio", name], env, log)


def program(module: str, arguments: Sequence[str], env: Mapping[str, str], log: Path, **told: str) -> Member:
    command = [sys.executable, "-m", f"tests.support.{module}", *arguments]
    return Member(module, command, env, log, **told)


def proxy_env(plan: Plan, number: int, balanced: bool) -> dict[str, str]:
    """Behind a balancer, which has the public port, a proxy has only its own one."""
    env = plan.proxy_env(number)
    if balanced:
        env["CONNECT_HTTP_PORT"] = env.pop("CONNECT_HTTP_EXTRA_PORT")
        del env["CONNECT_HTTP_REUSE_PORT"]
        env["CONNECT_SSH_ENABLED"] = "false"  # its port cannot be shared then
    return env


def start_all(members: Sequence[Member], stack: ExitStack) -> None:
    for member in members:
        member.start()
        stack.callback(member.close)
    for member in members:
        member.wait_until_ready()


@contextmanager
def in_front(plan: Plan, work: Path, *, alternating: bool) -> Iterator[Balancer]:
    pairs = zip(plan.extra_ports, plan.management_ports["proxy"], strict=True)
    with balancer(plan.port, list(pairs), work, alternating=alternating) as running:
        wait_until(lambda: all(state == "UP" for state in running.states()), "proxies that HAProxy sees as up")
        yield running


def start_tool(plan: Plan, log: Path, stack: ExitStack) -> int:
    """The port of the one tool that all sessions show."""
    (port,) = free_ports(1)
    with log.open("ab") as output:
        command = [sys.executable, "-P", str(Path(survival_tool.__file__)), str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    wait_until(lambda: port in listened_to(), "the tool")
    return port


def fleets(running: Cluster, tool_port: int) -> list[Member]:
    """All agents, with tokens of Platform."""
    tokens = [agent_token(running.plan, studio) for studio in running.sessions]
    options = json.dumps({"proxy_url": running.plan.connect_url, "tool_port": tool_port})
    parts = [tokens[first : first + AGENTS_PER_PROCESS] for first in range(0, len(tokens), AGENTS_PER_PROCESS)]
    return [program("fleet", [options], {}, running.log, told="\n".join(part)) for part in parts]


def agent_token(plan: Plan, studio: Studio) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{plan.platform_port}/api/dev/agent-tokens",
        data=json.dumps({"session": studio.id}).encode(),
        headers={
            "Authorization": f"Bearer {plan.dev_key}",
            "Content-Type": "application/json",
            "Host": f"localhost:{plan.platform_port}",
        },
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["token"])


def log_in(running: Cluster) -> None:
    """One visitor, who logs in once and is then let into each session."""
    visitor = Visitor()
    for number, studio in enumerate(running.sessions):
        url = running.plan.studio_url(studio)
        answer = visitor.open(url + "hello") if number else visitor.log_in(url + "hello", OWNER)
        assert "no such path" in answer.text, answer
        running.cookies[studio.id] = visitor.cookie_header(url)


@attrs.define
class Clock:
    """How busy the machine was between two looks: the share of all its cores' time, from /proc/stat (proc(5))."""

    _before: tuple[int, int] = attrs.field(factory=lambda: cpu_times())
    since: float = attrs.field(factory=time.monotonic)

    def busy(self) -> float:
        total, idle = (now - before for now, before in zip(cpu_times(), self._before, strict=True))
        return 1 - idle / total if total else 0.0


def cpu_times() -> tuple[int, int]:
    """All and idle, in clock ticks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]
