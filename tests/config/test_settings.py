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
    load_agent,
    load_platform,
    load_proxy,
    load_server,
    report,
    secret_texts,
    settings_warnings,
    variables,
    warnings_for,
)
from connect_trio.mux.acceptor import MAX_PATIENCE
from connect_trio.mux.budget import BUDGET
from connect_trio.mux.opener import PATIENCE

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
    assert settings.bind_host == "::"
    assert settings.log_level == "INFO"


def test_the_server_publishes_its_host_name_unless_told_otherwise() -> None:
    assert load_server({}).published_address("server-0") == "server-0:7777"
    domain = load_server({"CONNECT_HOST_DOMAIN": "connect-server", "CONNECT_LISTENER_PORT": "0"})
    assert domain.published_address("server-0", port=4711) == "server-0.connect-server:4711"
    assert load_server({"CONNECT_ADVERTISE_ADDRESS": "10.0.0.7:99"}).published_address("server-0") == "10.0.0.7:99"


@pytest.mark.parametrize("domain", ["svc.example.org", ".SVC.example.org."])
def test_a_host_that_knows_its_domain_is_published_as_it_is(domain: str) -> None:
    settings = load_server({"CONNECT_HOST_DOMAIN": domain})
    assert settings.published_address("server-0.svc.example.org") == "server-0.svc.example.org:7777"


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


@pytest.mark.parametrize("grant", ["implicit", "client_credentials", "password", "Authorization_Code", "x y"])
def test_a_grant_that_is_not_supported_stops_the_start(grant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_proxy(PROXY | {"CONNECT_GRANT_TYPE": grant})
    (line,) = caught.value.lines
    assert line.startswith(f'CONNECT_GRANT_TYPE is "{grant}": ')
    assert "authorization_code" in line


def test_the_path_of_the_openid_configuration_can_be_set() -> None:
    assert load_proxy(PROXY).oidc_path == "/api"
    for prefix in ("", "/realms/a-b", "/api"):
        path = {"CONNECT_OIDC_DISCOVERY_PATH": f"{prefix}/.well-known/openid-configuration"}
        assert load_proxy(PROXY | path).oidc_path == prefix
    for wrong in ("/api", "api/.well-known/openid-configuration", "/a b/.well-known/openid-configuration", "/?x"):
        with pytest.raises(ConfigError, match=r"CONNECT_OIDC_DISCOVERY_PATH is .* write for example /"):
            load_proxy(PROXY | {"CONNECT_OIDC_DISCOVERY_PATH": wrong})


@pytest.mark.parametrize("domain", ["https://studios.example.org", "*.example.org", "10.0.0.1", "a:1", "x."])
def test_a_domain_of_the_studios_that_is_none_is_refused_in_one_line(domain: str) -> None:
    for load in (lambda environ: load_proxy(PROXY | environ), load_platform):
        with pytest.raises(ConfigError) as caught:
            load({"CONNECT_DEVPLATFORM_KEY": "k", "CONNECT_STUDIO_DOMAIN": domain})
        (line,) = caught.value.lines
        assert line.startswith(f'CONNECT_STUDIO_DOMAIN is "{domain}": ')
        assert "write a host name without scheme, port or *, for example studios.example.org" in line
    assert load_proxy(PROXY | {"CONNECT_STUDIO_DOMAIN": "Studios.Example.org"}).studio_domain == "studios.example.org"


def test_platform_shows_studios_in_frames_unless_told_otherwise() -> None:
    platform = PROXY | {"PLATFORM_URL": "https://Platform.example.org:8443/some/path"}
    assert load_proxy(platform).ancestors == ("https://platform.example.org:8443",)
    assert load_proxy(platform | {"CONNECT_FRAME_ANCESTORS": "none"}).ancestors == ()
    several = "https://Portal.example.org/ , http://localhost:8081,https://portal.example.org"
    given = load_proxy(platform | {"CONNECT_FRAME_ANCESTORS": several})
    assert given.ancestors == ("https://portal.example.org", "http://localhost:8081")


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "'self'",
        "https://*.example.org",
        "https://a;script-src",
        "https://a/path",
        "https://a,",
        "a.example",
        "https:",
    ],
)
def test_ancestors_that_are_no_origins_are_refused(origins: str) -> None:
    with pytest.raises(ConfigError, match=r"CONNECT_FRAME_ANCESTORS is .*write http") as caught:
        load_proxy(PROXY | {"CONNECT_FRAME_ANCESTORS": origins})
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("name", ["CONNECT_OIDC_CLIENT_ID", "CONNECT_OIDC_CLIENT_SECRET"])
def test_a_client_without_a_secret_or_a_secret_without_a_client_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"CONNECT_OIDC_CLIENT_(ID|SECRET) is not set, but CONNECT_OIDC_CLIENT_"):
        load_proxy(PROXY | {name: "x"})


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("too-short-to-be-one", "a key of 19 characters is too short"),
        (f"{'0123456789abcdef' * 2},", "a key of 0 characters is too short"),
        (f"{'0123456789abcdef' * 2},{'0123456789abcdef' * 2}", "the same key is there twice"),
        (",".join(f"{number}-23456789abcdef0123456789abcdef" for number in range(5)), "5 keys are too many"),
    ],
)
def test_a_cluster_key_that_is_too_easy_is_refused_without_showing_it(text: str, reason: str) -> None:
    for load in (load_server, lambda environ: load_proxy(PROXY | environ)):
        with pytest.raises(ConfigError) as caught:
            load({"CONNECT_CLUSTER_KEY": text})
        (line,) = caught.value.lines
        assert line.startswith(f"CONNECT_CLUSTER_KEY is (a secret): {reason}")
        assert text not in line


