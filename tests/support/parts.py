"""Real parts for tests: ask for one by name, get its path, or have the test skipped and counted."""

from __future__ import annotations

import pytest

from tools.system_parts import PARTS, how_to_install, in_ci

REASON = "missing part: "


def require(name: str) -> str:
    """The path of a part in `tools/system_parts.py`, such as "redis-server" or "chromium".

    Without it the test is skipped; in CI it fails instead.
    """
    part = PARTS[name]
    path = part.find()
    if path is not None:
        return path
    if in_ci():
        pytest.fail(f"{REASON}{name}; `{how_to_install(part)}` installs it", pytrace=False)
    pytest.skip(f"{REASON}{name}")
