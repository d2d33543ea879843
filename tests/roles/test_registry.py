"""From a role's settings to Redis, and files that end it at its start."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from connect_trio.config import ConfigError, load_proxy, load_server
from connect_trio.roles import registry as registry_module
from connect_trio.roles.problems import explain
from connect_trio.roles.registry import redis_from, tls_from
from connect_trio.roles.server import run_server
from connect_trio.routing.redis import TlsFiles
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.dialled import CLUSTER_KEY, dialled_tunnel
from tests.support.e2e import run_cli
from tests.support.redis import ACL_PASSWORD, RedisServer, authority, client_files, tight_redis
from tests.support.redis_certificates import Authority
from tests.support.routes import use_everything
from tests.support.sentinels import NAME, watched
from tests.support.stack import server_environ
from tests.support.tables import SESSION
from tests.support.tools import dead_port

__all__ = ["authority", "client_files", "tight_redis"]

CA, CERT, KEY = (f"CONNECT_REDIS_TLS_{name}_FILE" for name in ("CA", "CERT", "KEY"))


@pytest.mark.redis
async def test_every_variable_of_redis_reaches_it(tight_redis: RedisServer, client_files: TlsFiles) -> None:
    environ = {
        "CONNECT_REDIS_ADDRESS": f"127.0.0.1:{dead_port()}, {tight_redis.address}",
        "CONNECT_REDIS_USER": "connect",
        "CONNECT_REDIS_PASSWORD": ACL_PASSWORD,
        "CONNECT_REDIS_DB": "3",
        "CONNECT_REDIS_TLS_ENABLE": "true",
        CA: str(client_files.ca_file),
        CERT: str(client_files.cert_file),
        KEY: str(client_files.key_file),
    }
    async with AsyncExitStack() as stack:
        await use_everything(await redis_from(load_server(environ), stack))
    environ[CA] = ""
    environ["CONNECT_REDIS_TLS_SKIP_VERIFY"] = "true"
    async with AsyncExitStack() as stack:
        await use_everything(await redis_from(load_server(environ), stack))


@pytest.mark.redis
async def test_sentinels_are_asked(tmp_path: Path) -> None:
    with watched(tmp_path, sentinels=1) as world:
        environ = {"CONNECT_REDIS_ADDRESS": world.addresses, "CONNECT_REDIS_SENTINEL": NAME}
        async with AsyncExitStack() as stack:
            await use_everything(await redis_from(load_server(environ), stack))


def test_a_password_of_sentinels_without_sentinels_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_server({"CONNECT_REDIS_SENTINEL_PASSWORD": "x", "CONNECT_REDIS_SENTINEL_USER": "y"})
    ending = "set it to the name of the primary"
    assert caught.value.lines == [
        f"CONNECT_REDIS_SENTINEL is not set, but CONNECT_REDIS_SENTINEL_PASSWORD is; {ending}",
        f"CONNECT_REDIS_SENTINEL is not set, but CONNECT_REDIS_SENTINEL_USER is; {ending}",
    ]


def test_addresses_are_host_and_port_or_several() -> None:
    assert load_server({}).redis_address == "redis:6379"
    several = load_server({"CONNECT_REDIS_ADDRESS": "a:1 , [::1]:2"})
    assert several.redis_address == "a:1,[::1]:2"
    with pytest.raises(ConfigError, match=r'^CONNECT_REDIS_ADDRESS is "a:1,": not an address; write host:port'):
        load_server({"CONNECT_REDIS_ADDRESS": "a:1,"})
    with pytest.raises(ConfigError, match="CONNECT_REDIS_ADDRESS is not set"):
        load_proxy({})


def test_files_that_nothing_uses_are_named(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    assert tls_from(load_server({CA: authority.ca})) is None
    assert caplog.messages == [f"{CA} is set, but without CONNECT_REDIS_TLS_ENABLE=true nothing uses it"]


def bad_files(authority: Authority, folder: Path) -> list[tuple[dict[str, str], str]]:
    """Variables, and the line that they end a role with."""
    one, other = authority.issue("one"), authority.issue("other")
    garbage = folder / "garbage.pem"
    garbage.write_text("nonsense")
    no_certificate = "it holds no certificate in PEM"
    return [
        ({CA: str(garbage)}, f'{CA} is "{garbage}": {no_certificate}'),
        ({CERT: str(garbage), KEY: one.key}, f'{CERT} is "{garbage}": {no_certificate}'),
        ({CERT: one.cert, KEY: str(garbage)}, f'{KEY} is "{garbage}": it holds no private key in PEM'),
        ({CERT: one.cert, KEY: other.key}, f'{KEY} is "{other.key}": it does not belong to the certificate'),
        ({CA: "/gone"}, f'{CA} is "/gone": no such file; write the path of a file that exists'),
        ({CERT: one.cert}, f"{KEY} is not set, but {CERT} is; set both or none"),
    ]


async def test_files_that_cannot_be_used_end_a_role_with_one_line(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: Redis need not be there to find out."""
    monkeypatch.setattr(registry_module, "READY", 3600.0)
    for files, line in bad_files(authority, tmp_path):
        with (
            trio.fail_after(60),
            pytest.RaisesGroup(ConfigError, flatten_subgroups=True, allow_unwrapped=True) as caught,
        ):
            await run_server(load_server(server_environ() | {"CONNECT_REDIS_TLS_ENABLE": "true"} | files))
        assert explain(caught.value) == (2, [line])