def test_several_cluster_keys_are_taken_in_their_order() -> None:
    first, second = "first-key-0123456789abcdef-0123456789", "second-key-0123456789abcdef-0123456789"
    assert load_server({"CONNECT_CLUSTER_KEY": f" {first} , {second}"}).cluster_key == (first, second)
    assert load_server({}).cluster_key == ()


def test_a_certificate_for_links_needs_both_files() -> None:
    with pytest.raises(ConfigError) as caught:
        load_server({"CONNECT_LINK_TLS_CERT_FILE": __file__, "CONNECT_REDIS_TLS_KEY_FILE": __file__})
    assert caught.value.lines == [
        "CONNECT_REDIS_TLS_CERT_FILE is not set, but CONNECT_REDIS_TLS_KEY_FILE is; set both or none",
        "CONNECT_LINK_TLS_KEY_FILE is not set, but CONNECT_LINK_TLS_CERT_FILE is; set both or none",
    ]


def test_no_secret_is_ever_shown() -> None:
    secret = "s3cr3t\x7f"
    environ = dict.fromkeys(
        [s.name for cls in ROLES.values() for _, s in variables(cls) if s.secret],
        "s3cr3tValueOfAtLeast32CharactersLong",
    )
    assert len(environ) >= 5
    environ |= {"CONNECT_REDIS_SENTINEL": "mymaster", "CONNECT_OIDC_CLIENT_ID": "client"}
    for role, settings in [
        ("server", load_server(environ)),
        ("proxy", load_proxy(PROXY | environ)),
        ("platform", load_platform(environ)),
    ]:
        assert "s3cr3t" not in repr(settings)
        assert "s3cr3t" not in str(report(role, PROXY | environ))
        assert "***" in repr(settings)
        assert set(secret_texts(type(settings), environ)) == {"s3cr3tValueOfAtLeast32CharactersLong"}
    with pytest.raises(ConfigError) as caught:
        load_platform({"CONNECT_DEVPLATFORM_KEY": secret})
    assert "s3cr3t" not in str(caught.value)
    assert "CONNECT_DEVPLATFORM_KEY is (a secret): " in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("PLATFORM_URL", "http://admin:s3cr3t@platform", '"***@platform"'),
        ("CONNECT_REDIS_ADDRESS", "redis://:s3/cr3t@redis:6379", '"***@redis:6379"'),
        ("CONNECT_TUNNEL_URL", "a:1,u:s3cr3t@b:2,c", '"***@b:2,c"'),
    ],
)
def test_a_secret_where_none_belongs_is_not_shown_either(name: str, text: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_proxy(PROXY | {name: text})
    assert f"{name} is {shown}: " in str(caught.value)
    assert "s3" not in str(caught.value)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" geheim\n")
    environ = {"CONNECT_REDIS_PASSWORD_FILE": str(file)}
    assert load_server(environ).redis_password == "geheim"
    assert set(secret_texts(ServerSettings, environ)) == {"geheim"}
    assert warnings_for(environ) == []


