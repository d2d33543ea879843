"""The role `agent`: which carrier it asks for."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from connect_trio.config import load_agent
from connect_trio.roles.agent import run_agent


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
