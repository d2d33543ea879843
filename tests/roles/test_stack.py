"""Server, agent and links as they really are, over loopback: bytes reach a tool, and come back whatever happens."""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path

import pytest
import trio

from connect_trio.agent.client import TunnelRefused
from connect_trio.config import load_agent
from connect_trio.dial import DialError
from connect_trio.roles.agent import run_agent
from tests.support.stack import Stack, agent_environ, open_stack
from tests.support.tables import OTHER, SESSION
from tests.support.tools import listening_tool

ECHO = (
    "import asyncio, os\n"
    "async def serve(reader, writer):\n"
    "    while data := await reader.read(65536):\n"
    "        writer.write(data)\n"
    "        await writer.drain()\n"
    "    writer.write_eof()\n"
    "async def main():\n"
    "    server = await asyncio.start_server(serve, '127.0.0.1', int(os.environ['CONNECT_TOOL_PORT']))\n"
    "    open('pid', 'w').write(str(os.getpid()))\n"
    "    await server.serve_forever()\n"
    "asyncio.run(main())\n"
)


def echo_tool(root: Path) -> list[str]:
    (root / "echo.py").write_text(ECHO)
    return [sys.executable, "-I", str(root / "echo.py")]


async def echoed(stack: Stack, data: bytes) -> bytes:
    """What an echoing tool makes of `data`."""
    stream = await stack.dial()
    got: list[bytes] = []

    async def receive() -> None:
        got.append(b"".join([part async for part in stream]))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await stream.send_all(data)
            await stream.send_eof()
    await stream.aclose()
    return got[0]


async def until_routes(stack: Stack, count: int, session: str = SESSION) -> None:
    with trio.fail_after(60):
        while len(await stack.registry.find(session)) != count:
            await trio.sleep(0.01)


async def test_the_files_of_an_agent_are_served(tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("hello from the Studio")
    async with open_stack() as stack:
        await stack.start_agent(tmp_path)
        await until_routes(stack, 2)
        assert b"hello.txt" in await stack.ask()
        assert (await stack.ask(target="/hello.txt?raw")).startswith(b"HTTP/1.1 200 ")


async def test_megabytes_pass_both_ways_to_an_own_tool(tmp_path: Path) -> None:
    async with open_stack() as stack:
        await stack.start_agent(tmp_path, command=echo_tool(tmp_path))
        data = os.urandom(8 << 20)
        assert await echoed(stack, data) == data


async def test_a_tool_that_runs_already_is_found_on_its_port(tmp_path: Path) -> None:
    async with open_stack() as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, CONNECT_TOOL_PORT=str(port))
        assert await echoed(stack, b"hello") == b"hello"


async def test_two_servers_serve_their_own_agents_and_one_that_stops_loses_nobody(tmp_path: Path) -> None:
    async with open_stack(servers=2) as stack, listening_tool() as port:
        first, second = stack.servers
        await stack.start_agent(tmp_path, CONNECT_TOOL_PORT=str(port), CONNECT_AGENT_TUNNELS="1")
        stack.servers[:] = [second]
        await stack.start_agent(tmp_path, session=OTHER, CONNECT_TOOL_PORT=str(port), CONNECT_AGENT_TUNNELS="1")
        await until_routes(stack, 1)
        await until_routes(stack, 1, OTHER)
        streams = [await stack.dial(SESSION), await stack.dial(OTHER)]
        assert [route.address for route in await stack.registry.find(SESSION)] == [first.running.address]
        assert [route.address for route in await stack.registry.find(OTHER)] == [second.running.address]
        await first.stop()
        for stream in streams:
            await stream.send_all(b"by whatever server")
            assert await stream.receive_some() == b"by whatever server"
        assert await echoed(stack, b"by the other server now") == b"by the other server now"


