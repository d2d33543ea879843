"""A tool is waited for, reached, and missed with a text that says why."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from connect_trio.agent import tool as tool_module
from connect_trio.agent.tool import PATIENCE, Tool, ToolUnavailable, free_port, is_its_own_peer, run_command
from tests.support.tools import listener_on, listening_tool


def script(tmp_path: Path, code: str) -> list[str]:
    path = tmp_path / "tool.py"
    path.write_text(code)
    return [sys.executable, "-I", "-S", str(path)]


async def test_a_listening_tool_is_reached() -> None:
    async with listening_tool() as port:
        sock = await Tool(port, start_timeout=60).connect()
        await sock.send_all(b"hello")
        assert await sock.receive_some() == b"hello"
        sock.close()


async def test_a_tool_that_starts_slowly_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    tool = Tool(free_port(), start_timeout=60)

    async def start() -> None:
        await trio.sleep(PATIENCE - 1)
        async with listening_tool(port=tool.port):
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        (await tool.connect()).close()
        assert PATIENCE - 1 <= trio.current_time() <= PATIENCE


async def test_a_tool_that_never_listens_is_waited_for_within_bounds(autojump_clock: trio.testing.MockClock) -> None:
    tool = Tool(free_port(), start_timeout=60)
    with pytest.raises(ToolUnavailable, match=f"the tool is still starting: nothing listens on port {tool.port} yet"):
        await tool.connect()
    assert trio.current_time() == pytest.approx(PATIENCE)


async def test_a_start_that_takes_too_long_is_a_problem_until_it_listens(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    tool = Tool(free_port(), start_timeout=30)
    nursery.start_soon(tool.watch)
    await trio.sleep(31)
    assert tool.problem == f"the tool does not listen on port {tool.port}, 30 s after its start"
    with pytest.raises(ToolUnavailable, match="does not listen on port"):
        await tool.connect()
    assert trio.current_time() == 31
    async with listening_tool(port=tool.port):
        await tool.listening.wait()
        await trio.testing.wait_all_tasks_blocked()
        (await tool.connect()).close()
    assert vars(tool)["problem"] is None
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the tool does not listen"
    ]


async def test_a_tool_that_stopped_listening_is_told_at_once(nursery: trio.Nursery) -> None:
    async with listening_tool() as port:
        tool = Tool(port, start_timeout=60)
        nursery.start_soon(tool.watch)
        await tool.listening.wait()
    with pytest.raises(ToolUnavailable, match=f"does not accept connections on port {port} any more"):
        await tool.connect()


async def test_a_connection_that_met_itself_is_known() -> None:
    port = free_port()
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", port))
    await sock.connect(("127.0.0.1", port))
    assert is_its_own_peer(sock)
    sock.close()
    async with listening_tool() as other:
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", other))
        assert not is_its_own_peer(sock)
        sock.close()


async def test_a_connection_that_met_itself_is_no_tool(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    tool = Tool(free_port(), start_timeout=60)
    monkeypatch.setattr(tool_module, "is_its_own_peer", lambda sock: True)
    async with listening_tool(port=tool.port):
        with pytest.raises(ToolUnavailable, match="still starting"):
            await tool.connect()


async def test_without_files_to_spare_the_tool_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with listening_tool() as port:
        tool = Tool(port, start_timeout=60)
        make, tries = trio.socket.socket, []

        def exhausted(*arguments: int) -> trio.socket.SocketType:
            tries.append(arguments)
            if len(tries) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return make(*arguments)

        monkeypatch.setattr(trio.socket, "socket", exhausted)
        (await tool.connect()).close()
        assert len(tries) == 3


async def test_a_cancelled_connect_leaves_no_socket(autojump_clock: trio.testing.MockClock) -> None:
    tool = Tool(free_port(), start_timeout=60)
    with trio.move_on_after(1.05):
        await tool.connect()
    listener = listener_on(tool.port)
    with pytest.raises(trio.TooSlowError), trio.fail_after(5):
        await listener.accept()
    await listener.aclose()


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", free_port()))


# commands


async def test_a_command_gets_its_port_its_folder_and_its_environment(tmp_path: Path) -> None:
    tool = Tool(free_port(), start_timeout=60)
    code = (
        "import json, os, sys; "
        "told = [sys.argv[1:], os.getcwd(), dict(os.environ)]; "
        "open('told.json', 'w').write(json.dumps(told))"
    )
    command = [*script(tmp_path, code), "--port={port}", "{port}{port}", "{other}"]
    await run_command(tool, command, root=tmp_path, env={"PATH": os.defpath, "MINE": "1"})
    arguments, folder, environment = json.loads((tmp_path / "told.json").read_text())
    assert arguments == [f"--port={tool.port}", f"{tool.port}{tool.port}", "{other}"]
    assert Path(folder) == tmp_path.resolve()
    assert environment["CONNECT_TOOL_PORT"] == str(tool.port)
    assert environment["MINE"] == "1"
    assert set(environment) <= {"PATH", "MINE", "CONNECT_TOOL_PORT", "LC_CTYPE", "PWD"}


@pytest.mark.parametrize(("prefix", "base"), [(None, "/"), ("/_studio/a23ce7967", "/_studio/a23ce7967/")])
async def test_a_command_gets_its_prefix(tmp_path: Path, prefix: str | None, base: str) -> None:
    tool = Tool(free_port(), start_timeout=60)
    command = [*script(tmp_path, "import sys; open('told', 'w').write(sys.argv[1])"), "--base={prefix}/"]
    env = {"PATH": os.defpath} | ({"CONNECT_TOOL_PATH_PREFIX": prefix} if prefix is not None else {})
    await run_command(tool, command, root=tmp_path, env=env)
    assert (tmp_path / "told").read_text() == f"--base={base}"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "the tool exited with code 3"),
        ("", "the tool exited with code 0"),
        ("import os; os.kill(os.getpid(), 9)", "the tool was ended by signal 9"),
    ],
)
async def test_the_end_of_a_command_is_one_line_and_what_visitors_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: str, problem: str
) -> None:
    tool = Tool(free_port(), start_timeout=60)
    await run_command(tool, script(tmp_path, code), root=tmp_path, env=os.environ)
    assert tool.problem == problem
    assert [record.message for record in caplog.records] == ["the tool has ended"]
    with pytest.raises(ToolUnavailable, match=problem):
        await tool.connect()


async def test_an_unknown_program_is_one_line_and_what_visitors_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tool = Tool(free_port(), start_timeout=60)
    await run_command(tool, ["no-such-program", "x"], root=tmp_path, env=os.environ)
    assert tool.problem is not None
    assert tool.problem.startswith("the tool cannot be started: there is no program no-such-program")
    assert len(caplog.records) == 1


async def test_a_command_ends_with_whoever_runs_it(tmp_path: Path) -> None:
    tool = Tool(free_port(), start_timeout=60)
    code = (
        "import os, signal, socket, sys; "
        "signal.signal(signal.SIGTERM, lambda *a: (open('stopped', 'w').close(), sys.exit())); "
        "open('pid', 'w').write(str(os.getpid())); "
        "socket.create_server(('127.0.0.1', int(os.environ['CONNECT_TOOL_PORT']))).accept(); signal.pause()"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_command(tool, script(tmp_path, code), root=tmp_path, env=os.environ))
        (await tool.connect()).close()
        pid = int((tmp_path / "pid").read_text())
        nursery.cancel_scope.cancel()
    assert (tmp_path / "stopped").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert tool.problem is None
