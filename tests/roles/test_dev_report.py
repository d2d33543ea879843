"""What is running, told to people, to programs and to whoever watches a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from connect_trio.roles.dev_report import Report, replace_file
from tests.roles.test_dev_plan import plan_of


def test_the_document_has_what_programs_need(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    report = Report(plan)
    for role in ("platform", "server", "proxy", "agent"):
        report.runs(role, 7)
    report.ready()
    document = json.loads(report.line())
    assert document["ready"] is True
    assert document["platform_url"] == plan.platform_url
    assert document["connect_url"] == plan.connect_url
    assert [set(session) >= {"id", "label", "url", "owner", "tool"} for session in document["sessions"]] == [True] * 2
    names = ["alice", "bob", "carol", "dave", "erin"]
    assert document["users"] == [{"username": name, "password": name} for name in names]
    assert document["pids"] == {"platform": [7], "server": [7], "proxy": [7], "agent": [7]}
    assert document["proxies"] == [f"http://127.0.0.1:{plan.port}"]


def test_the_line_is_one_line(tmp_path: Path) -> None:
    assert Report(plan_of(tmp_path, command=("sh", "a\nb"))).line().count("\n") == 1


def test_processes_are_listed_by_number_and_only_while_they_run(tmp_path: Path) -> None:
    report = Report(plan_of(tmp_path, processes=True, proxies=2))
    report.runs("proxy", 22, number=1)
    report.runs("proxy", 11, number=0)
    assert report.pids == {"proxy": [11, 22]}
    report.ended("proxy", number=0)
    assert report.pids == {"proxy": [22]}
    report.runs("proxy", 33, number=0)
    assert report.pids == {"proxy": [33, 22]}
    report.ended("agent", number=5)  # never ran: nothing to remove


def test_own_ports_of_the_proxies_are_listed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, proxies=2)
    assert Report(plan).document()["proxies"] == [f"http://127.0.0.1:{port}" for port in plan.extra_ports]


def test_management_is_listed_by_role_with_its_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, processes=True, servers=2)
    document = Report(plan).document()
    assert document["management"] == plan.management
    assert document["management_key"] == plan.management_key
    assert Report(plan_of(tmp_path)).document()["management_key"] is None


def test_the_state_file_follows_every_change(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    report = Report(plan_of(tmp_path, state=state))
    report.runs("server", 1)
    assert json.loads(state.read_text())["pids"] == {"server": [1]}
    report.ready()
    assert json.loads(state.read_text())["ready"] is True
    report.runs("server", 2)
    assert json.loads(state.read_text())["pids"] == {"server": [2]}
    report.stopped()
    assert json.loads(state.read_text()) == json.loads(report.line())
    assert not json.loads(state.read_text())["ready"]


def test_a_reader_of_a_replaced_file_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, "old")
    with path.open() as reader:
        replace_file(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["state.json"]
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_cannot_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "state.json", "text")
    assert os.listdir(tmp_path) == ["state.json"]


def test_people_are_told_where_to_click_whom_to_log_in_as_and_how_to_stop(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    text = Report(plan).greeting()
    for part in (plan.connect_url, plan.platform_url, "alice, password alice", "Ctrl-C", str(tmp_path)):
        assert part in text
    assert all(plan.studio_url(studio) in text for studio in plan.studios)
