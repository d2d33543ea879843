"""Files to and from a Studio: scp, sftp, rsync, git."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.e2e import FULL
from tests.support.files import MiB, checksum, fill
from tests.support.parts import require
from tests.support.ssh import SshBench, run, ssh_bench

SIZE = (200 if FULL else 20) * MiB


@pytest.mark.parametrize("options", [(), ("-O",)], ids=["by sftp", "by scp's own protocol"])
async def test_scp_both_ways(tmp_path: Path, options: tuple[str, ...]) -> None:
    require("sftp-server")
    async with ssh_bench(tmp_path) as bench:
        expected = fill(bench.home / "up", SIZE)
        done = await bench.run(*options, "up", f"studio:{bench.folder}/there", program="scp")
        assert (done.status, done.said) == (0, "")
        assert checksum(bench.folder / "there") == expected
        done = await bench.run(*options, f"studio:{bench.folder}/there", "down", program="scp")
        assert (done.status, done.said) == (0, "")
        assert checksum(bench.home / "down") == expected


async def test_sftp_both_ways(tmp_path: Path) -> None:
    require("sftp-server")
    async with ssh_bench(tmp_path) as bench:
        expected = fill(bench.home / "up", SIZE)
        words = f"put up {bench.folder}/there\nget {bench.folder}/there down\nls -l {bench.folder}\n"
        done = await bench.run("-b", "-", "studio", program="sftp", stdin=words.encode())
        assert done.status == 0, done.said
        assert checksum(bench.home / "down") == checksum(bench.folder / "there") == expected


def rsync(bench: SshBench, *arguments: str) -> list[str]:
    return [require("rsync"), "-e", " ".join(bench.command()), *arguments]


async def test_rsync_both_ways(tmp_path: Path) -> None:
    async with ssh_bench(tmp_path) as bench:
        tree = bench.home / "tree"
        (tree / "deeper").mkdir(parents=True)
        expected = fill(tree / "big", SIZE), fill(tree / "deeper" / "small", MiB)
        for _ in range(2):  # the second time there is nothing to do
            done = await run(rsync(bench, "-a", "tree/", f"studio:{bench.folder}/tree/"), folder=bench.home)
            assert (done.status, done.said) == (0, "")
        there = bench.folder / "tree"
        assert (checksum(there / "big"), checksum(there / "deeper" / "small")) == expected
        done = await run(rsync(bench, "-a", "--checksum", f"studio:{there}/", "back/"), folder=bench.home)
        assert (done.status, done.said) == (0, "")
        back = bench.home / "back"
        assert (checksum(back / "big"), checksum(back / "deeper" / "small")) == expected


async def test_git_clones_and_pushes(tmp_path: Path) -> None:
    git = require("git")
    async with ssh_bench(tmp_path) as bench:
        environ = {
            "GIT_SSH_COMMAND": " ".join(bench.command()),
            **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

        async def do(*arguments: str) -> None:
            done = await run([git, *arguments], folder=bench.home, environ=environ)
            assert done.status == 0, done.said

        await do("init", "-q", "--bare", str(bench.folder / "there.git"))
        await do("clone", "-q", f"studio:{bench.folder}/there.git", "here")
        (bench.home / "here" / "file").write_text("content")
        await do("-C", "here", "add", "file")
        await do("-C", "here", "commit", "-q", "-m", "first")
        await do("-C", "here", "push", "-q", "origin", "HEAD:main")
        await do("clone", "-q", "-b", "main", f"studio:{bench.folder}/there.git", "again")
        assert (bench.home / "again" / "file").read_text() == "content"
