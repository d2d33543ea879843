"""docs/configuration.md says of each variable what the code says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from connect_trio.config import NOT_READ, ROLES, Variable, names, variables

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
NAME = re.compile(r"(?<![\w])(?:CONNECT|PLATFORM|LOCAL|TOWER)_[A-Z0-9_]+[A-Z0-9]\b")

# Of tests and benchmarks, or between processes of ours; docs for contributors speak of them.
INTERNAL = {"CONNECT_READY_FD", "CONNECT_E2E_FULL", "CONNECT_TEST_PLATFORM"}
TYPOS = {"CONNECT_LISTENR_PORT"}  # in an example of what is said about them
COLUMNS = "| variable | default | read by | meaning |\n|---|---|---|---|\n"


def default_of(spec: Variable) -> str:
    if spec.required:
        return "required"
    return f"`{spec.default}`" if spec.default else "-"


def table() -> str:
    """The table as the code would write it: in the order of roles and fields, equal variables of roles in one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for role, settings in ROLES.items():
        for _, spec in variables(settings):
            name = f"`{spec.name}`{' *' if spec.addition else ''}"
            rows.setdefault((name, default_of(spec), spec.meaning), []).append(role)
    lines = (
        f"| {name} | {default} | {', '.join(roles)} | {meaning} |" for (name, default, meaning), roles in rows.items()
    )
    return COLUMNS + "\n".join(lines) + "\n"


def test_the_table_of_variables_is_the_one_of_the_code() -> None:
    expected = table()
    assert expected in PAGE.read_text(encoding="utf-8"), f"docs/configuration.md should have this table:\n{expected}"


def test_each_row_of_the_page_is_a_variable_of_the_code() -> None:
    """The other way: no row is left of a variable that is gone, or of an older default beside the new one."""
    row = re.compile(r"^\| `(?:CONNECT|PLATFORM|LOCAL|TOWER)_.*\|$", re.M)
    assert Counter(row.findall(PAGE.read_text(encoding="utf-8"))) == Counter(row.findall(table()))


def test_each_role_reads_each_of_its_variables_once() -> None:
    for settings in ROLES.values():
        read = Counter(names(settings))
        assert set(read.values()) == {1}, read


def test_variables_that_are_not_read_are_listed() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Not read yet")[2].partition("\n## ")[0]
    assert re.findall(r"`(\w+)`", section) == list(NOT_READ)


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_no_variable_is_mentioned_that_does_not_exist(page: Path) -> None:
    known = {name for settings in ROLES.values() for name in names(settings)} | set(NOT_READ)
    mentioned = set(NAME.findall(page.read_text(encoding="utf-8")))
    assert mentioned - TYPOS <= (known if page == PAGE else known | INTERNAL)
