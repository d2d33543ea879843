"""Shells and commands in a Studio, by OpenSSH's client."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.e2e import FULL
from tests.support.ssh import PATIENCE, SshBench, ssh_bench
from tests.support.ssh_clients import client_of
from tests.support.terminals import set_size

MIB = 1024 * 1024
PROMPT = r"bash-[0-9.]+[#$] "


async def test_a_command_has_its_output_its_errors_and_its_status_apart(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh("echo out; echo err >&2; cat; exit 7", stdin=b"in\n")
    assert (done.out, done.err, done.status) == (b"out\nin\n", b"err\n", 7)


async def test_nothing_but_the_command_is_said(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh("true")
    assert (done.out, done.err, done.status) == (b"", b"", 0)


async def test_a_command_that_a_signal_ends(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh("kill -TERM $$")
    assert done.status == 255


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh("no-such-program")
    assert done.status == 127
    assert "not found" in done.said


async def test_a_command_need_not_be_text(tmp_path: Path) -> None:
    """Names of files are bytes; sshd passes them on, too."""
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh(b"printf '%s' 'caf\xe9 \xff' | od -An -tx1".decode(errors="surrogateescape"))
    assert (done.status, done.out.split()) == (0, b"63 61 66 e9 20 ff".split())


async def test_the_environment_that_a_client_may_set(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        options = ("-o", "SetEnv=LC_TEST=a\\ b LD_PRELOAD=/evil.so")
        done = await bench.ssh("env", *options)
    lines = done.out.decode().splitlines()
    assert "LC_TEST=a b" in lines
    assert not [line for line in lines if line.startswith("LD_")]
    assert [line for line in lines if re.fullmatch(r"SSH_CLIENT=127\.0\.0\.1 \d+ \d+", line)]


@pytest.mark.parametrize("size", [10 * MIB])
async def test_much_goes_both_ways_unchanged(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with ssh_bench(tmp_path) as bench:
        done = await bench.ssh("tee /dev/stderr", stdin=data)
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(done.err).digest() == hashlib.sha256(data).digest()
    assert done.status == 0


async def test_new_keys_are_agreed_on_meanwhile(tmp_path: Path) -> None:
    data = os.urandom(12 * MIB)
    async with ssh_bench(tmp_path, rekey_bytes=2 * MIB) as bench:
        done = await bench.ssh("cat", "-o", "RekeyLimit=1500K", stdin=data)
    assert done.out == data
    assert done.status == 0


@pytest.mark.parametrize("shared", [True, False], ids=["over four connections", "over one connection each"])
async def test_the_output_of_many_short_commands_is_whole(tmp_path: Path, shared: bool) -> None:
    """A thousand of them in full."""
    each = (250 if FULL else 50) if shared else (250 if FULL else 10)
    async with ssh_bench(tmp_path) as bench:

        async def some(start: int) -> None:
            master = bench.home / f"cm{start}"
            options = ("-o", "ControlMaster=auto", "-o", f"ControlPath={master}", "-o", "ControlPersist=30")
            for number in range(start, start + each):
                command = f"echo {number}; echo e{number} >&2; exit {number % 5}"
                done = await bench.ssh(command, *(options if shared else ()))
                assert done.out == f"{number}\n".encode()
                assert f"e{number}\n".encode() in done.err
                assert done.status == number % 5
            if shared:
                await bench.run("-o", f"ControlPath={master}", "-O", "exit", "studio")

        async with trio.open_nursery() as nursery:
            for start in range(0, 4 * each, each):
                nursery.start_soon(some, start)


class Shell:
    """An interactive client on a terminal of its own."""

    def __init__(self, master: int, process: trio.Process) -> None:
        self.process = process
        self.master = master
        self._screen = ""
        self._end = trio.lowlevel.FdStream(os.dup(master))

    async def type(self, text: str) -> None:
        await self._end.send_all(text.encode())

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until the screen shows this; what was up to its end is forgotten."""
        with trio.fail_after(PATIENCE):
            while not (found := re.search(pattern, self._screen)):
                try:
                    data = await self._end.receive_some()
                except trio.BrokenResourceError:
                    data = b""
                assert data, f"the shell has ended: {self._screen!r}"
                self._screen += data.decode(errors="replace")
        self._screen = self._screen[found.end() :]
        return found

    async def wait(self) -> int:
        """Its status, with whatever it still says dropped."""
        with trio.fail_after(PATIENCE):
            try:
                while await self._end.receive_some():
                    pass
            except trio.BrokenResourceError:  # EIO: the other end of the terminal is closed
                pass
            return await self.process.wait()


