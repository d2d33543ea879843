"""How stacks end, what comes back when a part is killed, and what a stopped session takes with it."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio_websocket

from tests.support import echo_tool
from tests.support.e2e import MODES, PATIENCE, DevStack, dev_stack, wait_until, with_tool
from tests.support.parts import require
from tests.support.visits import Visitor, web_socket

ECHO = [sys.executable, "-P", str(Path(echo_tool.__file__)), "{port}"]

# A tool with a child of its own, which does not end by itself.
FAMILY = ["sh", "-c", 'sleep 1000 & exec "$0" -m http.server --bind 127.0.0.1 $CONNECT_TOOL_PORT', sys.executable]


@pytest.fixture(scope="module")
def echoing(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    root = tmp_path_factory.mktemp("life")
    with dev_stack(*with_tool(mode, ECHO), root=root, name=f"life-echo-{mode}") as stack:
        yield stack


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    """A stack of many processes, whose tools are file servers."""
    require("redis-server")
    root = tmp_path_factory.mktemp("killed")
    (root / "readme.txt").write_text("still here")
    with dev_stack(*MODES["processes"], root=root, name="life-killed") as stack:
        yield stack


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_stack_in_use_and_its_children(mode: str, number: signal.Signals, tmp_path: Path) -> None:
    root = tmp_path / "studio"
    root.mkdir()
    with dev_stack(*with_tool(mode, ECHO), root=root, name=f"life-{number.name}-{mode}") as stack:
        alice = Visitor()
        alice.log_in(stack.private["url"], "alice")
        async with web_socket(alice, stack.private["url"] + "echo") as connection:
            await connection.send_message("hello")
            assert await connection.get_message() == "hello"
            await trio.to_thread.run_sync(stack.stop, number)
            with pytest.raises(trio_websocket.ConnectionClosed):
                await connection.get_message()
        assert "not told who has left" not in stack.said(), "Platform ends after those that report to it"


def test_what_a_tool_has_started_ends_with_it(mode: str, tmp_path: Path) -> None:
    (tmp_path / "studio").mkdir()
    with dev_stack(*with_tool(mode, FAMILY), root=tmp_path / "studio", name=f"life-family-{mode}") as stack:
        alice = Visitor()
        assert alice.log_in(stack.shared["url"], "alice").status == 200
        stack.stop()


@pytest.mark.parametrize("role", ["agent", "server", "proxy", "platform", "redis"])
def test_a_killed_process_comes_back_and_the_studio_answers_again(killed: DevStack, role: str) -> None:
    alice = Visitor()
    url = killed.private["url"] + "readme.txt"
    assert alice.log_in(url, "alice").text == "still here"
    # All of them: whichever the Studio's bytes passed through, it was among them.
    for number, pid in enumerate(killed.pids(role)):
        before = killed.pids(role)
        os.kill(pid, signal.SIGKILL)
        now = wait_until(partial(successor, killed, role, before), f"another {role}")
        assert now[number] not in before
        assert now[:number] + now[number + 1 :] == before[:number] + before[number + 1 :]
    for port in ports_of_proxies(killed):
        if role in ("redis", "platform"):
            # What they knew of logins was in their memory. A proxy leaves a Platform alone for a moment that was away.
            alice = wait_until(partial(logged_in, url, port), f"a new login after {role}")
        alice.via = port
        wait_until(partial(answers, partial(is_there, alice, url)), f"the Studio after {role}")
    # A login that one proxy begins another one can finish.
    for _ in range(5):
        assert Visitor().log_in(url, "alice").text == "still here"


def ports_of_proxies(stack: DevStack) -> list[int]:
    """The port that each proxy has for itself."""
    return [int(url.rpartition(":")[2]) for url in stack.document["proxies"]]


def successor(stack: DevStack, role: str, before: list[int]) -> list[int] | None:
    """The processes of a role once there are as many as before, and not the same."""
    now = stack.pids(role)
    return now if len(now) == len(before) and now != before else None


def is_there(visitor: Visitor, url: str) -> bool:
    return visitor.request("GET", url).text == "still here"


def logged_in(url: str, via: int) -> Visitor | None:
    """Alice, if she gets in by the proxy at this port."""
    alice = Visitor(via=via)
    return alice if answers(lambda: alice.log_in(url, "alice").text == "still here") else None


def answers(ask: Callable[[], bool]) -> bool:
    """Whether it works; while a part is being started again, connections may be refused or cut."""
    try:
        return ask()
    except (OSError, AssertionError, ValueError):
        return False


async def test_a_session_that_its_owner_stops_ends_what_is_open(echoing: DevStack) -> None:
    alice, bob = Visitor(), Visitor()
    url = echoing.shared["url"] + "echo"
    alice.log_in(url, "alice")
    bob.log_in(url, "bob")
    alice.open(echoing.private["url"])
    with trio.fail_after(3 * PATIENCE):
        async with web_socket(alice, echoing.private["url"] + "echo") as other:
            async with web_socket(bob, url) as connection:
                await connection.send_message("hello")
                assert await connection.get_message() == "hello"
                press(alice, echoing, "stop")
                with pytest.raises(trio_websocket.ConnectionClosed):
                    await connection.get_message()
            # Whoever is back at once may find the door still open, but does not stay.
            await come_back(bob, url)
            while bob.request("GET", url).status != 503:
                await trio.sleep(0.1)
            # What is open for other sessions stays so.
            await other.send_message("still there?")
            assert await other.get_message() == "still there?"
        press(alice, echoing, "start")
        for bob.via in ports_of_proxies(echoing):
            while bob.request("GET", url).status in (502, 503):
                await trio.sleep(0.1)
        async with web_socket(bob, url) as connection:
            await connection.send_message("again")
            assert await connection.get_message() == "again"


async def come_back(visitor: Visitor, url: str) -> None:
    """Open a WebSocket and wait for its end; it may be refused as well."""
    try:
        async with web_socket(visitor, url) as connection:
            with pytest.raises(trio_websocket.ConnectionClosed):
                await connection.get_message()
    except* trio_websocket.ConnectionRejected:
        pass  # which is the other good end


def press(visitor: Visitor, stack: DevStack, button: str) -> None:
    """The button of the shared Studio on Platform's page."""
    page = visitor.open(stack.platform_url + "/")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert token is not None, page.text
    url = f"{stack.platform_url}/sessions/{stack.shared['id']}/{button}"
    headers = {"Origin": stack.platform_url}
    assert visitor.request("POST", url, headers=headers, form={"form_token": token[1]}).status == 303
