"""One role as a process: signals and readiness."""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import attrs
import pytest
import trio

from connect_trio.roles.life import this_life
from connect_trio.roles.running import READY_FD, announcer, run_until_stopped
from connect_trio.roles.stopping import Farewell, run_with_farewell


@attrs.frozen
class Started:
    port: int


async def serve(*, task_status: trio.TaskStatus[Started]) -> None:
    task_status.started(Started(7070))
    await trio.sleep_forever()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_a_role(number: signal.Signals) -> None:
    await run_until_stopped(serve, announce=lambda started: os.kill(os.getpid(), number))


async def test_a_role_may_end_by_itself() -> None:
    async def brief(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    await run_until_stopped(brief)


async def test_an_error_of_a_role_comes_out() -> None:
    async def broken(*, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("no way")

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="no way"), flatten_subgroups=True):
        await run_until_stopped(broken)


def test_whoever_started_us_is_told_what_we_started_with() -> None:
    reading, writing = os.pipe()
    announcer("server", {READY_FD: str(writing)})(Started(7070))
    with os.fdopen(reading) as pipe:
        lines = pipe.readlines()  # to the end: the other end was closed
    assert [json.loads(line) for line in lines] == [{"role": "server", "pid": os.getpid(), "started": {"port": 7070}}]


def test_nobody_is_told_where_nobody_asked() -> None:
    announcer("server", {})(Started(7070))
    announcer("server", {READY_FD: "x"})(Started(7070))


def test_whoever_asked_and_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    announcer("server", {READY_FD: str(writing)})(Started(7070))


async def test_sighup_reads_anew_and_what_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    reloaded = trio.Event()

    def certificates() -> str:
        reloaded.set()
        return "valid until tomorrow"

    def level() -> str:
        raise OSError("no such file")

    async def role(*, task_status: trio.TaskStatus[None]) -> None:
        this_life().on_reload("certificates", certificates)
        task_status.started()
        os.kill(os.getpid(), signal.SIGHUP)
        await reloaded.wait()

    await run_until_stopped(role, reloads={"log level": level})
    told = [(record.message, vars(record)["what"]) for record in caplog.records]
    assert told == [("not reloaded: the old one stays", "log level"), ("reloaded", "certificates")]


async def test_a_second_signal_cuts_a_farewell_short() -> None:
    farewells: list[str] = []

    async def start(*, task_status: trio.TaskStatus[tuple[None, Farewell]]) -> None:
        async def farewell() -> None:
            try:
                farewells.append("begun")
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.sleep_forever()
            finally:
                farewells.append("cut")

        task_status.started((None, farewell))
        await trio.sleep_forever()

    with trio.fail_after(60):
        await run_until_stopped(
            partial(run_with_farewell, start), announce=lambda started: os.kill(os.getpid(), signal.SIGTERM)
        )
    assert farewells == ["begun", "cut"]


async def test_a_signal_before_the_start_is_over_ends_it() -> None:
    async def slow(*, task_status: trio.TaskStatus[None]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    with trio.fail_after(60):
        await run_until_stopped(slow, announce=lambda started: pytest.fail("it never started"))