async def test_a_server_that_stops_takes_its_routes_out_and_tells_its_agents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_stack() as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, CONNECT_TOOL_PORT=str(port))
        await until_routes(stack, 2)
        await stack.servers[0].stop()
        assert await stack.registry.find(SESSION) == []
        await stack.start_server()
        assert await echoed(stack, b"back again") == b"back again"
    ended = [vars(record)["reason"] for record in caplog.records if record.message == "tunnel ended"]
    assert ended[0] == "the server stops"


async def test_a_server_stops_in_time_although_the_registry_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stack() as stack, listening_tool() as port:
        await stack.start_agent(tmp_path, CONNECT_TOOL_PORT=str(port))
        await until_routes(stack, 2)
        stack.registry.away = True
        await stack.servers[0].stop()
        stack.registry.away = False
    assert "routes stay in the registry until their leases end" in [record.message for record in caplog.records]


async def test_an_agent_that_ends_ends_its_tool_and_its_route(tmp_path: Path) -> None:
    async with open_stack() as stack:
        agent = await stack.start_agent(tmp_path, command=echo_tool(tmp_path))
        assert await echoed(stack, b"alive") == b"alive"
        pid = int((tmp_path / "pid").read_text())
        await agent.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        await until_routes(stack, 0)


async def test_a_second_agent_of_a_session_takes_over(tmp_path: Path) -> None:
    owner = ""
    async with open_stack() as stack:
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / f"{name}.txt").touch()
            await stack.start_agent(folder)
            # It is there as soon as one of its tunnels is; the other one may take its place a moment later.
            owner = await stack.owner(but=owner)
        assert b"second.txt" in await stack.ask()


async def test_a_tool_that_dies_at_once_is_told_to_visitors(tmp_path: Path) -> None:
    async with open_stack() as stack:
        await stack.start_agent(tmp_path, command=[sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(DialError, match="the tool exited with code 3") as caught:
            await stack.dial()
        assert (caught.value.failure.status, caught.value.failure.part) == (502, "tool")


async def test_a_program_that_is_not_there_is_told_to_visitors(tmp_path: Path) -> None:
    async with open_stack() as stack:
        await stack.start_agent(tmp_path, command=["no-such-program"])
        with pytest.raises(DialError, match="there is no program no-such-program"):
            await stack.dial()


async def test_a_tool_does_not_see_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = ("CONNECT_AGENT_TOKEN", "CONNECT_AGENT_TOKEN_FILE", "CONNECT_REDIS_PASSWORD", "CONNECT_DEVPLATFORM_KEY")
    for name in hidden:
        monkeypatch.setenv(name, "secret-" + name.lower())
    monkeypatch.setenv("SHOWN", "1")
    code = "import os; open('env', 'w').write('\\n'.join(os.environ)); os.rename('env', 'environment')"
    async with open_stack() as stack:
        await stack.start_agent(tmp_path, command=[sys.executable, "-c", code], CONNECT_TOOL_PATH_PREFIX="/x")
        with trio.fail_after(60):
            while not (tmp_path / "environment").exists():
                await trio.sleep(0.01)
    seen = (tmp_path / "environment").read_text().split()
    assert {"SHOWN", "CONNECT_TOOL_PORT", "CONNECT_TOOL_PATH_PREFIX"} <= set(seen)
    assert not set(hidden) & set(seen)


async def test_a_wrong_token_ends_the_agent_with_one_clear_line(tmp_path: Path) -> None:
    async with open_stack() as stack:
        with pytest.RaisesGroup(
            pytest.RaisesExc(TunnelRefused, match="^Connect refuses this agent: the agent's token is refused"),
            flatten_subgroups=True,
        ):
            await run_agent(load_agent(agent_environ(stack.port, tmp_path, "wrong")))


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.05, 0.2, 0.5])
async def test_stopping_everything_at_any_moment_leaves_nothing(tmp_path: Path, moment: float) -> None:
    with trio.move_on_after(moment):
        async with open_stack(servers=2) as stack, trio.open_nursery() as nursery:
            nursery.start_soon(stack.start_agent, tmp_path)
            while True:
                stream = await stack.dial()
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                await stream.receive_some()
    gc.collect()  # a socket that was left would warn, and a warning is an error
