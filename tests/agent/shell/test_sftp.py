"""OpenSSH's sftp, without ssh: its packets go through a channel to the sftp-server that the agent starts."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import trio

from connect_trio.channels.messages import Exit, Subsystem
from tests.support import pipe_to_socket
from tests.support.channels import PATIENCE, ShellBench, shell_bench
from tests.support.parts import require


async def serve_channel(bench: ShellBench, listener: trio.SocketListener, ended: list[object]) -> None:
    """The first connection gets a channel of the subsystem sftp."""
    async with await listener.accept() as stream, bench.session(Subsystem("sftp")) as client:

        async def down() -> None:
            while not client.finished.is_set():
                data = bytes(client.stdout)
                client.stdout.clear()
                if data:
                    await stream.send_all(data)
                else:
                    await client.wait_news()
            await stream.send_all(bytes(client.stdout))
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(down)
            async for data in stream:
                client.write(data)
                while client.outbox.waiting > 1 << 20:
                    await trio.sleep(0.001)
            client.write_eof()
        ended.append(await client.wait())


async def test_files_are_put_and_got(tmp_path: Path) -> None:
    require("sftp-server")
    sftp = shutil.which("sftp") or require("ssh")
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    data = os.urandom(20_000_000)
    (here / "up").write_bytes(data)
    batch = here / "batch"
    batch.write_text(f"put {here}/up up\nget up {here}/down\nrename up moved\nbye\n")
    bridge = f"{sys.executable} -I {pipe_to_socket.__file__} {tmp_path}/s"
    ended: list[object] = []
    async with shell_bench(there) as bench:
        listener = unix_listener(tmp_path / "s")
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve_channel, bench, listener, ended)
            with trio.fail_after(3 * PATIENCE):
                done = await trio.run_process(
                    [sftp, "-b", str(batch), "-D", bridge],
                    capture_stdout=True,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
        assert done.returncode == 0, done.stdout
        await bench.until_idle()
    assert hashlib.sha256((here / "down").read_bytes()).digest() == hashlib.sha256(data).digest()
    assert (there / "moved").read_bytes() == data
    assert ended == [Exit(0)]


def unix_listener(path: Path) -> trio.SocketListener:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
