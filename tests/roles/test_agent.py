"""The role `agent`: which carrier it asks for, and how much its streams may keep."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from connect_trio.config import load_agent
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.roles import agent as agent_module
from connect_trio.roles.agent import run_agent
from tests.support.stack import agent_environ
from tests.support.tools import dead_port


@pytest.mark.parametrize(
    ("setting", "carrier"), [({}, b"connect-mux"), ({"CONNECT_TUNNEL_WEBSOCKET_ONLY": "true"}, b"websocket")]
)
async def test_the_first_dial_asks_for_the_carrier_of_the_settings(
    tmp_path: Path, nursery: trio.Nursery, setting: dict[str, str], carrier: bytes
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    environ = {
        "CONNECT_PROXY_URL": f"http://connect.localhost:{port}",
        "CONNECT_AGENT_TOKEN": "token",
        "CONNECT_FILES_ROOT": str(tmp_path),
    }
    async with listener:
        nursery.start_soon(partial(nursery.start, run_agent, load_agent(environ | setting)))
        async with await listener.accept() as stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive_some()
    nursery.cancel_scope.cancel()
    assert b"\r\nupgrade: %b\r\n" % carrier in request.lower()


async def test_the_settings_bound_the_memory_of_streams(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def acceptor(*args: Any, budget: Budget, **kwargs: Any) -> Acceptor:
        limits.append(budget.limit)
        return Acceptor(*args, budget=budget, **kwargs)

    monkeypatch.setattr(agent_module, "Acceptor", acceptor)
    environ = agent_environ(dead_port(), tmp_path, "token") | {"CONNECT_STREAM_MEMORY": "32MiB"}
    nursery.start_soon(partial(nursery.start, run_agent, load_agent(environ)))
    with trio.fail_after(60):
        while not limits:
            await trio.sleep(0.01)
    nursery.cancel_scope.cancel()
    assert limits == [32 << 20]


def test_a_tool_sees_no_secret_and_no_file_with_one() -> None:
    assert {"CONNECT_AGENT_TOKEN", "CONNECT_AGENT_TOKEN_FILE", "CONNECT_REDIS_PASSWORD_FILE"} <= agent_module.SECRETS
    assert "CONNECT_TOOL_PATH_PREFIX" not in agent_module.SECRETS
