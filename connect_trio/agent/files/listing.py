"""What is in a folder, bounded and in order."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import attrs

from connect_trio.agent.files.paths import Folder
from connect_trio.agent.files.problems import Problem


class Kind(Enum):
    FOLDER = "folder"
    FILE = "file"
    SPECIAL = "special file"
    BROKEN = "broken link"
    OUTSIDE = "link to elsewhere"


@attrs.frozen
class Entry:
    """One line of a listing. size in bytes, modified in seconds since the epoch; of a link's target if it has one."""

    name: bytes
    kind: Kind
    size: int
    modified: float


@attrs.frozen
class Listing:
    entries: list[Entry]
    complete: bool


_ORDERS: dict[str, Callable[[Entry], Any]] = {
    "name": lambda entry: (entry.name.lower(), entry.name),
    "size": lambda entry: (entry.size, entry.name),
    "modified": lambda entry: (entry.modified, entry.name),
}


def read_listing(folder: Folder, parts: Sequence[bytes], *, limit: int) -> Listing:
    """The first `limit` things in the folder at `parts`, in the disk's order. Blocks on the disk: call it in a thread.

    Raises OSError and Problem.
    """
    with folder.locate(parts) as place:
        descriptor = place.open_folder()
    entries: list[Entry] = []
    try:
        with os.scandir(descriptor) as found:
            for item in found:
                if len(entries) == limit:
                    return Listing(entries, complete=False)
                entry = _examine(folder, parts, item)
                if entry is not None:
                    entries.append(entry)
    finally:
        os.close(descriptor)
    return Listing(entries, complete=True)


def sort_entries(entries: list[Entry], order: str, *, descending: bool) -> list[Entry]:
    """Folders first, then by `order` ("name", "size" or "modified"; anything else is "name")."""
    ordered = sorted(entries, key=_ORDERS.get(order, _ORDERS["name"]), reverse=descending)
    ordered.sort(key=lambda entry: entry.kind is not Kind.FOLDER)
    return ordered


def _examine(folder: Folder, parts: Sequence[bytes], item: os.DirEntry[str]) -> Entry | None:
    """The entry for one name; None if it vanished in the meantime."""
    name = os.fsencode(item.name)
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        return Entry(name, _kind(status), status.st_size, status.st_mtime)
    try:
        with folder.locate([*parts, name]) as place:
            target = place.status
    except Problem:
        return Entry(name, Kind.OUTSIDE, 0, status.st_mtime)
    except OSError:
        target = None
    if target is None:
        return Entry(name, Kind.BROKEN, 0, status.st_mtime)
    return Entry(name, _kind(target), target.st_size, target.st_mtime)


def _kind(status: os.stat_result) -> Kind:
    if stat.S_ISDIR(status.st_mode):
        return Kind.FOLDER
    return Kind.FILE if stat.S_ISREG(status.st_mode) else Kind.SPECIAL
