"""The agent's sessions through servers and tunnels as they really are, and settings that decide about them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from connect_trio.channels.ends import SESSION as KIND
from connect_trio.channels.ends import VERSION
from connect_trio.channels.messages import Exec, Exit, Frame
from connect_trio.dial import DialError, Target
from connect_trio.identity.grants import SSH
from connect_trio.mux.stream import MuxStream
from connect_trio.reverse import Connection, ListenError, open_reverse
from tests.support.channels import PATIENCE, Client, client_of
from tests.support.grants import granted
from tests.support.stack import Stack, open_stack
from tests.support.tables import SESSION

TOKENS = ("CONNECT_AGENT_TOKEN", "CONNECT_AGENT_TOKEN_FILE", "CONNECT_REDIS_PASSWORD", "CONNECT_CLUSTER_KEY")


async def dial(stack: Stack, kind: str = KIND, **metadata: str) -> MuxStream:
    with trio.fail_after(PATIENCE):
        stream = await stack.dialer.dial(Target(grant=granted(SESSION, method=SSH), kind=kind, metadata=metadata))
        assert isinstance(stream, MuxStream)
        return stream


@asynccontextmanager
async def session(stack: Stack, *frames: Frame) -> AsyncIterator[Client]:
    async with client_of(await dial(stack, version=VERSION), *frames) as client:
        yield client


async def output(stack: Stack, command: str) -> str:
    async with session(stack, Exec(command.encode())) as client:
        client.write_eof()
        assert await client.wait() == Exit(0)
    return client.stdout.decode()


async def test_no_secret_is_in_the_environment_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOKENS:
        monkeypatch.setenv(name, "a-secret-that-must-not-show")
    monkeypatch.setenv("OF_THE_TOOL", "yes")
    async with open_stack() as stack:
        await stack.start_agent(tmp_path, CONNECT_TOOL_PATH_PREFIX="/_studio/x")
        found = await output(stack, "env; pwd")
    assert "a-secret-that-must-not-show" not in found
    assert "OF_THE_TOOL=yes\n" in found
    assert "CONNECT_TOOL_PATH_PREFIX=/_studio/x\n" in found
    assert found.endswith(f"{tmp_path}\n")


async def test_a_transfer_survives_the_end_of_its_server_both_ways(tmp_path: Path) -> None:
    async with open_stack(servers=2) as stack:
        await stack.start_agent(tmp_path)
        data = b"".join(b"%d\n" % number for number in range(1_500_000))
        async with session(stack, Exec(b"tee copy | sha256sum; seq 0 1499999")) as client:
            client.write(data)
            client.write_eof()
            with trio.fail_after(PATIENCE):
                while client.outbox.waiting > len(data) // 2:
                    await trio.sleep(0.001)
            await stack.servers[0].stop()
            with trio.fail_after(PATIENCE):
                while len(client.stdout) < 1_000_000:
                    await trio.sleep(0.001)
            await stack.start_server()
            await stack.servers[1].stop()
            assert await client.wait() == Exit(0)
    digest, _, rest = bytes(client.stdout).partition(b"  -\n")
    assert digest.decode() == hashlib.sha256(data).hexdigest()
    assert rest == data
    assert (tmp_path / "copy").read_bytes() == data


async def test_ssh_can_be_switched_off(tmp_path: Path) -> None:
    async def nobody(connection: Connection) -> None:
        raise AssertionError

    async with open_stack() as stack:
        await stack.start_agent(tmp_path, CONNECT_AGENT_SSH="false")
        for kind, metadata in ((KIND, {"version": VERSION}), ("tcp", {"host": "localhost", "port": "1"})):
            with pytest.raises(DialError, match="SSH is switched off in this Studio"):
                await dial(stack, kind, **metadata)
        async with open_reverse(stack.dialer, granted(SESSION, method=SSH), nobody) as reverse:
            for network in ("tcp", "agent"):
                with pytest.raises(ListenError):
                    await reverse.listen(network, "")


async def test_settings_decide_about_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho my own shell: $2\nread line\n")
    shell.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    async with open_stack() as stack:
        await stack.start_agent(Path(), CONNECT_AGENT_SSH_SHELL=str(shell), CONNECT_AGENT_SSH_CHANNELS="1")
        async with session(stack, Exec(b"a command")) as client:
            await client.until(b"my own shell: a command\n")
            with pytest.raises(DialError, match="has 1 SSH channels open already"):
                await dial(stack, version=VERSION)
            client.signal("TERM")
            await client.wait()
