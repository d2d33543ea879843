"""docs/security.md says which test fails without which defence: the tests and the files that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "security.md"
HERE = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))

ROW = re.compile(r"^\| (?P<pitfall>[^|]+) \| (?P<defence>[^|]+) \| (?P<tests>[^|]+) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(r"[a-z_]+(?:/[a-z_]+)*\.py")


def rows() -> dict[str, tuple[list[str], list[str]]]:
    """Pitfall -> files of the defence, tests; each test as file::name, or a name alone in the file named before it."""
    found = {}
    for row in ROW.finditer(DOCUMENT.read_text(encoding="utf-8")):
        if row["pitfall"].strip("- ") and row["pitfall"] != "Pitfall":
            files = [code for code in CODE.findall(row["defence"]) if FILE.fullmatch(code)]
            found[row["pitfall"]] = files, CODE.findall(row["tests"])
    return found


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@pytest.mark.parametrize("pitfall", rows())
def test_what_a_row_names_exists(pitfall: str) -> None:
    files, tests = rows()[pitfall]
    assert files, "a defence is in a file"
    assert tests, "a defence has a test"
    for file in files:
        assert (ROOT / "connect_trio" / file).is_file(), file
    for test in tests:
        file, _, name = test.partition("::")
        assert name in names_in(ROOT / "tests" / file), test


def test_every_test_here_is_in_the_table() -> None:
    named = {test for _, tests in rows().values() for test in tests}
    there = {f"security/{path.name}::{name}" for path in HERE for name in names_in(path)}
    assert there <= named, f"not in docs/security.md: {sorted(there - named)}"
