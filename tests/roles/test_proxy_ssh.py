"""The SSH edge of the role `proxy`: on when it is asked for, with its key, its port and its numbers."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing

from connect_trio.config import load_proxy
from connect_trio.roles.listeners import CannotListen, listen, port_of
from connect_trio.roles.problems import WRONG, explain
from connect_trio.roles.proxy import ProxyRunning, run_proxy
from connect_trio.routing.memory import MemoryRegistry, MemoryStore
from connect_trio.ssh.bridge_keys import make_host_key
from connect_trio.ssh.hostkeys import HostKeyUnusable
from tests.roles.test_proxy import proxy_environ


@asynccontextmanager
async def running_proxy(tmp_path: Path, **changes: str) -> AsyncIterator[ProxyRunning]:
    enabled = {"CONNECT_SSH_ENABLED": "true", "CONNECT_SSH_ADDR": "127.0.0.1:0"}
    settings = load_proxy(proxy_environ(tmp_path, **enabled | changes))
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[ProxyRunning]) -> None:
            await run_proxy(settings, registry=MemoryRegistry(), store=MemoryStore(), task_status=task_status)

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def greeting(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return bytes(await stream.receive_some(100))


async def test_it_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, CONNECT_SSH_ENABLED="false") as proxy:
        assert (proxy.ssh_port, proxy.ssh_fingerprint) == (None, None)


async def test_it_answers_with_the_key_of_the_settings(tmp_path: Path) -> None:
    key, text = make_host_key()
    value = base64.b64encode(text).decode()
    async with running_proxy(tmp_path, CONNECT_SSH_KEY_VALUE_BASE64=value) as proxy:
        assert proxy.ssh_fingerprint == key.fingerprint
        assert proxy.ssh_port is not None
        assert await greeting(proxy.ssh_port) == b"SSH-2.0-Connect\r\n"


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0"])
async def test_it_listens_where_it_is_told(tmp_path: Path, address: str) -> None:
    async with running_proxy(tmp_path, CONNECT_SSH_ADDR=address) as proxy:
        assert proxy.ssh_port is not None
        assert (await greeting(proxy.ssh_port)).startswith(b"SSH-2.0-")


async def test_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    value = base64.b64encode(b"no key at all").decode()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running_proxy(tmp_path, CONNECT_SSH_KEY_VALUE_BASE64=value):
            pass
    assert caught.group_contains(HostKeyUnusable)
    code, (line,) = explain(caught.value)
    assert code == WRONG
    assert line.startswith("CONNECT_SSH_KEY_VALUE_BASE64: not a private key; give one of ed25519, ecdsa, rsa")
    assert value not in line


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0, variable="X") as taken:
        port = port_of(taken)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with running_proxy(tmp_path, CONNECT_SSH_ADDR=f"127.0.0.1:{port}"):
                pass
    assert caught.group_contains(CannotListen, match="in use: .* CONNECT_SSH_ADDR")


async def test_its_numbers_are_among_the_metrics_and_its_port_part_of_being_ready(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, CONNECT_MANAGEMENT_PORT="0") as proxy:
        assert proxy.ssh_port is not None
        async with (
            await trio.open_tcp_stream("127.0.0.1", proxy.ssh_port) as stranger,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{proxy.management_port}", trust_env=False) as http,
        ):
            await stranger.receive_some()
            text = (await http.get("/metrics")).text
            assert re.search(r'^connect_proxy_ssh_connections\{state="stranger"\} 1', text, re.M)
            assert re.search(r'^connect_proxy_ssh_logins_total\{outcome="refused"\} 0', text, re.M)
            assert re.search(r"^connect_proxy_ssh_channels 0", text, re.M)


async def test_a_drain_closes_its_port(tmp_path: Path) -> None:
    environ = {"CONNECT_MANAGEMENT_PORT": "0", "CONNECT_MANAGEMENT_AUTH_KEY": "the-key", "CONNECT_DRAIN_GRACE": "5s"}
    async with running_proxy(tmp_path, **environ) as proxy:
        assert proxy.ssh_port is not None
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{proxy.management_port}", trust_env=False) as http:
            answer = await http.post("/drain", headers={"Authorization": "Bearer the-key"})
            assert answer.status_code == 202
            with trio.fail_after(60):
                while True:
                    try:
                        await greeting(proxy.ssh_port)
                    except OSError:
                        break
                    await trio.sleep(0.02)
