"""What is wrong gets one clear line or page and a sane exit code; and garbage on a port is nobody's end."""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.e2e import MODES, DevStack, descendants, dev_stack, listening_ports, run_cli, wait_until, with_tool
from tests.support.tools import dead_port
from tests.support.visits import HERE, Answer, Visitor

WRONG, CANNOT_RUN = 2, 1
PREFIX = "connect-trio: "
DEAF = [sys.executable, "-c", "import time; time.sleep(1000)"]


@pytest.fixture(scope="module")
def stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("bad-input")
    (root / "readme.txt").write_text("still here")
    # hypercorn logs some requests that are nearly WebSockets as errors of the application.
    with dev_stack(*MODES[mode], root=root, name=f"bad-input-{mode}", calm=False) as stack:
        yield stack


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback on which somebody listens, who says nothing."""
    with socket.create_server((HERE, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port of loopback on which nobody listens."""
    return dead_port()


@pytest.mark.parametrize(
    ("arguments", "env", "line"),
    [
        (["serve"], {}, "there is no command 'serve'; did you mean server?"),
        (["dev", "--port", "http"], {}, "argument --port: 'http' is no port; give a number from 0 to 65535"),
        (["dev", "--platform-port", "-1"], {}, "argument --platform-port: '-1' is no port"),
        (["server"], {"CONNECT_TUNNEL_PORT": "77777"}, "CONNECT_TUNNEL_PORT"),
        (["dev", "--root", "/no/such/folder"], {}, "'/no/such/folder' is no folder; give one that exists"),
        (["dev", "--processes", "--redis", "nonsense"], {}, "argument --redis: 'nonsense'"),
    ],
)
def test_asking_wrongly_is_one_line(arguments: list[str], env: dict[str, str], line: str) -> None:
    env = {"CONNECT_REDIS_ADDRESS": "127.0.0.1:1", **env} if arguments == ["server"] else env
    code, said = run_cli(*arguments, env=env)
    assert (code, len(said)) == (WRONG, 1), said
    assert said[0].startswith(PREFIX)
    assert line in said[0]


@pytest.mark.parametrize("option", ["--port", "--platform-port"])
def test_a_port_in_use_is_one_line(mode: str, option: str, taken: int) -> None:
    other = {"--port": "--platform-port", "--platform-port": "--port"}[option]
    code, said = run_cli("dev", *MODES[mode], option, str(taken), other, "0")
    assert code == CANNOT_RUN
    assert said == [
        f"{PREFIX}port {taken} on 127.0.0.1 is in use: stop what listens there, or choose another with {option}"
    ]


def test_one_port_for_both_is_one_line(closed: int) -> None:
    code, said = run_cli("dev", "--port", str(closed), "--platform-port", str(closed))
    assert (code, len(said)) == (CANNOT_RUN, 1)
    assert "choose two different ones" in said[0]


@pytest.mark.parametrize("port", ["taken", "closed"])
def test_a_redis_that_is_not_there_is_one_line(port: str, request: pytest.FixtureRequest) -> None:
    address = f"{HERE}:{request.getfixturevalue(port)}"
    code, said = run_cli("dev", "--port", "0", "--platform-port", "0", "--processes", "--redis", address)
    assert (code, len(said)) == (CANNOT_RUN, 1), said
    assert said[0].startswith(f"{PREFIX}no Redis at {address} (")


def test_a_role_without_its_redis_is_one_line(closed: int, tmp_path: Path) -> None:
    common = {"CONNECT_REDIS_ADDRESS": f"{HERE}:{closed}", "CONNECT_LOG_LEVEL": "ERROR"}
    roles = {
        "server": {"CONNECT_LISTENER_PORT": "0", "CONNECT_TUNNEL_PORT": "0"},
        "proxy": {
            "CONNECT_HTTP_PORT": "0",
            "CONNECT_PROXY_URL": "http://connect.localhost:8080",
            "CONNECT_TUNNEL_URL": f"{HERE}:7070",
            "CONNECT_STORAGE_ROOT": str(tmp_path),
            "PLATFORM_URL": "http://localhost:8081",
        },
    }
    for role, env in roles.items():
        code, said = run_cli(role, env=common | env, waits={"connect_trio.roles.registry.READY": 1.0})
        assert (code, len(said)) == (CANNOT_RUN, 1), said
        assert f"cannot connect to Redis at {HERE}:{closed}: " in said[0]


def test_a_missing_redis_server_is_one_line(tmp_path: Path) -> None:
    code, said = run_cli("dev", "--port", "0", "--platform-port", "0", "--processes", env={"PATH": str(tmp_path)})
    assert code == CANNOT_RUN
    assert said == [f"{PREFIX}there is no redis-server: install it, or name a Redis with --redis HOST:PORT"]


@pytest.mark.parametrize("token", ["nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIyM2NlNzk2NyJ9."])
def test_a_wrong_token_is_one_line(stack: DevStack, token: str) -> None:
    env = {"CONNECT_PROXY_URL": stack.connect_url, "CONNECT_AGENT_TOKEN": token, "CONNECT_CLIENT_LOG_LEVEL": "ERROR"}
    code, said = run_cli("agent", env=env)
    assert (code, len(said)) == (CANNOT_RUN, 1), said
    assert said[0].startswith(f"{PREFIX}Connect refuses this agent: the agent's token is refused: ")
    assert token not in said[0]


