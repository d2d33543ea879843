"""Children end when they are told to, and with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from connect_trio.children import CannotStart, Child, start_child


def python(code: str, *, env: dict[str, str] | None = None) -> Child:
    return start_child([sys.executable, "-c", code], env=env or dict(os.environ))


async def read_pipe(reading: int) -> bytes:
    async with trio.lowlevel.FdStream(reading) as stream:
        return await stream.receive_some()


async def test_a_child_reports_its_exit_code() -> None:
    child = python("raise SystemExit(7)")
    assert await child.wait() == 7
    assert child.exit_code == 7
    assert await child.wait() == 7


async def test_several_tasks_may_wait_for_one_child() -> None:
    child = python("input()")  # there is no input, so this fails at once
    codes = []

    async def wait() -> None:
        codes.append(await child.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    assert codes == [1, 1]


async def test_a_child_that_obeys_is_stopped_by_sigterm() -> None:
    child = start_child(["sleep", "60"], env=os.environ)
    assert await child.stop(grace=60) == -signal.SIGTERM


async def test_a_child_that_does_not_obey_is_killed() -> None:
    reading, writing = os.pipe()
    code = (
        "import signal, os, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"os.write({writing}, b'deaf'); time.sleep(60)"
    )
    child = start_child([sys.executable, "-c", code], env=os.environ, pass_fds=[writing])
    os.close(writing)
    assert await read_pipe(reading) == b"deaf"
    assert await child.stop(grace=0.05) == -signal.SIGKILL


async def test_stopping_works_while_cancelled() -> None:
    child = start_child(["sleep", "60"], env=os.environ)
    with trio.CancelScope() as scope:
        scope.cancel()
        await child.stop(grace=60)
    assert child.exit_code == -signal.SIGTERM


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="there is no program no-such-program: install it"):
        start_child(["no-such-program"], env=os.environ)
    with pytest.raises(CannotStart, match=r"there is no program \./tool"):
        start_child(["./tool"], env=os.environ, cwd=tmp_path)


async def test_a_program_that_cannot_be_run_ends_with_127(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    assert await start_child([str(program)], env=os.environ).wait() == 127


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals orphans")
async def test_a_child_dies_with_a_parent_that_is_killed_outright() -> None:
    reading, writing = os.pipe()
    child_code = f"import os, time; os.write({writing}, b'up'); time.sleep(60)"
    parent_code = (
        "import os, sys, trio\n"
        "from connect_trio.children import start_child\n"
        "async def main():\n"
        f"    start_child([sys.executable, '-c', {child_code!r}], env=os.environ, pass_fds=[{writing}])\n"
        "    await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code], pass_fds=[writing])
    os.close(writing)
    async with trio.lowlevel.FdStream(reading) as stream:
        assert await stream.receive_some() == b"up"
        parent.kill()
        parent.wait()
        # The child holds the other end of the pipe: its end is the child's.
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
