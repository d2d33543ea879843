"""Servers and proxies that share a key, by Redis or by their settings, with TLS or without; and those that do not."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from connect_trio.config import load_agent, load_proxy, load_server
from connect_trio.dial import Target
from connect_trio.links import open_links
from connect_trio.roles.agent import run_agent
from connect_trio.roles.problems import explain
from connect_trio.roles.proxy import ProxyRunning, run_proxy
from connect_trio.roles.server import ServerRunning, run_server
from connect_trio.roles.trust import TlsUnusable, client_tls, platform_tls, process_keyring, server_tls, trust_from
from connect_trio.routing.cache import CachedRegistry
from connect_trio.routing.redis import Redis, open_redis
from connect_trio.routing.registry import RegistryUnavailable
from connect_trio.routing.shared_key import open_shared_key
from connect_trio.transport.keyring import Key, Keyring
from connect_trio.transport.trusted import Connect, Dialler
from tests.roles.test_proxy import proxy_environ
from tests.support.certificates import Authority
from tests.support.grants import granted
from tests.support.platform import PRIVATE, SHARED, RunningPlatform, running_platform
from tests.support.redis import RedisServer
from tests.support.stack import agent_environ, server_environ
from tests.support.tools import listening_tool

HERE = "127.0.0.1"
ONE, TWO = "first-key-0123456789abcdef-0123456789", "second-key-0123456789abcdef-0123456789"


@attrs.define
class Cluster:
    """Roles over one Redis. servers, proxies: those that run."""

    nursery: trio.Nursery
    platform: RunningPlatform
    redis: Redis
    folder: Path
    servers: list[ServerRunning] = attrs.field(factory=list)
    proxies: list[ProxyRunning] = attrs.field(factory=list)

    async def start_server(self, **environ: str) -> None:
        settings = load_server(server_environ() | self._shared() | environ)
        self.servers.append(await self.nursery.start(run_server, settings))

    async def start_proxy(self, **environ: str) -> ProxyRunning:
        shared = self._shared() | {
            "PLATFORM_URL": self.platform.url,
            "CONNECT_TUNNEL_URL": ",".join(f"{HERE}:{running.tunnel_port}" for running in self.servers),
        }
        root = self.folder / f"proxy-{len(self.proxies)}"
        settings = load_proxy(proxy_environ(root) | shared | environ)
        self.proxies.append(await self.nursery.start(run_proxy, settings))
        return self.proxies[-1]

    async def start_agent(self, session: str, proxy: ProxyRunning, tool: int) -> None:
        token = await self.platform.agent_token(session)
        environ = agent_environ(proxy.http_port, self.folder, token) | {"CONNECT_TOOL_PORT": str(tool)}
        with trio.fail_after(60):
            await self.nursery.start(run_agent, load_agent(environ))

    async def spread(self, session: str, servers: int) -> None:
        """Wait until a session has tunnels at as many servers."""
        with trio.fail_after(60):
            while len({route.connector for route in await self.redis.registry.find(session)}) < servers:
                await trio.sleep(0.02)

    async def echo(self, session: str, connect: Connect) -> bytes:
        """What a session's tool says to a word that comes over a new link."""
        cached = CachedRegistry(self.redis.registry)
        async with open_links(cached, instance=b"P" * 16, connect=connect) as (dialer, _):
            with trio.fail_after(60):
                stream = await dialer.dial(Target(grant=granted(session)))
                await stream.send_all(b"a word")
                answer = await stream.receive_some()
            await stream.aclose()
        return bytes(answer)

    def _shared(self) -> dict[str, str]:
        return {"CONNECT_REDIS_ADDRESS": self.redis.address}


@asynccontextmanager
async def cluster(redis_server: RedisServer, folder: Path) -> AsyncIterator[Cluster]:
    async with (
        running_platform() as platform,
        open_redis(address=redis_server.address) as redis,
        trio.open_nursery() as nursery,
    ):
        yield Cluster(nursery, platform, redis, folder)
        nursery.cancel_scope.cancel()


