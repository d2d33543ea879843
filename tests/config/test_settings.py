"""The settings of each role: names and defaults of the contract, all errors at once, no secret shown."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from connect_trio.config import (
    ROLES,
    ConfigError,
    PlatformSettings,
    ServerSettings,
    describe,
    load_agent,
    load_platform,
    load_proxy,
    load_server,
    variables,
    warnings_for,
)

PROXY = {
    "CONNECT_REDIS_ADDRESS": "redis:6379",
    "CONNECT_PROXY_URL": "http://connect.localhost:8080",
    "CONNECT_TUNNEL_URL": "connect-server:7070",
    "PLATFORM_URL": "http://localhost:8081",
}


def test_the_server_needs_nothing() -> None:
    settings = load_server({})
    assert settings == ServerSettings()
    assert settings.redis_address == "redis:6379"
    assert (settings.redis_db, settings.redis_prefix, settings.redis_tls) == (0, "connect:session", False)
    assert (settings.listener_port, settings.tunnel_port, settings.management_port) == (7777, 7070, None)
    assert settings.bind_host == "127.0.0.1"
    assert settings.log_level == "INFO"


def test_the_server_publishes_its_host_name_unless_told_otherwise() -> None:
    assert load_server({}).published_address("server-0") == "server-0:7777"
    domain = load_server({"CONNECT_HOST_DOMAIN": "connect-server", "CONNECT_LISTENER_PORT": "0"})
    assert domain.published_address("server-0", port=4711) == "server-0.connect-server:4711"
    assert load_server({"CONNECT_ADVERTISE_ADDRESS": "10.0.0.7:99"}).published_address("server-0") == "10.0.0.7:99"


def test_the_proxy_has_the_defaults_of_the_contract() -> None:
    settings = load_proxy(PROXY)
    assert (settings.http_port, settings.http_host, settings.reuse_port, settings.extra_port) == (
        80,
        "0.0.0.0",
        False,
        None,
    )
    assert settings.storage_root == Path("/data")
    assert (settings.client_name, settings.grant_type) == ("tower-connect-proxy-client", "authorization_code")
    assert settings.local_cache_ttl == 120.0
    assert settings.trusted_proxies == (ip_network("127.0.0.1/32"),)
    assert settings.tunnel_url == ("connect-server:7070",)


def test_the_proxy_takes_several_tunnel_addresses() -> None:
    assert load_proxy(PROXY | {"CONNECT_TUNNEL_URL": "a:1,b:2"}).tunnel_url == ("a:1", "b:2")


def test_what_the_proxy_must_be_given_is_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_proxy({})
    assert [line.split(" is not set; ")[0] for line in caught.value.lines] == list(PROXY)


def test_all_errors_are_told_at_once_one_line_each() -> None:
    environ = PROXY | {
        "CONNECT_HTTP_PORT": "httpß\x1b[31m",
        "LOCAL_CACHE_TTL": "2 minutes",
        "CONNECT_PROXY_URL": "http://127.0.0.1",
        "CONNECT_REDIS_TLS_ENABLE": "yes",
        "CONNECT_REDIS_TLS_CERT_FILE": "/nonexistent",
        "CONNECT_LOG_LEVEL": "x" * 1000,
    }
    with pytest.raises(ConfigError) as caught:
        load_proxy(environ)
    lines = caught.value.lines
    assert [line.split()[0] for line in lines] == [
        "CONNECT_REDIS_TLS_ENABLE",
        "CONNECT_REDIS_TLS_CERT_FILE",
        "CONNECT_LOG_LEVEL",
        "CONNECT_HTTP_PORT",
        "CONNECT_PROXY_URL",
        "LOCAL_CACHE_TTL",
        "CONNECT_REDIS_TLS_KEY_FILE",
    ]
    assert all(line.isprintable() and len(line) < 300 for line in lines)
    assert (
        lines[3] == 'CONNECT_HTTP_PORT is "httpß\\x1b[31m": not a port number (0: any free port); '
        "write a number from 0 to 65535"
    )
    assert str(caught.value) == "\n".join(lines)


def test_a_service_link_of_kubernetes_is_recognised() -> None:
    with pytest.raises(ConfigError, match=r"CONNECT_TUNNEL_PORT .*enableServiceLinks"):
        load_server({"CONNECT_TUNNEL_PORT": "tcp://10.1.2.3:7070"})


def test_an_empty_variable_counts_as_not_set_and_spaces_around_do_not_matter() -> None:
    environ = {"CONNECT_LISTENER_PORT": "", "CONNECT_TUNNEL_PORT": " 7071\n", "CONNECT_REDIS_PASSWORD": " "}
    settings = load_server(environ)
    assert (settings.listener_port, settings.tunnel_port, settings.redis_password) == (7777, 7071, None)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "nor is"),
        ({"CONNECT_AGENT_TOKEN": "t", "CONNECT_AGENT_TOKEN_FILE": __file__}, "both set"),
        ({"CONNECT_AGENT_TOKEN_FILE": "/nonexistent"}, "no such file"),
        ({"CONNECT_AGENT_TOKEN": "a b"}, "printable ASCII"),
    ],
)
def test_the_agent_has_one_token(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_agent({"CONNECT_PROXY_URL": "http://connect.localhost:8080"} | environ)
    assert len(caught.value.lines) == 1


def test_the_agent_takes_its_command_from_the_command_line(tmp_path: Path) -> None:
    environ = {
        "CONNECT_PROXY_URL": "http://connect.localhost:8080/",
        "CONNECT_AGENT_TOKEN_FILE": __file__,
        "CONNECT_TOOL_PORT": "8888",
        "CONNECT_TOOL_PATH_PREFIX": "/_studio/a23ce7967/",
        "CONNECT_FILES_ROOT": str(tmp_path),
        "CONNECT_TUNNEL_WEBSOCKET_ONLY": "true",
        "CONNECT_CLIENT_LOG_LEVEL": "debug",
        "CONNECT_LOG_LEVEL": "nonsense that is not the agent's",
    }
    settings = load_agent(environ, command=("jupyter", "lab"))
    assert settings.command == ("jupyter", "lab")
    assert settings.proxy_url == "http://connect.localhost:8080"
    assert (settings.tool_host, settings.tool_port, settings.tool_start_timeout) == ("127.0.0.1", 8888, 60.0)
    assert (settings.tool_path_prefix, settings.root, settings.log_level) == ("/_studio/a23ce7967", tmp_path, "DEBUG")
    assert settings.websocket_only


def test_the_platform_listens_where_its_url_says() -> None:
    key = {"CONNECT_DEVPLATFORM_KEY": "secret-key"}
    assert load_platform(key).port == 8081
    assert load_platform(key).host == "127.0.0.1"
    assert load_platform(key | {"PLATFORM_URL": "http://localhost"}).port == 80
    assert load_platform(key | {"PLATFORM_URL": "https://localhost"}).port == 443
    assert load_platform(key | {"CONNECT_DEVPLATFORM_PORT": "0"}).port == 0
    with pytest.raises(ConfigError, match="CONNECT_DEVPLATFORM_KEY is not set"):
        load_platform({})


def test_no_secret_is_ever_shown() -> None:
    secret = "s3cr3t\x7f"
    environ = dict.fromkeys([s.name for cls in ROLES.values() for _, s in variables(cls) if s.secret], "s3cr3t-value")
    assert len(environ) >= 5
    environ["CONNECT_REDIS_SENTINEL"] = "mymaster"
    for settings in (load_server(environ), load_proxy(PROXY | environ), load_platform(environ)):
        assert "s3cr3t" not in repr(settings)
        assert "s3cr3t" not in str(describe(settings, environ))
        assert "***" in repr(settings)
    with pytest.raises(ConfigError) as caught:
        load_platform({"CONNECT_DEVPLATFORM_KEY": secret})
    assert "s3cr3t" not in str(caught.value)
    assert "CONNECT_DEVPLATFORM_KEY is (a secret): " in str(caught.value)


def test_settings_are_described_with_their_sources() -> None:
    environ = PROXY | {"CONNECT_TUNNEL_URL": "a:1,b:2", "CONNECT_REDIS_PASSWORD": "geheim"}
    rows = {name: (value, source) for name, value, source in describe(load_proxy(environ), environ)}
    assert rows["CONNECT_HTTP_PORT"] == ("80", "default")
    assert rows["CONNECT_TUNNEL_URL"] == ("a:1 b:2", "environment")
    assert rows["CONNECT_REDIS_PASSWORD"] == ("***", "environment")
    assert rows["CONNECT_REDIS_TLS_ENABLE"] == ("false", "default")
    assert rows["CONNECT_REDIS_USER"] == ("", "default")


def test_settings_cannot_be_changed_and_take_only_known_fields() -> None:
    settings = PlatformSettings(dev_key="k")
    with pytest.raises(AttributeError):
        settings.tool = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        ServerSettings(lissener_port=1)  # type: ignore[call-arg]


def test_unknown_variables_are_warned_of_with_the_name_that_was_meant() -> None:
    environ = {
        "CONNECT_LISTENR_PORT": "1",
        "CONNECT_NO_SUCH_THING": "1",
        "CONNECT_SSH_ENABLED": "true",
        "CONNECT_AGENT_TOKEN": "known, of another role",
        "CONNECT_PROXY_SERVICE_HOST": "10.0.0.1",
        "CONNECT_PROXY_SERVICE_PORT_HTTP": "80",
        "CONNECT_PROXY_PORT": "tcp://10.0.0.1:80",
        "CONNECT_PROXY_PORT_80_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert warnings_for(environ) == [
        "CONNECT_LISTENR_PORT is set, but no such variable is known; did you mean CONNECT_LISTENER_PORT?",
        "CONNECT_NO_SUCH_THING is set, but no such variable is known",
        "CONNECT_SSH_ENABLED is set, but this version does not read it",
    ]