def test_a_file_that_holds_no_secret_is_named(tmp_path: Path) -> None:
    name = "CONNECT_REDIS_PASSWORD_FILE"
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_text("x" * 100_000)
    for file, what in [("empty", "is empty"), ("binary", "not text"), ("long", "too long"), ("none", "No such file")]:
        with pytest.raises(ConfigError, match=f"^{name} is .*{file}.*{what}.*; name a file"):
            load_server({name: str(tmp_path / file)})
    with pytest.raises(ConfigError, match="both set; set only one"):
        load_server({name: str(tmp_path / "empty"), "CONNECT_REDIS_PASSWORD": "geheim"})


def test_of_a_list_of_secrets_each_one_is_kept_out_of_the_log() -> None:
    environ = {"CONNECT_REDIS_PASSWORD": "first, second third"}
    assert set(secret_texts(ServerSettings, environ)) == {"first, second third", "first", "second", "third"}


def test_what_bounds_streams_has_the_defaults_of_the_mux() -> None:
    proxy, agent = load_proxy(PROXY), load_agent({"CONNECT_PROXY_URL": "http://c", "CONNECT_AGENT_TOKEN": "t"})
    assert proxy.resume_timeout == PATIENCE == 600
    assert proxy.stream_memory == BUDGET == 512 << 20
    assert agent.stream_memory == 256 << 20
    assert load_proxy(PROXY | {"CONNECT_RESUME_TIMEOUT": "1h"}).resume_timeout == MAX_PATIENCE


def test_urls_without_a_common_root_domain_are_warned_of() -> None:
    apart = PROXY | {"PLATFORM_URL": "https://platform.a.org", "CONNECT_PROXY_URL": "https://connect.b.org"}
    (line,) = settings_warnings(load_proxy(apart))
    assert line.startswith("PLATFORM_URL (a.org) and CONNECT_PROXY_URL (b.org) share no root domain")
    assert report("proxy", apart).warnings == [line]
    assert settings_warnings(load_proxy(PROXY)) == settings_warnings(load_server({})) == []


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
        "CONNECT_POLICY_FILE": "/etc/policy",
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
        "CONNECT_POLICY_FILE is set, but this version does not read it",
    ]


def test_logins_last_a_day_unused_and_a_week_at_most() -> None:
    assert load_proxy(PROXY).logins == (24 * 3600.0, 7 * 24 * 3600.0)
    given = {"CONNECT_LOGIN_IDLE_TIMEOUT": "30m", "CONNECT_LOGIN_LIFETIME": "8h"}
    assert load_proxy(PROXY | given).logins == (1800.0, 8 * 3600.0)
    assert load_proxy(PROXY | {"CONNECT_LOGIN_LIFETIME": "8h"}).logins == (8 * 3600.0, 8 * 3600.0), "one is enough"


@pytest.mark.parametrize(
    "given",
    [
        {"CONNECT_LOGIN_IDLE_TIMEOUT": "9h", "CONNECT_LOGIN_LIFETIME": "8h"},
        {"CONNECT_LOGIN_IDLE_TIMEOUT": "169h"},
        {"CONNECT_LOGIN_IDLE_TIMEOUT": "1s"},
        {"CONNECT_LOGIN_LIFETIME": "9000h"},
        {"CONNECT_LOGIN_IDLE_TIMEOUT": "a day"},
    ],
)
def test_times_of_logins_that_cannot_be_stop_the_start(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_proxy(PROXY | given)
    (line,) = caught.value.lines
    assert line.startswith(next(iter(given)))
