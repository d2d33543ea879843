from __future__ import annotations

import os
import signal
import termios
from pathlib import Path

import trio

from connect_trio.agent.shell import terminal
from connect_trio.channels.messages import Exec, Exit, ExitSignal, Pty, Resize, Shell, Size
from tests.support.channels import PTY, Client, alive, shell_bench, until_gone

PROMPT = b"@@ "


async def prompt(client: Client) -> None:
    """Make the shell say PROMPT when it is ready. What is typed earlier, an interrupt throws away."""
    client.write(b"bind 'set enable-bracketed-paste off'; PS1='@'\"@ \"\n")
    await client.until(PROMPT)


async def test_a_login_shell_has_a_terminal_of_the_size_and_name_asked_for(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        client.write(b"stty size; echo $TERM; tty; echo $SSH_TTY; shopt -q login_shell && echo log''in; pwd; exit 3\n")
        assert await client.wait() == Exit(3)
    lines = client.stdout.decode().splitlines()
    assert "30 100" in lines
    assert "xterm-256color" in lines
    assert "login" in lines
    assert str(tmp_path) in lines
    assert sum(line.startswith("/dev/pts/") for line in lines) == 2
    assert client.stderr == b""


async def test_a_resize_is_seen_by_the_program_in_the_foreground(tmp_path: Path) -> None:
    command = b"trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Exec(command)) as client:
        await client.until(b"ready\r\n")
        client.say(Resize(Size(columns=132, rows=43)))
        assert await client.wait() == Exit(0)
        assert client.stdout == b"43 132\r\n"


async def test_a_resize_before_the_start_counts(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Exec(b"stty size")) as client:
        client.outbox._control.insert(1, Resize(Size(columns=132, rows=43)))
        assert await client.wait() == Exit(0)
    assert client.stdout == b"43 132\r\n"


async def test_control_c_interrupts_the_program_and_not_the_shell(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        await prompt(client)
        client.write(b"sh -c 'echo start\"\"ed; exec sleep 1000'\n")
        await client.until(b"started\r\n")
        client.write(b"\x03")
        await client.until(PROMPT)
        client.write(b"echo status $?; exit 0\n")
        await client.until(b"status 130\r\n")
        assert await client.wait() == Exit(0)


async def test_jobs_are_stopped_and_brought_back(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        await prompt(client)
        client.write(b"sh -c 'echo start\"\"ed; exec cat'\n")
        await client.until(b"started\r\n")  # and is in the foreground: before, ^Z would have been the shell's
        client.write(b"one\n")
        await client.until(b"one\r\n")
        client.write(b"\x1a")
        await client.until(b"Stopped")
        await client.until(PROMPT)
        client.write(b"fg\n")
        await client.until(b"exec cat'\r\n")
        client.write(b"two\n")
        await client.until(b"two\r\n")
        client.write(b"\x04")
        await client.until(PROMPT)
        client.write(b"exit 6\n")
        assert await client.wait() == Exit(6)


async def test_a_signal_goes_to_the_program_in_the_foreground(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        await prompt(client)
        client.write(b"sh -c 'echo start\"\"ed; exec sleep 1000'\n")
        await client.until(b"started\r\n")
        client.signal("INT")
        await client.until(PROMPT)
        client.write(b"echo status $?; exit 0\n")
        await client.until(b"status 130\r\n")
        assert await client.wait() == Exit(0)


async def test_nothing_of_much_output_is_lost_at_the_end(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        for _ in range(5):
            async with bench.session(PTY, Exec(b"stty -opost; seq 1 50000; printf last"), window=20_000) as client:
                assert await client.wait() == Exit(0)
            assert client.stdout == b"".join(b"%d\n" % number for number in range(1, 50001)) + b"last"


async def test_short_commands_on_terminals_lose_nothing(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:

        async def run(number: int) -> None:
            async with bench.session(PTY, Exec(b"echo %d; exit %d" % (number, number))) as client:
                assert await client.wait() == Exit(number)
            assert client.stdout == b"%d\r\n" % number

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(run, number)


async def test_a_background_process_does_not_keep_a_terminals_channel(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        command = b"(trap '' HUP; while :; do echo noise; done) & echo pid $!; exit 2"
        async with bench.session(PTY, Exec(command)) as client:
            await client.until(b"pid ")
            pid = int(await client.until(b"\n"))
            assert await client.wait() == Exit(2)
        await bench.until_idle()
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_the_end_of_the_channel_hangs_the_terminal_up(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        await prompt(client)
        client.write(b"sleep 1000 & sh -c 'echo p\"\"id $0; exec sleep 999' $!\n")
        await client.until(b"pid ")
        job = int(await client.until(b"\r\n"))
        await client.close()
        await until_gone(job)
        await bench.until_idle()


async def test_a_job_that_ignores_hangups_survives(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Shell()) as client:
        await prompt(client)
        client.write(b"nohup sh -c 'echo p\"\"id $$ >/dev/tty; exec sleep 1000' >/dev/null 2>&1 &\n")
        await client.until(b"pid ")
        job = int(await client.until(b"\r\n"))
        await client.close()
        await bench.until_idle()
        assert alive(job)
        os.kill(job, signal.SIGKILL)


async def test_a_shell_on_a_terminal_that_a_signal_ends(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(PTY, Exec(b"kill -KILL $$")) as client:
        assert await client.wait() == ExitSignal("KILL")


def modes_after(modes: dict[int, int]) -> list[int | list[bytes | int]]:
    made = terminal.open_terminal(Pty("xterm", Size(), modes))
    try:
        found: list[int | list[bytes | int]] = termios.tcgetattr(made.slave)
        return found
    finally:
        os.close(made.master)
        os.close(made.slave)


def test_modes_are_set_as_asked() -> None:
    modes = {1: 24, 3: 8, 10: 255, 42: 1, 53: 0, 50: 1, 72: 0, 90: 1, 91: 1, 128: 38400, 129: 38400, 200: 7}
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = modes_after(modes)
    assert isinstance(iflag, int)
    assert isinstance(oflag, int)
    assert isinstance(cflag, int)
    assert isinstance(lflag, int)
    assert isinstance(characters, list)
    assert iflag & terminal.IUTF8
    assert not lflag & termios.ECHO
    assert lflag & termios.ISIG
    assert not oflag & termios.ONLCR
    assert cflag & termios.CSIZE == termios.CS8
    assert (ispeed, ospeed) == (termios.B38400, termios.B38400)
    assert characters[termios.VINTR] == b"\x18"
    assert characters[termios.VERASE] == b"\x08"
    assert characters[termios.VSUSP] == b"\0"


def test_any_modes_are_survived() -> None:
    for value in (0, 1, 255, 2**32 - 1):
        modes_after(dict.fromkeys(range(1, 256), value))
