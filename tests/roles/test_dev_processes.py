"""Processes that are kept running, and the Redis they share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from connect_trio.ports import free_ports
from connect_trio.roles import dev_processes
from connect_trio.roles.dev_plan import CannotRun
from connect_trio.roles.dev_processes import (
    Lasting,
    Process,
    agent_processes,
    base_processes,
    check_redis,
    keep_running,
    platform_process,
    redis_answers,
    redis_process,
    run_once,
)
from connect_trio.roles.dev_report import Report
from tests.roles.test_dev_plan import plan_of
from tests.support.parts import require

READY = "import os, time; os.write(int(os.environ['CONNECT_READY_FD']), b'{}\\n'); "


def python(code: str, *, vital: bool = True) -> Process:
    return Process(role="server", command=[sys.executable, "-c", code], env=os.environ, vital=vital)


def report_of(tmp_path: Path) -> Report:
    return Report(plan_of(tmp_path, processes=True))


async def test_a_process_counts_once_it_says_that_it_is_ready(tmp_path: Path) -> None:
    report, seen = report_of(tmp_path), []
    end = await run_once(python(READY), report, lambda: seen.append(report.pids["server"]))
    assert end == "exited with code 0"
    assert len(seen[0]) == 1
    assert report.pids == {"server": []}


async def test_a_process_that_ends_before_it_is_ready_never_counts(tmp_path: Path) -> None:
    end = await run_once(python("raise SystemExit(3)"), report_of(tmp_path), lambda: pytest.fail("never ready"))
    assert end == "exited with code 3"


async def test_a_vital_process_that_never_gets_ready_is_an_error(tmp_path: Path, nursery: trio.Nursery) -> None:
    with pytest.raises(CannotRun, match="server 1 exited with code 3 before it was ready"):
        await nursery.start(keep_running, python("raise SystemExit(3)"), report_of(tmp_path))


async def test_a_process_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_processes, "READY_WITHIN", 0.05)
    end = await run_once(python("import time; time.sleep(60)"), report_of(tmp_path), lambda: None)
    assert end == "was not ready within 0.05 s"


async def test_a_process_that_is_killed_is_started_again(tmp_path: Path, nursery: trio.Nursery) -> None:
    report = report_of(tmp_path)
    send, receive = trio.open_memory_channel[int](10)
    process = python(READY + "time.sleep(60)")
    nursery.start_soon(keep_running, process, report, lambda: send.send_nowait(report.pids["server"][0]))
    first = await receive.receive()
    os.kill(first, signal.SIGKILL)
    second = await receive.receive()
    assert second != first
    nursery.cancel_scope.cancel()


async def test_a_process_that_is_not_vital_is_tried_again(tmp_path: Path, nursery: trio.Nursery) -> None:
    flag, ready = tmp_path / "second", trio.Event()
    code = f"import pathlib, sys; f = pathlib.Path({str(flag)!r}); f.exists() or sys.exit(f.write_text('')); "
    process = python(code + READY + "time.sleep(60)", vital=False)
    nursery.start_soon(keep_running, process, report_of(tmp_path), ready.set)
    await ready.wait()
    nursery.cancel_scope.cancel()


async def test_cancelling_ends_the_process(tmp_path: Path) -> None:
    report, pids = report_of(tmp_path), []
    async with trio.open_nursery() as nursery:
        await nursery.start(keep_running, python(READY + "time.sleep(60)"), report)
        pids = list(report.pids["server"])
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_what_lasts_ends_after_all_others(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    lasting = Lasting(report)
    async with trio.open_nursery() as nursery:
        await lasting.start(nursery, python(READY + "time.sleep(60)"))
        (pid,) = report.pids["server"]
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)  # in which others would take their leave
        os.kill(pid, 0)
        lasting.end()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_lasts_can_be_cancelled_while_it_starts(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    with trio.move_on_after(0.1):
        async with trio.open_nursery() as nursery:
            await Lasting(report).start(nursery, python("import time; time.sleep(60)"))
    assert report.pids.get("server", []) == []


def test_every_role_has_its_processes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, servers=2, proxies=3, command=("/bin/sh", "tool", "--port", "{port}"))
    assert [process.role for process in base_processes(plan)] == ["server"] * 2 + ["proxy"] * 3
    assert platform_process(plan).role == "platform"
    for process in agent_processes(plan):
        assert list(process.command)[-6:] == ["agent", "--", "/bin/sh", "tool", "--port", "{port}"]


@pytest.mark.redis
async def test_our_own_redis_answers_when_it_counts_as_ready(tmp_path: Path, nursery: trio.Nursery) -> None:
    require("redis-server")
    plan = plan_of(tmp_path, processes=True)
    assert plan.redis_port is not None
    await nursery.start(keep_running, redis_process(plan, plan.redis_port), Report(plan))
    await redis_answers("127.0.0.1", plan.redis_port)
    await check_redis(plan.redis_address)
    nursery.cancel_scope.cancel()


async def test_a_redis_that_is_not_there_is_one_clear_line() -> None:
    port = free_ports(1)[0]
    with pytest.raises(CannotRun, match=rf"no Redis at 127.0.0.1:{port} .*start it, or leave --redis out"):
        await check_redis(f"127.0.0.1:{port}")


async def test_what_is_no_redis_is_told_so(nursery: trio.Nursery) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example\r\n")

    listeners = await nursery.start(
        lambda task_status: trio.serve_tcp(greet, 0, host="127.0.0.1", task_status=task_status)
    )
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(CannotRun, match="what answers is no Redis"):
        await check_redis(f"127.0.0.1:{port}")
    nursery.cancel_scope.cancel()


def test_a_missing_redis_server_is_one_clear_line(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True)
    object.__setattr__(plan, "environ", {"PATH": str(tmp_path)})
    with pytest.raises(CannotRun, match="no redis-server: install it, or name a Redis with --redis"):
        redis_process(plan, 1)
