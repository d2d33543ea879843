"""Serving: ports, restarts, the end."""

from __future__ import annotations

import base64
import json
import re
import socket
import stat
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio

from connect_trio.config import PlatformSettings
from connect_trio.devplatform.server import CannotServe, serve
from connect_trio.identity.tokens import import_keys, verify_agent_token
from connect_trio.roles.platform import run_platform
from tests.support.platform import CONNECT_URL, DEV_KEY, SHARED, register, running_platform


async def test_a_restarted_platform_keeps_its_keys_and_clients(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with running_platform(state_dir=folder) as platform, platform.browser() as http:
        client = await register(http)
        token = await platform.agent_token(SHARED)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert client["client_secret"] not in (folder / "clients.json").read_text()
    async with running_platform(state_dir=folder, port=platform.port) as platform, platform.browser() as http:
        auth = (client["client_id"], client["client_secret"])
        assert (await http.get(f"/api/connect/sessions/{SHARED}", auth=auth)).status_code == 200
        keys = import_keys((await http.get("/api/.well-known/jwks.json")).json())
        verify_agent_token(token, keys=keys, issuer=platform.issuer, now=_issued(token))


def _issued(token: str) -> float:
    body = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["iat"])


async def test_damaged_state_is_replaced(tmp_path: Path) -> None:
    for name in ("signing-keys.json", "clients.json"):
        (tmp_path / name).write_bytes(b'{"keys": [{"kty"')
    async with running_platform(state_dir=tmp_path) as platform, platform.browser() as http:
        await register(http)
    assert b'"d"' in (tmp_path / "signing-keys.json").read_bytes()


async def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=rf"cannot listen on 127\.0\.0\.1:{port} .*choose another port"):
            await serve(url=None, port=port, connect_url=CONNECT_URL, dev_key=DEV_KEY)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
async def test_only_this_machine_is_served(host: str) -> None:
    with pytest.raises(CannotServe, match="this machine only"):
        await serve(url=None, host=host, connect_url=CONNECT_URL, dev_key=DEV_KEY)


async def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CannotServe, match="give it a folder"):
        await serve(url=None, connect_url=CONNECT_URL, dev_key=DEV_KEY, state_dir=file)


async def test_cancelling_closes_the_port_although_a_browser_is_connected() -> None:
    async with running_platform() as platform, platform.browser() as http:
        await http.get("/login")
        await platform.stop()
    with pytest.raises(OSError, match=r"failed|refused"):
        await trio.open_tcp_stream("127.0.0.1", platform.port)


async def test_the_role_starts_with_its_address() -> None:
    settings = PlatformSettings(url="http://localhost:0", own_port=0, connect_url=CONNECT_URL, dev_key=DEV_KEY)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(run_platform, settings)
        assert re.fullmatch(r"http://localhost:[1-9][0-9]*", url)
        nursery.cancel_scope.cancel()


async def test_without_a_development_key_there_are_no_development_calls() -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve, url=None, connect_url=CONNECT_URL, dev_key=None))
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{url}/api/dev/agent-tokens", headers={"authorization": "Bearer"})
            assert answer.status_code == 404
        nursery.cancel_scope.cancel()
