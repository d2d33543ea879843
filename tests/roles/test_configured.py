"""Roles as processes: what they say of their variables, with which exit code, and what they make of them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from connect_trio.cli import _ROLES
from connect_trio.config import ROLES, variables
from tests.support.processes import run_connect, running_role
from tests.support.redis import RedisServer
from tests.support.tools import dead_port

PREFIX = "connect-trio: "
PROXY = {
    "CONNECT_REDIS_ADDRESS": "127.0.0.1:1",
    "CONNECT_PROXY_URL": "http://connect.localhost:8080",
    "CONNECT_TUNNEL_URL": "connect-server:7070",
    "PLATFORM_URL": "http://localhost:8081",
}
RIGHT = {
    "server": {},
    "proxy": PROXY,
    "agent": {"CONNECT_PROXY_URL": "http://connect.localhost:8080", "CONNECT_AGENT_TOKEN": "s3cr3t-token"},
}
WRONG = {
    "server": {"CONNECT_REDIS_DB": "one", "CONNECT_LISTENER_PORT": "tcp://10.0.0.1:1", "CONNECT_HOST_DOMAIN": "a b"},
    "proxy": {"CONNECT_STREAM_MEMORY": "256MB", "CONNECT_RESUME_TIMEOUT": "ten minutes", "CONNECT_PROXY_URL": "c.org"},
    "agent": {"CONNECT_STREAM_MEMORY": "1KiB", "CONNECT_TOOL_PORT": "0", "CONNECT_AGENT_TOKEN": "s3cr3t t0ken"},
}


def server_over(redis: RedisServer, **env: str) -> dict[str, str]:
    return {
        "CONNECT_REDIS_ADDRESS": redis.address,
        "CONNECT_LISTENER_PORT": "0",
        "CONNECT_TUNNEL_PORT": "0",
        **env,
    }


def test_config_knows_every_role() -> None:
    assert set(_ROLES) == set(ROLES)


@pytest.mark.parametrize("role", RIGHT)
def test_what_holds_is_printed_with_where_it_comes_from(role: str) -> None:
    code, out, err = run_connect("config", role, **RIGHT[role])
    assert (code, err) == (0, [])
    rows = {name: (source, value) for name, source, value in (line.split(maxsplit=2) for line in out[1:])}
    assert list(rows) == [spec.name for _, spec in variables(ROLES[role])]
    for _, spec in variables(ROLES[role]):
        if spec.name in RIGHT[role]:
            assert rows[spec.name] == ("environment", "***" if spec.secret else RIGHT[role][spec.name])
        elif spec.default:
            assert rows[spec.name] == ("default", spec.default)
        else:
            assert rows[spec.name] == ("-", "(not set)")
    assert "s3cr3t" not in "\n".join(out)


def test_a_secret_of_a_file_is_masked_and_its_file_named(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cr3t")
    code, out, err = run_connect("config", "server", CONNECT_REDIS_PASSWORD_FILE=str(tmp_path / "password"))
    assert (code, err) == (0, [])
    (line,) = (" ".join(line.split()) for line in out if line.startswith("CONNECT_REDIS_PASSWORD "))
    # A path that is long is cut.
    assert line.startswith(f"CONNECT_REDIS_PASSWORD file *** ({tmp_path / 'password'}"[:60])
    assert "s3cr3t" not in "\n".join(out)


@pytest.mark.parametrize("role", WRONG)
def test_all_that_is_wrong_is_named_at_once_by_config_and_by_the_role(role: str) -> None:
    env = RIGHT[role] | WRONG[role] | {"CONNECT_LISTENR_PORT": "1"}
    code, out, lines = run_connect("config", role, **env)
    assert code == 2
    assert lines[0] == (
        f"{PREFIX}warning: CONNECT_LISTENR_PORT is set, but no such variable is known; "
        "did you mean CONNECT_LISTENER_PORT?"
    )
    assert {line.split()[1] for line in lines[1:]} == set(WRONG[role])
    assert len(lines) == 1 + len(WRONG[role])
    assert all("; write " in line or "has characters other than" in line for line in lines[1:])
    wrong = {line.split()[0] for line in out if line.endswith("(wrong)")}
    assert wrong == set(WRONG[role])
    assert "s3cr3t" not in "\n".join(out + lines)
    assert run_connect(role, **env) == (2, [], lines)


def test_what_is_missing_is_named_at_once() -> None:
    for arguments in (["config", "proxy"], ["proxy"]):
        code, _, lines = run_connect(*arguments)
        assert code == 2
        assert [line.removeprefix(PREFIX).split("; ")[0] for line in lines] == [f"{name} is not set" for name in PROXY]


def test_a_proxy_apart_from_platform_is_warned_of_and_runs(tmp_path: Path, redis_server: RedisServer) -> None:
    env = PROXY | {
        "CONNECT_REDIS_ADDRESS": redis_server.address,
        "CONNECT_HTTP_HOST": "127.0.0.1",
        "CONNECT_HTTP_PORT": "0",
        "CONNECT_STORAGE_ROOT": str(tmp_path / "data"),
        "CONNECT_PROXY_URL": "https://connect.example.com",
        "PLATFORM_URL": f"https://platform.example.org:{dead_port()}",
    }
    code, _, lines = run_connect("config", "proxy", **env)
    assert code == 0
    (warning,) = lines
    assert "PLATFORM_URL (example.org) and CONNECT_PROXY_URL (example.com) share no root domain" in warning
    with running_role("proxy", env=env, log=tmp_path / "log") as proxy:
        assert warning in proxy.said
        assert proxy.stop() == 0


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"CONNECT_BIND_HOST": "0.0.0.0"}, "{hostname}:{port}"),
        ({"CONNECT_HOST_DOMAIN": "connect.svc."}, "{hostname}.connect.svc:{port}"),
        ({"CONNECT_ADVERTISE_ADDRESS": "10.0.0.7:99", "CONNECT_HOST_DOMAIN": "connect.svc"}, "10.0.0.7:99"),
    ],
)
def test_the_address_that_a_server_publishes(
    environ: dict[str, str], address: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    with running_role("server", env=server_over(redis_server, **environ), log=tmp_path / "log") as server:
        port = server.started["listener_port"]
        assert server.started["address"] == address.format(hostname=socket.gethostname(), port=port)
        assert server.stop() == 0


def test_a_limit_of_open_files_is_raised_as_far_as_permitted(tmp_path: Path, redis_server: RedisServer) -> None:
    env = server_over(redis_server)
    with running_role("server", env=env, log=tmp_path / "log", open_files=(256, 10_200)) as server:
        assert server.open_files == (10_200, 10_200)
        assert not any("open files" in line for line in server.said)


@pytest.mark.parametrize(
    ("role", "needed", "what"),
    [("server", 10_200, "tunnels and links"), ("proxy", 14_200, "visitors, links and tunnels")],
)
def test_a_limit_that_stays_too_low_is_one_warning(
    role: str, needed: int, what: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    env = PROXY | server_over(redis_server, CONNECT_HTTP_PORT="0", CONNECT_STORAGE_ROOT=str(tmp_path / "data"))
    with running_role(role, env=env, log=tmp_path / "log", open_files=(256, 1000)) as running:
        assert running.open_files == (1000, 1000)
        (line,) = [line for line in running.said if "open files" in line]
        assert f"too low for the {what} that this {role} is made for; raise it" in line
        assert line.endswith(f"limit=1000 needed={needed}")
        assert running.stop() == 0
