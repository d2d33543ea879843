"""Who logs out at Platform is out of everything that is open, at each proxy, within seconds; nobody else is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio_websocket

from tests.support import echo_tool
from tests.support.e2e import DevStack, dev_stack, wait_until, with_tool
from tests.support.visits import PATIENCE, Visitor, web_socket


@pytest.fixture(scope="module")
def stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("logouts")
    tool = [sys.executable, "-P", str(Path(echo_tool.__file__)), "{port}"]
    with dev_stack(*with_tool(mode, tool), root=root, name=f"logouts-{mode}") as stack:
        yield stack


def log_out_at_platform(stack: DevStack, visitor: Visitor) -> None:
    page = visitor.open(f"{stack.platform_url}/api/end-session")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token is not None, page.text
    answer = visitor.request("POST", f"{stack.platform_url}/logout", form={"form_token": token[1]})
    assert "logged out" in answer.text


async def test_who_logs_out_at_platform_is_out_of_open_websockets_too(stack: DevStack) -> None:
    url = stack.shared["url"]
    visitors = {}
    for name in ("alice", "bob"):
        visitors[name] = Visitor()
        visitors[name].log_in(url, name)
    async with web_socket(visitors["bob"], url + "echo") as bobs, web_socket(visitors["alice"], url + "echo") as hers:
        for connection in (hers, bobs):
            await connection.send_message("hello")
            assert await connection.get_message() == "hello"
        await trio.to_thread.run_sync(log_out_at_platform, stack, visitors["alice"])
        with trio.fail_after(PATIENCE), pytest.raises(trio_websocket.ConnectionClosed):
            await hers.get_message()
        # Another proxy may answer, which knows it within two seconds.
        wait_until(lambda: visitors["alice"].request("GET", url).status == 401, "alice is out")
        await bobs.send_message("still here")
        assert await bobs.get_message() == "still here"
        assert visitors["bob"].request("GET", url).status == 400, "the tool's own answer: it speaks WebSocket only"
