"""docs/configuration.md says of each variable what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from connect_trio.config import NOT_READ, ROLES, Variable, variables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
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


def test_variables_that_are_not_read_are_listed() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Not read yet")[2].partition("\n## ")[0]
    assert re.findall(r"`(\w+)`", section) == list(NOT_READ)


def test_no_variable_is_mentioned_that_does_not_exist() -> None:
    known = {spec.name for settings in ROLES.values() for _, spec in variables(settings)} | set(NOT_READ)
    mentioned = set(re.findall(r"\b(?:CONNECT|PLATFORM|LOCAL)_[A-Z0-9_]+[A-Z0-9]\b", PAGE.read_text(encoding="utf-8")))
    assert mentioned <= known
