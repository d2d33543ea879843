"""Much at once, carried by curl through the whole path to the integrated file server and back."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.e2e import FULL, MODES, DevStack, MiB, dev_stack
from tests.support.parts import require
from tests.support.visits import HERE, Visitor

SIZE = (1024 if FULL else 64) * MiB
WARM = 8 * MiB
GROWTH = 64 * MiB
"""What each process may grow by, whatever passes through it."""

ROLES = ("proxy", "server", "agent")
TIMEOUT = 600


@pytest.fixture(scope="module")
def stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    require("curl")
    root = tmp_path_factory.mktemp("bulk")
    with dev_stack(*MODES[mode], root=root, name=f"bulk-{mode}") as stack:
        yield stack


@pytest.fixture
def alice(stack: DevStack) -> Visitor:
    visitor = Visitor()
    visitor.log_in(stack.private["url"], "alice")
    return visitor


def test_a_download_arrives_whole_and_nobody_keeps_it(stack: DevStack, alice: Visitor, tmp_path: Path) -> None:
    expected = make_file(stack.root / "down.bin", SIZE)
    make_file(stack.root / "warm.bin", WARM)
    curl(alice, stack.private["url"] + "warm.bin", "--output", os.devnull)
    before = start_measuring(stack)
    arrived = tmp_path / "down.bin"
    curl(alice, stack.private["url"] + "down.bin", "--output", str(arrived))
    assert grown(stack, before) == []
    assert digest(arrived) == expected


def test_an_upload_arrives_whole_and_nobody_keeps_it(stack: DevStack, alice: Visitor, tmp_path: Path) -> None:
    expected = make_file(tmp_path / "up.bin", SIZE)
    make_file(tmp_path / "warm-up.bin", WARM)
    curl(alice, stack.private["url"], "--upload-file", str(tmp_path / "warm-up.bin"))
    before = start_measuring(stack)
    curl(alice, stack.private["url"], "--upload-file", str(tmp_path / "up.bin"))
    assert grown(stack, before) == []
    assert digest(stack.root / "up.bin") == expected


def test_an_upload_of_unknown_length_arrives_whole(stack: DevStack, alice: Visitor, tmp_path: Path) -> None:
    expected = make_file(tmp_path / "piped.bin", WARM)
    with (tmp_path / "piped.bin").open("rb") as source:
        url = stack.private["url"] + "piped.bin"
        curl(alice, url, "--upload-file", "-", "--header", "Transfer-Encoding: chunked", source=source.fileno())
    assert digest(stack.root / "piped.bin") == expected


def test_a_part_of_a_file_is_that_part(stack: DevStack, alice: Visitor, tmp_path: Path) -> None:
    make_file(stack.root / "whole.bin", WARM)
    curl(alice, stack.private["url"] + "whole.bin", "--range", "1000000-1999999", "--output", str(tmp_path / "part"))
    assert (tmp_path / "part").read_bytes() == (stack.root / "whole.bin").read_bytes()[1_000_000:2_000_000]


def curl(visitor: Visitor, url: str, *arguments: str, source: int = subprocess.DEVNULL) -> None:
    """A transfer by curl with a visitor's cookies. Fails on any status from 400 up."""
    host, port = re.fullmatch(r"http://([^:/]+):(\d+)/.*", url, re.DOTALL).groups()  # type: ignore[union-attr]
    fixed = ["--fail-with-body", "--silent", "--show-error", "--noproxy", "*", "--resolve", f"{host}:{port}:{HERE}"]
    done = subprocess.run(
        [require("curl"), *fixed, "--cookie", visitor.cookie_header(url), *arguments, url],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"curl: {done.stdout}"


def start_measuring(stack: DevStack) -> dict[int, int]:
    """Resident memory of each process that carries bytes, in bytes. The kernel's high-water marks begin anew here."""
    pids = {pid for role in ROLES for pid in stack.pids(role)}
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets the peak
    return {pid: memory(pid, "VmRSS") for pid in pids}


def grown(stack: DevStack, before: dict[int, int]) -> list[str]:
    """The processes that took more than they may meanwhile."""
    growth = {pid: memory(pid, "VmHWM") - resident for pid, resident in before.items()}
    roles = {pid: role for role in ROLES for pid in stack.pids(role)}
    return [f"{roles[pid]} {pid} grew by {by / MiB:.0f} MiB" for pid, by in growth.items() if by >= GROWTH]


def memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.removesuffix("kB")) * 1024
    raise AssertionError(f"no {field} of process {pid}")


def make_file(path: Path, size: int) -> str:
    """Random bytes; their checksum."""
    checksum = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MiB):
            block = os.urandom(MiB)
            checksum.update(block)
            file.write(block)
    return checksum.hexdigest()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
