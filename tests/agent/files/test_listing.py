from __future__ import annotations

import os
from pathlib import Path

from connect_trio.agent.files.listing import Kind, read_listing, sort_entries
from connect_trio.agent.files.paths import Folder


def test_every_kind_is_told_apart(root: Path, outside: Path) -> None:
    (root / "folder").mkdir()
    (root / ".hidden").write_text("12345")
    os.mkfifo(root / "pipe")
    (root / "good").symlink_to(".hidden")
    (root / "to-folder").symlink_to("folder")
    (root / "bad").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    (root / "away").symlink_to(outside)
    with Folder(root) as folder:
        listing = read_listing(folder, [], limit=100)
    assert listing.complete
    assert {entry.name: entry.kind for entry in listing.entries} == {
        b"folder": Kind.FOLDER,
        b".hidden": Kind.FILE,
        b"pipe": Kind.SPECIAL,
        b"good": Kind.FILE,
        b"to-folder": Kind.FOLDER,
        b"bad": Kind.BROKEN,
        b"loop": Kind.BROKEN,
        b"away": Kind.OUTSIDE,
    }
    assert {entry.size for entry in listing.entries if entry.name in (b".hidden", b"good")} == {5}


def test_names_that_are_not_utf_8_are_kept(root: Path) -> None:
    (root / os.fsdecode(b"\xff\xfe")).touch()
    with Folder(root) as folder:
        assert [entry.name for entry in read_listing(folder, [], limit=100).entries] == [b"\xff\xfe"]


def test_a_huge_folder_is_cut_and_says_so(root: Path) -> None:
    for number in range(11):
        (root / str(number)).touch()
    with Folder(root) as folder:
        assert not read_listing(folder, [], limit=10).complete
        assert read_listing(folder, [], limit=11).complete
        assert len(read_listing(folder, [], limit=10).entries) == 10


def test_folders_come_first_in_every_order(root: Path) -> None:
    for name, size in (("b", 3), ("A", 2), ("c", 1)):
        (root / name).write_bytes(b"x" * size)
    (root / "z").mkdir()
    with Folder(root) as folder:
        entries = read_listing(folder, [], limit=100).entries

    def names(order: str, *, descending: bool = False) -> bytes:
        return b"".join(entry.name for entry in sort_entries(entries, order, descending=descending))

    assert names("name") == b"zAbc"
    assert names("nonsense") == b"zAbc"
    assert names("name", descending=True) == b"zcbA"
    assert names("size") == b"zcAb"
