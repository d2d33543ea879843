"""From the path of a request to a file, never leaving one folder.

A path is taken apart *before* its escapes are decoded, so that an escaped slash cannot make a new component. Then each
component is opened relative to the one before it (openat), refusing links, which are read and walked here instead. No
component is ever looked up twice by its full name, so exchanging a folder for a link between a check and its use gains
nothing: there is no check apart from the use. Names are bytes, as they are to the kernel.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

import attrs

from connect_trio.agent.files.problems import Problem

MAX_LINKS = 40
"""Symbolic links on one path, as in Linux (path_resolution(7))."""
MAX_DEPTH = 128
"""Folders on one path; each is an open file descriptor while the path is walked."""

_FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_PATH needs no permission to read the folder, as lookup by name needs none; it is Linux' own.
_LOOKUP_FLAGS = _FOLDER_FLAGS | getattr(os, "O_PATH", os.O_RDONLY)
# O_NONBLOCK: if the name was exchanged for a FIFO after the look, the open must not wait for a writer.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@attrs.frozen
class RequestPath:
    """A decoded path below the served folder.

    parts: the components; none is empty, ".", ".." or contains "/" or NUL.
    is_folder: whether the path ended in a slash.
    """

    parts: tuple[bytes, ...]
    is_folder: bool

    @property
    def name(self) -> bytes:
        """The last component; empty for the served folder itself."""
        return self.parts[-1] if self.parts else b""


def parse_path(raw: bytes, *, prefix: bytes = b"") -> RequestPath | None:
    """Take apart the path of a request target (RFC 3986 section 3.3), without its query; None if not below `prefix`.

    `prefix` has no slash at its end. Raises Problem (400) for what no browser sends for a link of ours.
    """
    if not raw.startswith(prefix + b"/"):
        return None
    raw = raw[len(prefix) + 1 :]
    if _BAD_ESCAPE.search(raw):
        raise Problem(400, "This address has a broken escape: '%' must be followed by two hexadecimal digits.")
    pieces = raw.split(b"/")
    is_folder = pieces[-1] == b""
    if is_folder:
        pieces.pop()
    parts = tuple(map(unquote_to_bytes, pieces))
    for part in parts:
        check_name(part)
    return RequestPath(parts, is_folder)


def check_name(name: bytes) -> None:
    """Raise Problem (400) unless `name` can be the name of one file or folder."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise Problem(400, "This name is not allowed: a name is not empty, '.' or '..' and has no '/' or NUL in it.")


def quote_name(name: bytes) -> str:
    """A name as one component of a URL; every byte survives."""
    return quote_from_bytes(name, safe="")


def show_name(name: bytes) -> str:
    """A name for people: UTF-8, with U+FFFD for bytes that are none. Not reversible."""
    return name.decode("utf-8", "replace")


@attrs.frozen
class Place:
    """Where a path leads. The descriptor belongs to the walk that made it, see `Folder.locate`.

    directory: descriptor of a folder, good for lookups (perhaps not for reading).
    name: a name in that folder, never of a link unless links were not to be followed; b"." for the folder itself.
    status: what is there; None if nothing is.
    """

    directory: int
    name: bytes
    status: os.stat_result | None

    @property
    def is_folder(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def open_folder(self) -> int:
        """A descriptor to list the folder with; the caller closes it. Raises OSError."""
        return os.open(self.name, os.O_RDONLY | _FOLDER_FLAGS, dir_fd=self.directory)

    def open_file(self) -> tuple[int, os.stat_result]:
        """A descriptor to read the regular file with, which the caller closes, and its status.

        Raises OSError, and Problem (403) for devices, FIFOs and sockets: they are not even opened.
        """
        self._check_regular(self.status)
        descriptor = os.open(self.name, _READ_FLAGS, dir_fd=self.directory)
        try:
            status = os.fstat(descriptor)
            self._check_regular(status)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    @staticmethod
    def _check_regular(status: os.stat_result | None) -> None:
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not stat.S_ISREG(status.st_mode):
            raise Problem(403, "This is not a regular file; devices, pipes and sockets are not opened.")


class Folder:
    """The folder that is served; an open descriptor, so that it stays the same folder when it is renamed."""

    def __init__(self, root: Path) -> None:
        """Raises FileNotFoundError, NotADirectoryError or PermissionError."""
        # The last component may be a link here: whoever started this chose it.
        self._root = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY))
        self._names = {
            os.fsencode(name).rstrip(b"/") + b"/" for name in (os.path.abspath(root), os.path.realpath(root))
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._root)

    @contextmanager
    def locate(self, parts: Sequence[bytes], *, follow: bool = True) -> Iterator[Place]:
        """Walk to `parts`; the place is valid inside the `with` block. Blocks on the disk: call it in a thread.

        Links on the way are followed as long as they stay inside; a last component that is a link is followed only if
        `follow`. Raises OSError, and Problem (403) for a link that leads outside.
        """
        walk = _Walk(self._root, self._names)
        try:
            yield walk.go(parts, follow=follow)
        finally:
            walk.close()


class _Walk:
    """One walk. `_folders` holds the way back, so that ".." in a link means the folder that we came through."""

    def __init__(self, root: int, names: set[bytes]) -> None:
        self._root = root
        self._names = names
        self._folders: list[int] = []
        self._links = 0

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop())

    def go(self, parts: Sequence[bytes], *, follow: bool) -> Place:
        pending = list(reversed(parts))
        while pending:
            part = pending.pop()
            if part == b"..":
                self._leave()
                continue
            here = self._here
            try:
                status = os.stat(part, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                if pending:
                    raise
                return Place(here, part, None)
            if stat.S_ISLNK(status.st_mode) and (follow or pending):
                pending += reversed(self._read_link(part))
            elif pending or (follow and stat.S_ISDIR(status.st_mode)):
                self._enter(part)
            else:
                return Place(here, part, status)
        return Place(self._here, b".", os.fstat(self._here))

    @property
    def _here(self) -> int:
        return self._folders[-1] if self._folders else self._root

    def _enter(self, name: bytes) -> None:
        if len(self._folders) >= MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        self._folders.append(os.open(name, _LOOKUP_FLAGS, dir_fd=self._here))

    def _leave(self) -> None:
        if not self._folders:
            raise _outside()
        os.close(self._folders.pop())

    def _read_link(self, name: bytes) -> list[bytes]:
        """The components that stand for a link; an absolute one starts over at the served folder, or is outside."""
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(name, dir_fd=self._here)
        if target.startswith(b"/"):
            inside = next((target[len(root) :] for root in self._names if (target + b"/").startswith(root)), None)
            if inside is None:
                raise _outside()
            self.close()
            target = inside
        return [part for part in target.split(b"/") if part not in (b"", b".")]


def _outside() -> Problem:
    return Problem(403, "This link leads out of the folder that the Studio shows.")
