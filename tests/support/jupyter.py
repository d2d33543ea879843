"""A real JupyterLab as the tool of a stack."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.e2e import ROOT, DevStack, dev_stack, with_tool
from tools.system_parts import in_ci

START = 60_000
"""Milliseconds: the first start of a fresh installation compiles it all."""

# What the README's line does not need, but a test that runs as root and asks nobody outside.
_BESIDES = ["--allow-root", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
_FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")


@contextmanager
def jupyter_stack(mode: str, folder: Path, *, name: str, env: dict[str, str]) -> Iterator[DevStack]:
    """A stack whose Studios are JupyterLab with a file "alices-data.csv"; see `dev_stack`. folder: an empty one."""
    if importlib.util.find_spec("jupyterlab") is None:
        (pytest.fail if in_ci() else pytest.skip)("there is no JupyterLab: `make test` installs it")
    root = folder / "studio"
    root.mkdir()
    (root / "alices-data.csv").write_text("a,b\n1,2\n")
    # Nobody's own settings count, and none are left behind.
    own = {variable: str(folder / variable.lower()) for variable in _FOLDERS}
    with dev_stack(*with_tool(mode, [*_command(), *_BESIDES]), root=root, name=name, env=own | env) as stack:
        yield stack


def _command() -> list[str]:
    """As the README says that it is started."""
    line = re.search(r'^make dev ARGS="-- (jupyter .*)"$', (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    return line[1].split()