def test_a_proxy_ends_in_the_same_way(authority: Authority, tmp_path: Path) -> None:
    files, line = bad_files(authority, tmp_path)[3]
    environ = {
        "CONNECT_REDIS_ADDRESS": f"127.0.0.1:{dead_port()}",
        "CONNECT_REDIS_TLS_ENABLE": "true",
        "CONNECT_PROXY_URL": "http://connect.localhost:8080",
        "CONNECT_TUNNEL_URL": "127.0.0.1:7070",
        "PLATFORM_URL": f"http://127.0.0.1:{dead_port()}",
        "CONNECT_HTTP_HOST": "127.0.0.1",
        "CONNECT_HTTP_PORT": "0",
        "CONNECT_STORAGE_ROOT": str(tmp_path / "storage"),
    }
    assert run_cli("proxy", env={**environ, **files}) == (2, [f"connect-trio: {line}"])


@pytest.mark.redis
async def test_a_wrong_password_ends_a_role_with_one_line_without_it(
    tight_redis: RedisServer, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry_module, "READY", 2.0)
    caplog.set_level("DEBUG")
    pair = authority.issue("another client")
    environ = {
        "CONNECT_REDIS_ADDRESS": tight_redis.address,
        "CONNECT_REDIS_USER": "connect",
        "CONNECT_REDIS_PASSWORD": "wrong-but-secret",
        "CONNECT_REDIS_TLS_ENABLE": "true",
        CA: authority.ca,
        CERT: pair.cert,
        KEY: pair.key,
    }
    with pytest.RaisesGroup(RegistryUnavailable, flatten_subgroups=True, allow_unwrapped=True) as caught:
        await run_server(load_server(server_environ() | environ))
    trouble = "invalid username-password pair or user is disabled."
    code, lines = explain(caught.value)
    assert (code, lines) == (1, [f"cannot connect to Redis at {tight_redis.address}: {trouble}"])
    for secret in ("wrong-but-secret", Path(pair.key).read_text().splitlines()[1]):
        assert secret not in caplog.text + "".join(lines)


@pytest.mark.redis
async def test_a_server_keeps_its_routes_through_a_failover(tmp_path: Path) -> None:
    with watched(tmp_path) as world:
        primary, replica = world.servers
        await world.until_replicated()
        environ = {"CONNECT_REDIS_ADDRESS": world.addresses, "CONNECT_REDIS_SENTINEL": NAME}
        environ["CONNECT_CLUSTER_KEY"] = CLUSTER_KEY
        async with trio.open_nursery() as nursery:
            running = await nursery.start(run_server, load_server(server_environ() | environ))
            async with dialled_tunnel(running.tunnel_port, key=CLUSTER_KEY) as agent:
                nursery.start_soon(agent.serve)
                await until_it_holds_a_route(primary)
                primary.stop()
                await world.until(replica.port)
                # Not only what was replicated: what is lost in the failover is set again.
                with replica.admin() as admin:
                    admin.flushall()
                await until_it_holds_a_route(replica)
                nursery.cancel_scope.cancel()


async def until_it_holds_a_route(server: RedisServer) -> None:
    with server.admin() as admin, trio.fail_after(60):
        while not admin.keys(f"connect:session:{SESSION}:*"):
            await trio.sleep(0.05)
