"""TLS between proxies and servers, whose names and not whose addresses are in certificates."""

from __future__ import annotations

import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio

from connect_trio.config import load_agent, load_proxy, load_server
from connect_trio.roles.agent import run_agent
from connect_trio.roles.life import Life, living
from connect_trio.roles.proxy import run_proxy
from connect_trio.roles.server import run_server
from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from tests.roles.test_proxy import proxy_environ
from tests.support.certificates import Authority
from tests.support.names import Names
from tests.support.platform import PRIVATE, SHARED, running_platform
from tests.support.stack import agent_environ, server_environ


async def test_a_tunnel_reaches_a_server_whose_certificate_has_its_name(tmp_path: Path) -> None:
    names = Names(known={"connect.localhost": ["127.0.0.1"], "servers.example": ["127.0.0.1"]})
    trio.socket.set_custom_hostname_resolver(names)
    authority = Authority(tmp_path)
    authority.issue("servers.example")
    registry, store = MemoryRegistry(), MemoryStore()
    with trio.fail_after(60):
        async with running_platform() as platform, trio.open_nursery() as nursery:
            files = {
                "CONNECT_LINK_TLS_CERT_FILE": str(authority.cert_file),
                "CONNECT_LINK_TLS_KEY_FILE": str(authority.key_file),
            }
            start = partial(run_server, load_server(server_environ() | files), registry=registry)
            server = await nursery.start(start)
            environ = proxy_environ(
                tmp_path,
                PLATFORM_URL=platform.url,
                CONNECT_TUNNEL_URL=f"servers.example:{server.tunnel_port}",
                CONNECT_LINK_TLS_CA_FILE=str(authority.ca_file),
            )
            proxy = await nursery.start(partial(run_proxy, load_proxy(environ), registry=registry, store=store))
            token = await platform.agent_token(SHARED)
            await nursery.start(run_agent, load_agent(agent_environ(proxy.http_port, tmp_path, token)))
            nursery.cancel_scope.cancel()


async def test_another_authority_takes_over_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trio.socket.set_custom_hostname_resolver(Names(known={"connect.localhost": ["127.0.0.1"]}))
    ca_file, cert_file, key_file = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))

    def install(authority: Authority) -> None:
        authority.issue("127.0.0.1")
        for new, used in (
            (authority.ca_file, ca_file),
            (authority.cert_file, cert_file),
            (authority.key_file, key_file),
        ):
            shutil.copy(new, used)

    old, new = (Authority(Path(tempfile.mkdtemp(dir=tmp_path))) for _ in range(2))
    install(old)
    registry, store, life = MemoryRegistry(), MemoryStore(), Life()
    with trio.fail_after(60), living(life):
        async with running_platform() as platform, trio.open_nursery() as nursery:
            files = {"CONNECT_LINK_TLS_CERT_FILE": str(cert_file), "CONNECT_LINK_TLS_KEY_FILE": str(key_file)}
            server = await nursery.start(partial(run_server, load_server(server_environ() | files), registry=registry))
            environ = proxy_environ(
                tmp_path,
                PLATFORM_URL=platform.url,
                CONNECT_TUNNEL_URL=f"127.0.0.1:{server.tunnel_port}",
                CONNECT_LINK_TLS_CA_FILE=str(ca_file),
            )
            proxy = await nursery.start(partial(run_proxy, load_proxy(environ), registry=registry, store=store))

            async def reaches(session: str) -> None:
                token = await platform.agent_token(session)
                await nursery.start(run_agent, load_agent(agent_environ(proxy.http_port, tmp_path, token)))

            await reaches(SHARED)
            install(new)
            life.reload()
            await reaches(PRIVATE)
            for unusable in (ca_file, cert_file):
                unusable.write_text("no certificate")
            life.reload()
            refused = [each for each in caplog.records if each.message == "not reloaded: the old one stays"]
            assert len(refused) == 2
            assert all(each.levelno == logging.ERROR for each in refused)
            await reaches(SHARED)
            nursery.cancel_scope.cancel()