@asynccontextmanager
async def shell(bench: SshBench, *arguments: str) -> AsyncIterator[Shell]:
    master, slave = pty.openpty()
    set_size(slave, columns=100, rows=30)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(bench.home), "TERM": "xterm-256color"}
    process = await trio.lowlevel.open_process(
        bench.command(*arguments), stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True
    )
    os.close(slave)
    found = Shell(master, process)
    try:
        yield found
    finally:
        await found._end.aclose()
        os.close(master)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_shell_with_a_terminal_of_the_clients_size(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, shell(bench, "-t", "studio", "bash --norc") as user:
        await user.type("stty size; echo term=$TERM\n")
        await user.until(r"30 100\r\n")
        await user.until(r"term=xterm-256color\r\n")
        set_size(user.master, columns=111, rows=33)
        user.process.send_signal(signal.SIGWINCH)
        while True:  # the new size takes its own way
            await user.type("stty size; echo ok\n")
            if (await user.until(r"(\d+ \d+)\r\nok\r\n"))[1] == "33 111":
                break
        await user.type("exit 9\n")
        assert await user.wait() == 9


async def test_ctrl_c_reaches_the_foreground_and_not_the_shell(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, shell(bench, "-t", "studio", "bash --norc") as user:
        await user.until(PROMPT)
        await user.type("sh -c 'echo begun; exec sleep 1000'\n")
        await user.until(r"[\r\n]begun\r\n")
        await user.type("\x03")
        await user.until(PROMPT)
        await user.type("echo still $((40 + 2))\n")
        await user.until(r"still 42")
        await user.type("exit\n")
        await user.wait()


async def test_a_login_shell_when_no_command_is_given(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, shell(bench, "studio") as user:
        await user.type("shopt -q login_shell && echo log''in\n")
        await user.until(r"login\r\n")
        await user.type("exit 3\n")
        assert await user.wait() == 3


async def test_a_flood_of_output_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, shell(bench, "-t", "studio", "bash --norc") as user:
        await user.until(PROMPT)
        await user.type("yes\n")
        await user.until(r"y\r\ny\r\n")
        await user.type("\x03")
        await user.until(PROMPT)
        await user.type("echo over $((1 + 1))\n")
        await user.until(r"over 2")
        await user.type("exit\n")
        await user.wait()


async def test_a_new_size_overtakes_output_that_nobody_reads(tmp_path: Path) -> None:
    """Not by OpenSSH, which waits for its own terminal meanwhile."""
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519") as user:
        command = "tty > name; exec yes"
        channel, output = await user.session(command, term_type="xterm", term_size=(100, 30))
        with trio.fail_after(PATIENCE):
            while output.received < MIB:
                await trio.sleep(0.01)
        user.transport.pause_reading()
        name = (bench.folder / "name").read_text().strip()
        assert (await bench.ssh(f"stty size < {name}")).out == b"30 100\n"
        with user.loop.entered():
            channel.change_terminal_size(132, 50)
        with trio.fail_after(PATIENCE):
            while (await bench.ssh(f"stty size < {name}")).out != b"50 132\n":
                pass


async def test_a_client_that_vanishes_takes_its_command_along(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        assert bench.agent is not None
        process = await trio.lowlevel.open_process(
            bench.command("studio", "echo $$; exec sleep 1000"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        pid = int(await process.stdout.receive_some())
        assert Path(f"/proc/{pid}").exists()
        process.kill()
        await process.wait()
        await process.stdout.aclose()
        await bench.agent.until_idle()
        assert not Path(f"/proc/{pid}").exists()


async def test_input_that_nobody_reads_is_bounded_and_a_signal_overtakes_it(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench, client_of(bench.port, bench.home / "id_ed25519") as user:
        channel, output = await user.session("trap 'echo got it; exit 5' TERM; while :; do sleep 0.05; done")
        with user.loop.entered():
            channel.write(bytes(64 * MIB))
        with trio.fail_after(PATIENCE):
            left = -1
            while left != channel.get_write_buffer_size():  # until nothing more is taken
                left = channel.get_write_buffer_size()
                await trio.sleep(0.3)
            assert left > 60 * MIB
            with user.loop.entered():
                channel.send_signal("TERM")
            await output.over.wait()
        assert channel.get_exit_status() == 5