def test_a_tool_that_dies_at_once_is_a_page_that_says_so(mode: str, tmp_path: Path) -> None:
    root = make_root(tmp_path)
    with dev_stack(*with_tool(mode, ["sh", "-c", "exit 3"]), root=root, name=f"bad-input-dies-{mode}") as stack:
        assert stack.wait_for_log("the tool has ended")
        alice = Visitor()
        alice.log_in(stack.private["url"], "alice")
        # Until then it was starting; there are two Studios, and one of them is told first.
        exited = "the tool exited with code 3"
        page = wait_until(lambda: page if exited in (page := alice.open(stack.private["url"])).text else None, exited)
        assert page.status == 502
        assert "<h1>" in page.text
        answer = alice.request("GET", stack.private["url"])
        assert answer.status == 502
        assert json.loads(answer.text)["error"]["part"] == "tool"


def test_a_program_that_is_not_there_is_one_line(mode: str) -> None:
    arguments = with_tool(mode, ["no-such-tool"])
    code, said = run_cli("dev", "--port", "0", "--platform-port", "0", *arguments)
    assert code == CANNOT_RUN
    assert said == [f"{PREFIX}there is no program no-such-tool: install it, or write its whole path"]


def test_a_tool_that_never_listens_is_a_page_that_says_so(tmp_path: Path) -> None:
    waits = {"connect_trio.agent.tool.PATIENCE": 1.0}
    with dev_stack("--", *DEAF, root=make_root(tmp_path), name="bad-input-deaf", waits=waits) as stack:
        page = Visitor().log_in(stack.private["url"], "alice")
        assert 502 <= page.status <= 504
        assert "the tool is still starting: nothing listens on port" in page.text


def test_hosts_that_are_no_studio_are_refused(stack: DevStack) -> None:
    port = Visitor().port_for(stack.connect_url)
    for host in ("evil.example", f"connect.localhost.evil.example:{port}", f"a.b.connect.localhost:{port}", ""):
        answer = Visitor().request("GET", stack.connect_url + "/", headers={"Host": host})
        assert answer.status in (400, 404, 421), (host, answer)


def test_garbage_on_every_port_is_nobodys_end(stack: DevStack) -> None:
    alice = Visitor()
    url = stack.private["url"] + "readme.txt"
    assert alice.log_in(url, "alice").text == "still here"
    before = stack.now()["pids"]
    ours = [stack.process.pid, *(process.pid for process in descendants(stack.process.pid))]
    ports = {port for pid in ours for port in listening_ports(pid)}
    # Platform, Connect, links, tunnels, and a file server for each Studio.
    assert len(ports) >= 6
    for port in sorted(ports):
        for garbage in nonsense(stack):
            throw(port, garbage)
    assert wait_until(lambda: works(alice, url), "the Studio after the garbage")
    assert stack.now()["pids"] == before


def nonsense(stack: DevStack) -> Iterator[bytes]:
    """What no port expects, from noise to nearly right."""
    chance = random.Random(2)
    yield b""
    yield b"\0"
    yield b"\r\n" * 1000
    yield chance.randbytes(100_000)
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500)  # TLS (RFC 8446 section 4.1.2)
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # HTTP/2 (RFC 9113 section 3.4)
    yield b"SSH-2.0-OpenSSH_9.2\r\n"
    yield b"GET / HTTP/9.9\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000
    yield b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz"
    yield b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"
    yield b"GET http://[::1 HTTP/1.1\r\nHost: [::1\r\n\r\n"
    yield b"GET /%ff%00%zz HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n"
    host = stack.connect_url.removeprefix("http://").encode()
    for carrier in (b"websocket", b"connect-mux"):
        # Nearly an agent, or what a proxy makes of one.
        yield (
            b"GET /_connect/tunnel HTTP/1.1\r\nHost: %b\r\nUpgrade: %b\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Authorization: Bearer nonsense\r\nX-Connect-Session: 23ce7967\r\nX-Connect-Instance: %b\r\n\r\n"
        ) % (host, carrier, b"0" * 32) + chance.randbytes(1000)
    for kind in range(17):
        # Frames of the mux of each type with nonsense in them (docs/protocol.md).
        yield struct.pack(">II", kind << 24 | 64, chance.choice([0, 1, 2**31])) + chance.randbytes(64)
    yield struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) * 10


def throw(port: int, garbage: bytes) -> None:
    """Send it all, or as much as is taken, and leave: half of it is of a kind that nobody ends properly."""
    with socket.create_connection((HERE, port), timeout=5) as client:
        try:
            client.sendall(garbage)
            client.settimeout(0.05)
            client.recv(1)
        except (OSError, TimeoutError):
            pass
        if len(garbage) % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def works(visitor: Visitor, url: str) -> bool:
    answer: Answer = visitor.request("GET", url)
    return answer.status == 200 and answer.text == "still here"


def make_root(folder: Path) -> Path:
    root = folder / "studio"
    root.mkdir()
    return root
