"""Whenever a session is cancelled or cut, nothing of it is left: no process, no descriptor, no memory."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from connect_trio.agent.shell.memory import BASE, MOST, SPARE, Memory
from connect_trio.channels.messages import Exec, Exit, Failed, Frame, Shell, Subsystem
from tests.support.channels import PTY, shell_bench

ORDERS: dict[str, tuple[Frame, ...]] = {
    "command": (Exec(b"echo started; exec cat"),),
    "short command": (Exec(b"echo started"),),
    "terminal": (PTY, Exec(b"echo started; exec cat")),
    "shell": (PTY, Shell()),
    "failure": (Subsystem("none"),),
}
STEPS = range(120) if os.environ.get("CONNECT_E2E_FULL") else (*range(16), *range(16, 120, 12))


def children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def nothing_left() -> Iterator[None]:
    gc.collect()
    before = len(descriptors())
    assert not children()
    yield
    gc.collect()
    assert not children()
    assert len(descriptors()) <= before


async def pass_steps(steps: int) -> None:
    """Let everybody else go on so many times, and processes start meanwhile."""
    for _ in range(steps):
        await trio.sleep(0.0002)


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("how", ["agent", "reset", "close"])
async def test_a_session_that_ends_anywhere_leaves_nothing(
    kind: str, how: str, tmp_path: Path, nothing_left: None
) -> None:
    for steps in STEPS:
        async with shell_bench(tmp_path) as bench, bench.session(*ORDERS[kind]) as client:
            client.write(b"x" * steps)
            await pass_steps(steps)
            if how == "agent":
                bench.scope.cancel()
            elif how == "reset":
                client.stream.reset("gone")
            else:
                await client.close()
            with trio.CancelScope(shield=True):
                await bench.until_idle()
            assert not children()
            assert bench.server._memory.spare == SPARE
            bench.scope.cancel()


@pytest.mark.parametrize(
    ("where", "order", "says"),
    [
        ("subprocess.Popen", (Exec(b"true"),), "too many files open"),
        ("subprocess.Popen", (PTY, Exec(b"true")), "too many files open"),
        ("os.pipe", (Exec(b"true"),), "too many files open"),
        ("os.openpty", (PTY, Exec(b"true")), "no terminal can be had: Too many open files"),
    ],
)
async def test_what_cannot_be_had_is_told_and_leaves_nothing(
    where: str,
    order: tuple[Frame, ...],
    says: str,
    tmp_path: Path,
    nothing_left: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with shell_bench(tmp_path) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            async with bench.session(*order) as client:
                how = await client.wait()
        assert isinstance(how, Failed)
        assert says in how.reason
        assert (await bench.run("true")).how == Exit(0)


def test_windows_for_stdin_grow_within_what_is_spare() -> None:
    memory = Memory(spare=3 * BASE)
    assert memory.grow(BASE) == 2 * BASE
    assert memory.grow(2 * BASE) == 4 * BASE
    assert memory.grow(BASE) == BASE
    memory.give_back(4 * BASE)
    assert memory.spare == 3 * BASE


def test_a_window_for_stdin_has_an_end() -> None:
    memory, window = Memory(), BASE
    for _ in range(20):
        window = memory.grow(window)
    assert window == MOST
