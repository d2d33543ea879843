"""The benchmarks run and say what they measured. How fast anything was is not looked at."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import idle_tunnels, ssh_edge, unretained
from benchmarks.load import LoadError, whole
from benchmarks.measure import Case, Row, Sample, run
from benchmarks.report import table
from benchmarks.targets import CannotMeasure, Target, relay_chain, tool
from connect_trio.mux.budget import Budget
from connect_trio.mux.halves import CHUNK, ChunkPool, SendHalf
from connect_trio.roles import dev_processes
from tests.support.parts import require

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["tool", "relay", "raw tunnel", "WebSocket"]
CASES = [
    "bulk down, one stream",
    "bulk up, one stream",
    "requests, 1 connection",
    "requests, 16 connections",
    "requests, 64 connections",
]
IDLE = {"tunnel, raw", "tunnel, WebSocket", "stream"}


@pytest.mark.redis
@pytest.mark.slow
def test_a_quick_run_prints_a_table_and_writes_everything_as_json(tmp_path: Path) -> None:
    require("redis-server")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert {"when", "machine", "options", "rows", "memory_kib"} == result.keys()
    assert [(row["case"], row["target"]) for row in result["rows"]] == [
        (case, target) for case in CASES for target in TARGETS
    ]
    for row in result["rows"]:
        assert row["median"] > 0
        assert row["ratio_to_relay"] > 0
        assert row["cpu_ratio_to_relay"] > 0
        assert len(row["rounds"]) == result["options"]["rounds"]
        assert (row["p50_ms"] is not None) == (row["added_p99_ms"] is not None) == (row["unit"] == "req/s")
        assert row["cpu"].keys() == ({"tool"} if row["target"] == "tool" else {"proxy", "server", "agent"})
    assert result["memory_kib"].keys() == IDLE
    for name in (*CASES, *TARGETS, *IDLE):
        assert name in done.stdout


@pytest.mark.redis
@pytest.mark.slow
def test_connect_is_compared_with_itself_without_retention(tmp_path: Path) -> None:
    require("redis-server")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--retention", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [(row["case"], row["target"]) for row in rows] == [
        (case, target) for case in CASES for target in ("unretained", "raw tunnel")
    ]
    assert all((row["ratio_to_unretained"] == 1) == (row["target"] == "unretained") for row in rows)
    assert "/ unretained" in done.stdout


def test_without_retention_nothing_is_kept_and_credit_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write", "write_chunk", "credit"):
        monkeypatch.setattr(SendHalf, name, getattr(SendHalf, name))  # to be put back
    unretained.keep_nothing()
    half = SendHalf(limit=1 << 20, allowance=1 << 19, budget=Budget())
    chunk = ChunkPool().take_chunk()
    half.write(1, b"123")
    half.write_chunk(1, chunk, CHUNK)
    assert (half.kept, chunk.refs) == ((), 1)
    assert half.room == (1 << 19) - CHUNK - 3
    half.credit(3, 1 << 20)
    assert half.room == (1 << 19) - CHUNK


def test_without_retention_all_roles_are_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = dev_processes.role_process("agent", {}, "--", "tool").command
    monkeypatch.setattr(dev_processes, "role_process", dev_processes.role_process)
    unretained.start_children_alike()
    theirs = dev_processes.role_process("agent", {}, "--", "tool").command
    assert theirs == [unretained.MODULE if part == "connect_trio" else part for part in ours]
    assert theirs != ours


def test_the_relay_chain_passes_what_the_tool_says() -> None:
    with (
        tool() as direct,
        relay_chain(direct.port) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as sock,
    ):
        sock.sendall(b"GET /down/100000 HTTP/1.1\r\n\r\n")
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 100_000:
            received += sock.recv(65536)
    assert received.partition(b"\r\n\r\n")[2] == (bytes(range(256)) * 400)[:100_000]


def test_an_answer_counts_when_its_last_byte_is_here() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n"
    assert not whole(head[:-1])
    assert not whole(head + b"x" * 35)
    assert whole(head + b"x" * 36)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 302 Found\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 37])
def test_an_answer_that_is_not_the_tools_is_an_error(answer: bytes) -> None:
    with pytest.raises(LoadError):
        whole(answer)


def test_a_target_that_is_not_there_ends_the_run_with_a_reason() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(CannotMeasure, match=r"bulk at nobody failed: .*refused"):
            run(Case(name="bulk", case="down", size=1), Target(name="nobody", port=nobody.getsockname()[1]))


def test_ratios_and_added_latency_compare_within_a_round() -> None:
    def samples(*rates: float, p50: float) -> tuple[Sample, ...]:
        return tuple(Sample(rate=rate, cpu={"proxy": 1.0}, p50=p50, p99=2 * p50) for rate in rates)

    row = Row(
        case=Case(name="requests", case="requests"),
        target="ours",
        samples=samples(50, 30, 10, p50=3),
        reference=samples(100, 60, 20, p50=2),
        direct=samples(200, 200, 200, p50=1),
    )
    assert row.ratios == [0.5, 0.5, 0.5]
    assert row.cpu_ratio == 1
    assert row.rate == 30
    assert row.noise == pytest.approx(2 / 3)
    assert (row.added("p50"), row.added("p99")) == (2, 4)
    assert "±67%" in table([row])


@pytest.mark.redis
@pytest.mark.slow
def test_the_time_to_add_a_route_is_told() -> None:
    require("redis-server")
    command = [sys.executable, "-m", "benchmarks.routes", "--routes", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["concurrent", "routes", "p50", "ms", "p99", "ms", "max", "ms"]
    assert [row[:2] for row in rows] == [["1", "2"], ["50", "50"]]
    assert all(float(figure) > 0 for row in rows for figure in row[2:])


@pytest.mark.redis
@pytest.mark.slow
def test_idle_tunnels_are_weighed_and_timed(tmp_path: Path) -> None:
    require("redis-server")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.idle_tunnels", "--tunnels", "20", "--settle", "0", "--seconds", "0.5"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())["idle_tunnels"]
    assert (figures["tunnels"], figures["lost"]) == (20, 0)
    assert 0 < figures["before"] <= figures["after"] <= figures["peak"]
    assert figures["idle"] > 0
    assert "20 idle tunnels" in done.stdout


def test_more_tunnels_than_files_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1000))
    assert idle_tunnels.main(["--tunnels", "900"]) == 1
    assert "may open 1000 files" in capsys.readouterr().err


@pytest.mark.redis
@pytest.mark.slow
def test_revocations_are_measured_for_each_cause_and_kind_of_stream(tmp_path: Path) -> None:
    require("redis-server")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.revocation", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = {(row["cause"], row["kind"]): row["seconds"] for row in json.loads(output.read_text())["rows"]}
    browsers, ssh = {"WebSocket", "response"}, {"SSH connection", "SSH channel"}
    whole = {*browsers, *ssh, "tunnel"}
    kinds = {"un-share": browsers | ssh, "logout": browsers, "stop": whole, "delete": whole, "key": ssh}
    assert found.keys() == {(cause, kind) for cause, ended in kinds.items() for kind in ended}
    assert all(len(seconds) == 6 for seconds in found.values())


@pytest.mark.redis
@pytest.mark.slow
def test_the_ssh_edge_keeps_its_caps_and_those_who_are_in(tmp_path: Path) -> None:
    for part in ("redis-server", "ssh"):
        require(part)
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.ssh_edge", "--output", str(output), "--settle", "0"]
    command += ["--connections", "100", "--channels", "5", "--busy", "4", "--half-open", "20", "--seconds", "0.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())["ssh_edge"]
    held, channels = figures["held"], figures["channels"]
    assert (held["connections"], held["next_status"]) == (100, 255)
    assert "there are too many connections (the limit is 100); try again later" in held["next_text"]
    assert (channels["open"], channels["echoed"], channels["echoed_after"], channels["refused"]) == (20, 20, 20, 4)
    assert channels["refusals"] == [
        "too many channels on this connection (the limit is 5); close some, or connect anew"
    ]
    for waits in (figures["quiet"], figures["flood"]):
        assert (waits["beside"], waits["live"]) == (50, 50)
        assert waits["key_count"] > 0
        assert waits["command_count"] > 0
    assert figures["flood"]["logins"] > 0
    assert figures["flood"]["standing"] + figures["flood"]["cut"] >= 20
    assert figures["logins"]["count"] > 0
    assert figures["bugs"] == []
    assert held["next_text"] in done.stdout


def test_fewer_ssh_connections_than_busy_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert ssh_edge.main(["--connections", "20", "--busy", "20"]) == 1
    assert "more than --busy" in capsys.readouterr().err