async def answers(redis: Redis) -> None:
    """Wait until this Redis is back, for us."""
    with trio.fail_after(60):
        while True:
            try:
                return await redis.ping()
            except RegistryUnavailable:
                await trio.sleep(0.02)


async def trusted_by(server: ServerRunning, keyring: Keyring) -> None:
    """Wait until a server takes whoever has these keys."""
    with trio.fail_after(60):
        while True:
            try:
                (await Dialler(keyring, instance=b"P" * 16).link(HERE, server.listener_port)).close()
            except OSError:
                await trio.sleep(0.02)
            else:
                return


def strangers(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["reason"] for record in caplog.records if record.message == "not one of our proxies"]


@pytest.mark.redis
async def test_two_servers_and_two_proxies_find_one_key_in_redis(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(redis_server, tmp_path) as each, listening_tool() as tool:
        for _ in range(2):
            await each.start_server()
        for session in (SHARED, PRIVATE):
            await each.start_agent(session, await each.start_proxy(), tool)
        keyring = (await open_shared_key(each.redis.store)).keyring
        for session in (SHARED, PRIVATE):
            await each.spread(session, 2)
            assert await each.echo(session, Dialler(keyring, instance=b"P" * 16).link) == b"a word"
    assert strangers(caplog) == []


@pytest.mark.redis
async def test_an_empty_redis_does_not_split_the_cluster(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_trio.routing.shared_key.INTERVAL", 0.1)
    async with cluster(redis_server, tmp_path) as each, listening_tool() as tool:
        await each.start_server()
        old = await each.start_proxy()
        await each.start_agent(SHARED, old, tool)
        for _ in range(2):
            redis_server.stop()
            redis_server.start()
            await each.start_server()
            await each.start_proxy()
        await answers(each.redis)
        newest = (await open_shared_key(each.redis.store)).keyring
        for running in each.servers:
            await trusted_by(running, newest)
        await each.start_agent(PRIVATE, each.proxies[-1], tool)
        await each.spread(PRIVATE, 2)
        for session in (SHARED, PRIVATE):
            await each.spread(session, 1)
            assert await each.echo(session, Dialler(newest, instance=b"P" * 16).link) == b"a word"


@pytest.mark.redis
async def test_keys_of_the_settings_win_and_can_be_changed_one_process_at_a_time(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(redis_server, tmp_path) as each, listening_tool() as tool:
        await each.start_server(CONNECT_CLUSTER_KEY=ONE)
        await each.start_server(CONNECT_CLUSTER_KEY=f"{TWO},{ONE}")
        await each.start_agent(SHARED, await each.start_proxy(CONNECT_CLUSTER_KEY=ONE), tool)
        await each.start_agent(PRIVATE, await each.start_proxy(CONNECT_CLUSTER_KEY=f"{TWO},{ONE}"), tool)
        for session in (SHARED, PRIVATE):
            await each.spread(session, 2)
        assert await each.redis.store.get("cluster-key") is None, "it was not needed"
    assert strangers(caplog) == []


@pytest.mark.redis
async def test_a_proxy_with_another_key_has_no_server(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(redis_server, tmp_path) as each:
        await each.start_server(CONNECT_CLUSTER_KEY=ONE)
        proxy = await each.start_proxy(CONNECT_CLUSTER_KEY=TWO)
        token = await each.platform.agent_token(SHARED)
        async with await trio.open_tcp_stream(HERE, proxy.http_port) as agent:
            await agent.send_all(
                b"GET /_connect/tunnel HTTP/1.1\r\nHost: connect.localhost\r\nUpgrade: connect-mux\r\n"
                b"Connection: Upgrade\r\nX-Connect-Instance: %b\r\nAuthorization: Bearer %b\r\n\r\n"
                % (b"ab" * 16, token.encode())
            )
            with trio.fail_after(60):
                answer = bytes(await agent.receive_some())
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"it is not trusted: it closed the connection: is CONNECT_CLUSTER_KEY" in answer
        assert list(await each.redis.registry.find(SHARED)) == []
    assert {reason.partition(":")[0] for reason in strangers(caplog)} == {"it has another key"}


@pytest.mark.redis
async def test_links_and_tunnels_run_over_tls(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    authority.issue(HERE)
    files = {
        "CONNECT_LINK_TLS_CERT_FILE": str(authority.cert_file),
        "CONNECT_LINK_TLS_KEY_FILE": str(authority.key_file),
    }
    async with cluster(redis_server, tmp_path) as each, listening_tool() as tool:
        await each.start_server(CONNECT_CLUSTER_KEY=ONE, **files)
        ca = {"CONNECT_LINK_TLS_CA_FILE": str(authority.ca_file)}
        proxy = await each.start_proxy(CONNECT_CLUSTER_KEY=ONE, **ca)
        await each.start_agent(SHARED, proxy, tool)
        keyring = Keyring([Key.of_text(ONE)])
        secure = Dialler(keyring, instance=b"P" * 16, tls=client_tls(load_proxy(proxy_environ(tmp_path) | ca)))
        assert await each.echo(SHARED, secure.link) == b"a word"
        assert strangers(caplog) == []
        with pytest.raises(OSError, match="it is not trusted: "):
            await Dialler(keyring, instance=b"P" * 16).link(HERE, each.servers[0].listener_port)
    assert [reason[:5] for reason in strangers(caplog)] == ["TLS: "]


# what a role is given


async def test_without_redis_and_settings_a_process_trusts_itself_only() -> None:
    settings = load_server({})
    here = await trust_from(settings, None)
    assert here.keyring is (await trust_from(settings, None)).keyring is process_keyring()
    given = await trust_from(load_server({"CONNECT_CLUSTER_KEY": f"{TWO},{ONE}"}), None)
    assert given.keyring.keys(0) == (Key.of_text(TWO), Key.of_text(ONE))


@pytest.mark.redis
@pytest.mark.parametrize("role", ["server", "proxy"])
async def test_a_key_in_redis_that_is_none_is_one_line_at_the_start(
    role: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with open_redis(address=redis_server.address) as redis:
        await redis.store.put("cluster-key", b"nonsense", ttl=60)
    address = {"CONNECT_REDIS_ADDRESS": redis_server.address}
    start: Any = partial(run_server, load_server(server_environ() | address))
    if role == "proxy":
        start = partial(run_proxy, load_proxy(proxy_environ(tmp_path) | address))
    with pytest.raises(BaseExceptionGroup) as caught:
        await start()
    code, lines = explain(caught.value)
    assert code == 1
    assert [line.partition(":")[0] for line in lines] == [
        "the cluster's key in Redis ('cluster-key' in the store) cannot be used"
    ]
    del caught
    gc.collect()


def test_files_for_tls_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue(HERE)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for cert, key in (
        (nonsense, authority.key_file),
        (authority.cert_file, nonsense),
        (authority.ca_file, authority.key_file),
    ):
        settings = load_server({"CONNECT_LINK_TLS_CERT_FILE": str(cert), "CONNECT_LINK_TLS_KEY_FILE": str(key)})
        with pytest.raises(
            TlsUnusable, match=r"CONNECT_LINK_TLS_CERT_FILE=.*CONNECT_LINK_TLS_KEY_FILE=.*: name a cert"
        ):
            server_tls(settings)
    proxy = load_proxy(proxy_environ(tmp_path, CONNECT_LINK_TLS_CA_FILE=str(nonsense)))
    with pytest.raises(TlsUnusable, match=r"CONNECT_LINK_TLS_CA_FILE=.* cannot be used \(.+\): name a file") as caught:
        client_tls(proxy)
    assert explain(caught.value) == (1, [str(caught.value)])
    proxy = load_proxy(proxy_environ(tmp_path, CONNECT_PLATFORM_CA_FILE=str(nonsense)))
    with pytest.raises(TlsUnusable, match=r"CONNECT_PLATFORM_CA_FILE=.* cannot be used \(.+\): name a file"):
        platform_tls(proxy)
    assert server_tls(load_server({})) is None
    assert client_tls(load_proxy(proxy_environ(tmp_path))) is None
