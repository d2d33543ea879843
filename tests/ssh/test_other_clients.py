"""Other clients than OpenSSH's: paramiko, an auditor, and what VS Code's Remote-SSH does."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import paramiko  # type: ignore[import-untyped]
import pytest
import trio

from connect_trio.ssh.bridge_keys import read_host_key
from tests.ssh.test_openssh_forwards import echoing, exchange, free_port, tried
from tests.support.parts import require
from tests.support.ssh import LABEL, PATIENCE, SshBench, keygen, run, ssh_bench

MIB = 1024 * 1024


def paramiko_client(bench: SshBench) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(bench.home / "known_hosts"))
    client.connect(
        "127.0.0.1",
        bench.port,
        f"alice@{LABEL}",
        key_filename=str(bench.home / "id_ed25519"),
        look_for_keys=False,
        allow_agent=False,
        timeout=PATIENCE,
    )
    return client


async def test_paramiko_runs_commands(tmp_path: Path) -> None:
    data = os.urandom(MIB)

    def talk(bench: SshBench) -> tuple[bytes, bytes, int]:
        with paramiko_client(bench) as client:
            stdin, stdout, stderr = client.exec_command("cat; echo err >&2; exit 3", timeout=PATIENCE)
            stdin.write(data)
            stdin.channel.shutdown_write()
            return stdout.read(), stderr.read(), stdout.channel.recv_exit_status()

    async with ssh_bench(tmp_path) as bench:
        out, err, status = await trio.to_thread.run_sync(talk, bench)
    assert (hashlib.sha256(out).digest(), err, status) == (hashlib.sha256(data).digest(), b"err\n", 3)


async def test_paramiko_has_a_shell_and_resizes_it(tmp_path: Path) -> None:
    def talk(bench: SshBench) -> str:
        said = ""
        with paramiko_client(bench) as client:
            channel = client.invoke_shell("xterm", width=91, height=21)
            channel.settimeout(PATIENCE)
            channel.send(b"stty size\n")
            while not re.search(r"21 91\r\n", said):
                said += channel.recv(1000).decode()
            channel.resize_pty(width=92, height=22)
            while not re.search(r"22 92\r\n", said):
                channel.send(b"stty size\n")
                said += channel.recv(1000).decode()
            channel.send(b"exit 4\n")
            assert channel.recv_exit_status() == 4
        return said

    async with ssh_bench(tmp_path) as bench:
        await trio.to_thread.run_sync(talk, bench)


async def test_paramiko_moves_files_and_forwards(tmp_path: Path) -> None:
    require("sftp-server")
    data = os.urandom(3 * MIB)

    def talk(bench: SshBench, tool: int) -> tuple[bytes, bytes]:
        with paramiko_client(bench) as client:
            with client.open_sftp() as sftp:
                with sftp.open(str(bench.folder / "file"), "wb") as file:
                    file.set_pipelined(True)
                    file.write(data)
                with sftp.open(str(bench.folder / "file"), "rb") as file:
                    back = file.read()
            transport = client.get_transport()
            assert transport is not None
            channel = transport.open_channel("direct-tcpip", ("127.0.0.1", tool), ("127.0.0.1", 1))
            channel.settimeout(PATIENCE)
            channel.sendall(b"echo")
            return back, channel.recv(100)

    async with ssh_bench(tmp_path) as bench, echoing() as tool:
        back, echoed = await trio.to_thread.run_sync(talk, bench, tool)
        assert (bench.folder / "file").read_bytes() == back == data
    assert echoed == b"echo"


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_an_auditor_finds_nothing_but_what_older_clients_need(tmp_path: Path, kind: str) -> None:
    options = ("-b", "3072") if kind == "rsa" else ()
    key = read_host_key(keygen(tmp_path / "host", kind, *options).read_bytes())
    async with ssh_bench(tmp_path, host_key=key) as bench:
        audit = [sys.executable, "-m", "ssh_audit.ssh_audit", "--skip-rate-test", "-n", "-p", str(bench.port)]
        done = await run([*audit, "127.0.0.1"], folder=tmp_path)
    lines = done.out.decode().splitlines()
    assert any("(kex) curve25519-sha256" in line for line in lines), done.out.decode() + done.said
    assert not [line for line in lines if "[fail]" in line]
    warnings = [line for line in lines if "[warn]" in line]
    assert all("post-quantum" in line for line in warnings), warnings
    assert not [line for line in lines if "chacha20" in line and line.startswith("(enc)")]


SERVER = """\
import socket, threading
s = socket.create_server(("127.0.0.1", 0))
open("port", "w").write(str(s.getsockname()[1]))
def serve(c):
    while d := c.recv(65536):
        c.sendall(d)
    c.close()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


async def test_the_steps_of_vs_code(tmp_path: Path) -> None:
    """`ssh -T -D port host sh` with a script on stdin, a server that outlives it, many connections by SOCKS, again."""
    async with ssh_bench(tmp_path) as bench:
        script = f"""\
cd {bench.folder}
echo start
[ -f port ] || (nohup setsid {sys.executable} -c '{SERVER}' </dev/null >/dev/null 2>&1 & echo $! > pid)
while [ ! -s port ]; do sleep 0.05; done
echo listeningOn=$(cat port)=
"""
        try:
            for _ in range(2):  # the second time it finds the server of the first
                await _connect_as_vs_code(bench, script)
        finally:
            pid = int((bench.folder / "pid").read_text())
            subprocess.run(["kill", "--", str(pid)], check=False)
            subprocess.run(["pkill", "-P", str(pid)], check=False)


async def _connect_as_vs_code(bench: SshBench, script: str) -> None:
    socks = free_port()
    process = await trio.lowlevel.open_process(
        bench.command("-T", "-D", f"127.0.0.1:{socks}", "studio", "sh"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdin.send_all(script.encode())
        said = b""
        with trio.fail_after(PATIENCE):
            while not (found := re.search(rb"listeningOn=(\d+)=", said)):
                said += await process.stdout.receive_some()
        port = int(found[1])

        async def talk() -> None:
            stream = await tried(partial(trio.open_tcp_stream, "127.0.0.1", socks))
            await stream.send_all(b"\x05\x01\x00")
            await stream.receive_some(2)
            await stream.send_all(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + port.to_bytes(2))
            await stream.receive_some(10)
            await exchange(stream, 50_000)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(talk)
    finally:
        process.terminate()
        await process.wait()
        await process.stdin.aclose()
        await process.stdout.aclose()
