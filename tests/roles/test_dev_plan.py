"""What the development stack consists of, before anything starts."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from connect_trio.config import load_agent, load_platform, load_proxy, load_server
from connect_trio.ports import free_ports
from connect_trio.roles.dev_plan import (
    CannotRun,
    DevOptions,
    Plan,
    inherited,
    make_plan,
    resolved,
    tool_name,
)
from connect_trio.roles.listeners import CannotListen


def plan_of(work: Path, **options: object) -> Plan:
    wanted = DevOptions(**{"port": 0, "platform_port": 0, "root": work} | options)  # type: ignore[arg-type]
    return make_plan(wanted, work=work, environ={"PATH": "/usr/bin:/bin"})


def test_every_role_can_be_configured_by_the_plan(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    for studio in plan.studios:
        plan.token_file(studio).write_text("token")
        agent = load_agent(plan.agent_env(studio), command=("tool",))
        assert (agent.proxy_url, agent.root) == (plan.connect_url, tmp_path)
    proxy = load_proxy(plan.proxy_env(0))
    assert (proxy.http_host, proxy.http_port, proxy.reuse_port) == ("127.0.0.1", plan.port, False)
    server = load_server(plan.server_env(0))
    assert proxy.tunnel_url == (f"127.0.0.1:{server.tunnel_port}",)
    platform = load_platform(plan.platform_env())
    assert (platform.url, platform.port) == (proxy.platform_url, plan.platform_port)
    assert platform.registration_token == proxy.registration_token


def test_every_listener_is_on_loopback(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, servers=2, proxies=2)
    assert {load_proxy(plan.proxy_env(number)).http_host for number in (0, 1)} == {"127.0.0.1"}
    assert {load_server(plan.server_env(number)).bind_host for number in (0, 1)} == {"127.0.0.1"}
    assert load_platform(plan.platform_env()).host == "127.0.0.1"


def test_servers_and_proxies_are_managed_where_they_are_processes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, servers=2, proxies=2)
    managed = [load_server(plan.server_env(number)) for number in range(2)]
    managed += [load_proxy(plan.proxy_env(number)) for number in range(2)]  # type: ignore[misc]
    ports = [settings.management_port for settings in managed]
    assert len({*ports, plan.port, *plan.extra_ports} - {None}) == 7
    assert {settings.management_host for settings in managed} == {"127.0.0.1"}
    assert {settings.management_auth_key for settings in managed} == {plan.management_key}
    urls = [url for role in ("server", "proxy") for url in plan.management[role]]
    assert urls == [f"http://127.0.0.1:{port}" for port in ports]
    assert plan.management_key not in repr(plan)
    alone = plan_of(tmp_path)
    assert alone.management == {}
    assert load_server(alone.server_env(0)).management_port is None


def test_the_key_of_the_management_ports_can_be_chosen(tmp_path: Path) -> None:
    wanted = DevOptions(port=0, platform_port=0, root=tmp_path, processes=True)
    environ = {"PATH": "/usr/bin:/bin", "CONNECT_MANAGEMENT_AUTH_KEY": "chosen"}
    plan = make_plan(wanted, work=tmp_path, environ=environ)
    assert load_server(plan.server_env(0)).management_auth_key == "chosen"


def test_a_drain_is_short_unless_told_otherwise(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert load_server(plan.server_env(0)).drain_grace == load_proxy(plan.proxy_env(0)).drain_grace == 2
    object.__setattr__(plan, "environ", {"CONNECT_DRAIN_GRACE": "7s"})
    assert load_server(plan.server_env(0)).drain_grace == load_proxy(plan.proxy_env(0)).drain_grace == 7


def test_proxies_share_a_port_and_have_one_each(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, servers=2, proxies=3)
    proxies = [load_proxy(plan.proxy_env(number)) for number in range(3)]
    assert {(proxy.http_port, proxy.reuse_port) for proxy in proxies} == {(plan.port, True)}
    assert len({proxy.extra_port for proxy in proxies} - {None, plan.port}) == 3
    assert all(len(proxy.tunnel_url) == 2 for proxy in proxies)


def test_studios_have_labels_under_connects_host(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    first, second = plan.studios
    assert plan.studio_url(first) == f"http://{first.label}.connect.localhost:{plan.port}/"
    assert first.owner == second.owner == "alice"
    assert [studio.private for studio in plan.studios] == [False, True]


def test_studios_may_have_a_domain_of_their_own(tmp_path: Path) -> None:
    wanted = DevOptions(port=0, platform_port=0, root=tmp_path)
    plan = make_plan(wanted, work=tmp_path, environ={"CONNECT_STUDIO_DOMAIN": "studios.localhost"})
    label = plan.studios[0].label
    assert plan.studio_url(plan.studios[0]) == f"http://{label}.studios.localhost:{plan.port}/"
    assert load_proxy(plan.proxy_env(0)).studio_domain == "studios.localhost"
    assert load_platform(plan.platform_env()).studio_domain == "studios.localhost"
    with pytest.raises(CannotRun, match=r'CONNECT_STUDIO_DOMAIN is "http://x": no domain .* write a host name'):
        make_plan(wanted, work=tmp_path, environ={"CONNECT_STUDIO_DOMAIN": "http://x"})


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"CONNECT_PATH_ROUTING": "on"}, True),
        ({"CONNECT_PATH_ROUTING": "off", "TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING": "true"}, False),
        ({"CONNECT_PATH_ROUTING": "auto", "TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING": "true"}, True),
        ({"TOWER_DATA_STUDIO_ENABLE_PATH_ROUTING": ""}, False),
    ],
)
def test_where_studios_are_below_paths_their_tools_are_told_the_prefix(
    tmp_path: Path, environ: dict[str, str], on: bool
) -> None:
    plan = make_plan(DevOptions(port=0, platform_port=0, root=tmp_path), work=tmp_path, environ=environ)
    for studio in plan.studios:
        plan.token_file(studio).write_text("token")
        prefix = load_agent(plan.agent_env(studio), command=("tool",)).tool_path_prefix
        assert prefix == (f"/_studio/{studio.label}" if on else "")
        assert plan.path_url(studio) == (f"{plan.connect_url}{prefix}/" if on else None)
    assert load_proxy(plan.proxy_env(0)).path_routing == environ.get("CONNECT_PATH_ROUTING", "auto")


def test_a_redis_of_our_own_is_planned_only_where_none_is_given(tmp_path: Path) -> None:
    assert plan_of(tmp_path).redis_port is None
    own = plan_of(tmp_path, processes=True)
    assert own.redis_address == f"127.0.0.1:{own.redis_port}"
    given = plan_of(tmp_path, processes=True, redis="127.0.0.1:6380")
    assert (given.redis_port, given.redis_address) == (None, "127.0.0.1:6380")


def test_a_port_in_use_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"port {port} .* in use.*--port"):
            plan_of(tmp_path, port=port)
        with pytest.raises(CannotListen, match=rf"port {port} .* in use.*--platform-port"):
            plan_of(tmp_path, platform_port=port)


def test_connect_and_platform_need_different_ports(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with pytest.raises(CannotRun, match="two different ones"):
        plan_of(tmp_path, port=port, platform_port=port)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert plan.dev_key not in repr(plan)
    assert plan.registration_token not in repr(plan)


def test_no_variable_of_ours_configures_a_role_behind_our_back() -> None:
    given = {"PATH": "/bin", "CONNECT_HTTP_PORT": "1", "PLATFORM_URL": "x", "LOCAL_CACHE_TTL": "1s", "HOME": "/h"}
    kept = inherited(given | {"CONNECT_LOG_LEVEL": "DEBUG"})
    assert kept == {"PATH": "/bin", "HOME": "/h", "CONNECT_LOG_LEVEL": "DEBUG", "CONNECT_CLIENT_LOG_LEVEL": "WARN"}


def test_the_carrier_of_the_tunnels_can_be_chosen_for_the_whole_stack() -> None:
    chosen = {"CONNECT_TUNNEL_WEBSOCKET_ONLY": "true"}
    assert chosen.items() <= inherited(chosen).items()


def test_a_key_can_be_given_to_the_whole_stack() -> None:
    given = {"CONNECT_CLUSTER_KEY": "0123456789abcdef0123456789abcdef"}
    assert given.items() <= inherited(given).items()


def test_the_caps_of_ssh_can_be_chosen_for_the_whole_stack() -> None:
    caps = {
        "CONNECT_SSH_MAX_CONNECTIONS": "3",
        "CONNECT_SSH_MAX_CONN_CHANNELS": "2",
        "CONNECT_SSH_HANDSHAKE_TIMEOUT": "5s",
    }
    assert caps.items() <= inherited(caps).items()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((), "files"),
        (("/usr/bin/Jupyter", "lab"), "jupyter"),
        (("./my tool.sh",), "my-tool-sh"),
        (("日本",), "tool"),
        (("x" * 100,), "x" * 32),
    ],
)
def test_a_tool_is_named_after_its_program(tmp_path: Path, command: tuple[str, ...], name: str) -> None:
    assert tool_name(command) == name
    if command:
        program = tmp_path / Path(command[0]).name
        program.touch(0o755)
        command = (str(program), *command[1:])
    assert load_platform(plan_of(tmp_path, command=command).platform_env()).tool == name


def test_a_tool_is_found_from_here_from_the_root_and_beside_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "root").mkdir()
    for program in ("here/one", "root/two"):
        (tmp_path / program).touch(0o755)
    monkeypatch.chdir(tmp_path / "here")
    root = tmp_path / "root"
    assert resolved(("./one", "{port}"), root=root) == (f"{tmp_path}/here/one", "{port}")
    assert resolved(("./two",), root=root) == (f"{root}/two",)
    assert resolved(("sh",), root=root)[0].endswith("/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolved((Path(sys.executable).name,), root=root) == (sys.executable,)
    with pytest.raises(CannotRun, match="there is no program three: install it"):
        resolved(("three",), root=root)
