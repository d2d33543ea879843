from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
import trio

from connect_trio.channels.messages import Env, Exec, Exit, ExitSignal, Failed, Shell, Subsystem
from tests.support.channels import PATIENCE, alive, shell_bench, until_gone

SHORT_ONES = 1000 if os.environ.get("CONNECT_E2E_FULL") else 100

LIBC = 0b11 << 31  # signals 32 and 33, which the C library keeps for itself: nobody can set them through it


async def test_a_command_has_its_output_its_errors_and_its_status_apart(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("echo out; echo err >&2; pwd; exit 7")
        assert client.how == Exit(7)
        assert client.stdout == f"out\n{tmp_path}\n".encode()
        assert client.stderr == b"err\n"


async def test_the_last_word_is_behind_all_output(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3")
        assert (len(client.stdout), len(client.stderr), client.how) == (300000, 200000, Exit(3))
        names = [type(frame).__name__ for frame in client.heard if type(frame).__name__ != "Window"]
        assert names[0] == "Started"
        assert names[-2:] == ["Eof", "Exit"]


async def test_no_short_command_loses_a_byte(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:

        async def run(numbers: range) -> None:
            for number in numbers:
                client = await bench.run(f"echo {number}; echo e{number} >&2; exit {number % 256}")
                assert client.stdout == f"{number}\n".encode()
                assert client.stderr == f"e{number}\n".encode()
                assert client.how == Exit(number % 256)

        async with trio.open_nursery() as nursery:
            for start in range(8):
                nursery.start_soon(run, range(start, SHORT_ONES, 8))
        await bench.until_idle()


async def test_a_slow_reader_gets_everything_and_bounds_what_is_sent(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        async with bench.session(Exec(b"seq 1 200000"), window=10_000) as client:
            client.paused = True
            with trio.fail_after(PATIENCE):
                while client.end.receiving.outstanding or not client.heard:
                    await trio.sleep(0.01)
            assert len(client.stdout) == 10_000
            client.resume()
            assert await client.wait() == Exit(0)
        assert client.stdout == b"".join(b"%d\n" % number for number in range(1, 200001))


async def test_stdin_is_read_to_its_end_and_output_goes_on(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("sha256sum; echo after", data)
    assert client.stdout == f"{hashlib.sha256(data).hexdigest()}  -\nafter\n".encode()


async def test_both_directions_at_once(tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("cat", data)
    assert client.stdout == data


async def test_a_command_that_does_not_read_its_stdin_ends_all_the_same(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("exec true", bytes(3_000_000))
        assert client.how == Exit(0)
        client = await bench.run("exec <&-; sleep 0.2; echo done", bytes(3_000_000))
        assert client.stdout == b"done\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "KILL", "USR1"])
async def test_a_signal_is_delivered_and_told_when_it_ends_the_process(name: str, tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Exec(b"echo ready; exec sleep 1000")) as client:
        await client.until(b"ready\n")
        client.signal("WINCH@example.com")
        client.signal("NONSENSE")
        client.signal(name)
        assert await client.wait() == ExitSignal(name)


async def test_a_signal_overtakes_stdin_that_nobody_reads(tmp_path: Path) -> None:
    async with (
        shell_bench(tmp_path) as bench,
        bench.session(Exec(b"trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")) as c,
    ):
        await c.until(b"ready\n")
        c.write(bytes(10_000_000))
        with trio.fail_after(PATIENCE):
            while c.end.sending.room:
                await trio.sleep(0.01)
        assert c.outbox.waiting > 0
        c.signal("TERM")
        assert await c.wait() == Exit(5)
        assert c.stdout == b"got it\n"


async def test_a_signal_without_a_name_in_ssh_is_a_status(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("kill -TRAP $$")
        assert client.how == Exit(128 + signal.SIGTRAP)


async def test_a_background_process_that_keeps_stdout_keeps_the_channel(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        client = await bench.run("(sleep 0.3; echo late) & echo early; exit 4")
        assert client.stdout == b"early\nlate\n"
        assert client.how == Exit(4)


async def test_a_daemon_survives_the_end_of_its_channel_and_of_its_shell(tmp_path: Path) -> None:
    daemon = "nohup setsid sh -c 'echo $$; exec sleep 1000 </dev/null >/dev/null 2>&1' &"
    async with shell_bench(tmp_path) as bench:
        client = await bench.run(daemon)
        assert client.how == Exit(0)
        async with bench.session(Exec(f"{daemon} sleep 1000".encode())) as cut:
            other = int(await cut.until(b"\n"))
            await cut.close()
            await bench.until_idle()
        daemons = [int(client.stdout), other]
        try:
            assert all(map(alive, daemons))
        finally:
            for pid in daemons:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_process_ends_with_its_channel_though_its_stdin_is_stuck(how: str, tmp_path: Path) -> None:
    command = Exec(b"echo $$; sleep 1000; echo not reached")
    async with shell_bench(tmp_path) as bench, bench.session(command) as client:
        pid = int(await client.until(b"\n"))
        client.write(bytes(10_000_000))
        with trio.fail_after(PATIENCE):
            while client.end.sending.room or not client.outbox.waiting:
                await trio.sleep(0.01)
        if how == "close":
            await client.close()
        else:
            client.stream.reset("gone")
        await until_gone(pid)
        await bench.until_idle()


@pytest.mark.slow
async def test_what_ignores_hangup_and_term_is_killed(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        command = b"trap '' HUP TERM; echo $$; while :; do sleep 0.05; done"
        async with bench.session(Exec(command)) as client:
            pid = int(await client.until(b"\n"))
            await client.close()
            await until_gone(pid)


async def test_the_whole_group_is_hung_up(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Exec(b"sleep 1000 & echo $!; wait")) as client:
        child = int(await client.until(b"\n"))
        await client.close()
        await until_gone(child)


async def test_the_agents_end_leaves_no_orphan(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Exec(b"echo $$; cat")) as client:
        pid = int(await client.until(b"\n"))
        bench.scope.cancel()
        await until_gone(pid)


async def test_a_shell_without_a_terminal_reads_its_script_from_stdin(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Shell()) as client:
        client.write(b"echo $((6 * 7))\nexit 9\n")
        assert await client.wait() == Exit(9)
        assert client.stdout == b"42\n"


async def test_the_environment_is_the_tools_with_what_a_client_may_set(tmp_path: Path) -> None:
    env = [Env("LANG", b"C.UTF-8"), Env("LC_TIME", b"\xff"), Env("LD_PRELOAD", b"/x.so"), Env("PATH", b"/evil")]
    env += [Env("GIT_PROTOCOL", b"version=2"), Env("CONNECT_X", b"1"), Env("FOO", b"1"), Env("BASH_ENV", b"/x")]
    async with shell_bench(tmp_path, TOOL="yes", SSH_AUTH_SOCK="/agents/own") as bench:
        client = await bench.run("env -0", b"", *env)
    found = dict(line.split(b"=", 1) for line in bytes(client.stdout).split(b"\0") if line)
    assert found[b"LANG"] == b"C.UTF-8"
    assert found[b"LC_TIME"] == b"\xff"
    assert found[b"GIT_PROTOCOL"] == b"version=2"
    assert found[b"TOOL"] == b"yes"
    assert found[b"SSH_CONNECTION"] == b"203.0.113.7 51234 10.0.0.2 2222"
    assert found[b"SSH_CLIENT"] == b"203.0.113.7 51234 2222"
    assert found[b"HOME"] == os.fsencode(tmp_path)
    assert found[b"PATH"] == os.fsencode(os.environ["PATH"])
    assert not found.keys() & {b"LD_PRELOAD", b"CONNECT_X", b"FOO", b"BASH_ENV", b"SSH_AUTH_SOCK", b"TERM", b"SSH_TTY"}


async def test_signals_that_the_agent_ignores_are_not_ignored_in_sessions(tmp_path: Path) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGQUIT, signal.SIGTSTP)}
    try:
        async with shell_bench(tmp_path) as bench:
            client = await bench.run("grep -E '^Sig(Ign|Blk)' /proc/self/status")
        assert all(signal.getsignal(number) is signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    blocked, ignored = (int(line.split()[1], 16) for line in bytes(client.stdout).splitlines())
    assert (blocked & ~LIBC, ignored & ~LIBC) == (0, 0)


async def test_tiny_pieces_of_stdin_are_kept_as_bytes(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Exec(b"sleep 0.3; wc -c")) as client:
        for _ in range(2000):
            client.write(b"ab")
            await trio.lowlevel.checkpoint()
        client.write_eof()
        assert await client.wait() == Exit(0)
    assert client.stdout.split() == [b"4000"]


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    async with shell_bench(tmp_path, sftp_server=tmp_path / "none") as bench:
        for order, says in ((Subsystem("sftp"), "openssh-sftp-server"), (Subsystem("netconf"), "no subsystem netconf")):
            async with bench.session(order) as client:
                how = await client.wait()
            assert isinstance(how, Failed)
            assert says in how.reason
    async with shell_bench(tmp_path, shell=tmp_path / "none") as bench:
        client = await bench.run("true")
        assert isinstance(client.how, Failed)
        assert "the shell of this Studio's settings" in client.how.reason
    async with shell_bench(tmp_path) as bench:
        tmp_path.joinpath("gone").mkdir()
        bench.server._setup = type(bench.server._setup)(environ={}, folder=tmp_path / "away", shell=Path("/bin/sh"))
        client = await bench.run("true")
        assert isinstance(client.how, Failed)
        assert "away is not there" in client.how.reason


async def test_a_breach_of_the_protocol_ends_the_channel_and_its_process(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench, bench.session(Exec(b"echo $$; sleep 1000")) as client:
        pid = int(await client.until(b"\n"))
        await client.stream.send_all(b"\x05\0\0\x04true")
        with trio.fail_after(PATIENCE):
            await client.finished.wait()
        assert client.reset == "EXEC is not for the proxy to say now"
        await until_gone(pid)


async def test_channels_are_counted(tmp_path: Path) -> None:
    async with shell_bench(tmp_path, max_channels=1) as bench:
        async with bench.session(Exec(b"echo ready; cat")) as client:
            await client.until(b"ready\n")
            async with bench.session(Exec(b"true")) as other:
                with trio.fail_after(PATIENCE):
                    await other.finished.wait()
                assert other.reset == "this Studio has 1 SSH channels open already"
            client.write_eof()
            assert await client.wait() == Exit(0)
        await bench.until_idle()
        assert (await bench.run("true")).how == Exit(0)


async def test_another_version_is_refused(tmp_path: Path) -> None:
    async with shell_bench(tmp_path) as bench:
        stream = bench.open("session", {"version": "99"})
        with pytest.raises(trio.BrokenResourceError, match="speaks version 1 of channels, not 99"):
            await stream.wait_accepted()
