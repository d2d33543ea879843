"""`python -m connect_trio dev` as its users run it: from its start to its end, in one process and in many."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.e2e import wait_until
from tests.support.parts import require

PATIENCE = 60.0
"""Seconds for anything at all; nothing here measures time."""


@contextmanager
def dev(*arguments: str, state: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running stack on free ports, and what it said when it was ready."""
    command = [sys.executable, "-m", "connect_trio", "dev", "--port", "0", "--platform-port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--state", str(state), *arguments], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "null")
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def pids_of(document: dict[str, Any]) -> list[int]:
    return [pid for pids in document["pids"].values() for pid in pids]


def assert_end(pids: Sequence[int]) -> None:
    """Wait until the processes are gone."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = select.select([descriptor], [], [], PATIENCE)[0]
        os.close(descriptor)
        assert ended, f"process {pid} is still there"


def status_of(url: str, *, via: str | None = None) -> int:
    """The status of a plain request; names under localhost are this machine. via: the proxy to ask, as a URL."""
    parts, asked = urlsplit(url), urlsplit(via or url)
    headers = {"Host": parts.netloc, "Accept": "text/html"}
    request = urllib.request.Request(f"http://127.0.0.1:{asked.port}{parts.path}", headers=headers)
    opener = urllib.request.build_opener(NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_process_runs_until_a_signal_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state.json"
    tool = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}")
    with dev("--root", str(tmp_path), "--", *tool, state=state) as (process, document):
        assert document["ready"] is True
        assert set(pids_of(document)) == {process.pid}
        assert json.loads(state.read_text()) == document
        assert status_of(document["platform_url"]) < 400
        # Whoever is not logged in is sent to do so.
        assert [status_of(session["url"]) for session in document["sessions"]] == [302, 302]
        file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = wait_until(
            lambda: found if len(found := file.read_text().split()) == 2 else None, "a tool for each session"
        )
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, rest) == (0, ""), "one line on stdout, and no other"
    assert_end([int(child) for child in children])
    assert json.loads(state.read_text())["ready"] is False


def test_a_tool_that_dies_at_once_leaves_the_stack_running_and_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "connect_trio", "dev", "--port", "0", "--platform-port", "0", "--json"]
    process = subprocess.Popen(
        [*command, "--", "false"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stderr is not None
    document = json.loads(process.stdout.readline())
    told = 0
    while told < 2:  # one tool for each Studio
        line = process.stderr.readline()
        assert line, "dev has ended too"
        told += "the tool has ended" in line
    assert status_of(document["connect_url"] + "/") < 500
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.redis
@pytest.mark.slow
def test_many_processes_share_the_port_and_a_killed_one_comes_back(tmp_path: Path) -> None:
    require("redis-server")
    state = tmp_path / "state.json"
    with dev("--processes", "--servers", "2", "--proxies", "2", state=state) as (process, document):
        wanted = {"redis": 1, "platform": 1, "server": 2, "proxy": 2, "agent": 2}
        pids = wait_until(lambda: running(state, wanted), "agents, which may be late")
        document["pids"] = pids
        studio = document["sessions"][0]["url"]
        assert [status_of(studio, via=proxy) for proxy in (document["connect_url"], *document["proxies"])] == [302] * 3
        os.kill(pids["server"][0], signal.SIGKILL)
        now = wait_for_change(state, document)
        assert now["pids"]["server"][1] == pids["server"][1]
        assert now["pids"]["server"][0] != pids["server"][0]
        process.terminate()
        rest, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, rest) == (0, "")
    assert_end(pids_of(now))


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals orphans")
def test_no_process_outlives_a_stack_that_is_killed_outright(tmp_path: Path) -> None:
    require("redis-server")
    with dev("--processes", state=tmp_path / "state.json") as (process, document):
        process.kill()
        process.wait()
    assert_end(pids_of(document))


def running(state: Path, wanted: dict[str, int]) -> dict[str, list[int]] | None:
    """The processes of each role, once there are so many."""
    pids: dict[str, list[int]] = json.loads(state.read_text())["pids"]
    return pids if {role: len(numbers) for role, numbers in pids.items()} == wanted else None


def wait_for_change(state: Path, before: dict[str, Any]) -> dict[str, Any]:
    """The state once as many processes run as before, and not the same."""
    for _ in range(int(PATIENCE / 0.05)):
        now: dict[str, Any] = json.loads(state.read_text())
        if now["pids"] != before["pids"] and len(pids_of(now)) == len(pids_of(before)):
            return now
        select.select([], [], [], 0.05)
    pytest.fail(f"nothing came back: {now['pids']}")
