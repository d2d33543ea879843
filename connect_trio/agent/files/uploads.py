"""Files that arrive: streamed into a temporary file in the same folder, which takes its name when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from connect_trio.agent.files.exchange import RequestBody
from connect_trio.agent.files.paths import Folder, Place
from connect_trio.agent.files.problems import Problem, disk_full

DISCARD_TIMEOUT = 5
"""Seconds that the removal of a partial file may hold up whoever is being cancelled."""
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PartialFile:
    """A file on its way. Blocks on the disk: call everything in a thread. Every method raises OSError."""

    def __init__(self, place: Place, *, overwrite: bool, length: int | None) -> None:
        """Begin the file at `place`; `length` is the expected size in bytes if it is known.

        Raises Problem: 409 if the name is taken (and not to be overwritten), 507 if the disk lacks the space.
        """
        self._name = place.name
        self._overwrite = overwrite
        self.replaces = place.status is not None
        self._mode = self._check_target(place, overwrite=overwrite)
        self._temporary = b".upload-" + secrets.token_hex(8).encode() + b".part"
        self._directory = os.dup(place.directory)
        try:
            self._descriptor = os.open(self._temporary, _CREATE_FLAGS, 0o666, dir_fd=self._directory)
        except BaseException:
            os.close(self._directory)
            raise
        try:
            self._check_space(length)
        except BaseException:
            self.discard()
            raise

    def write(self, block: bytes | bytearray) -> None:
        with memoryview(block) as view:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])

    def commit(self) -> None:
        """Give the file its name, in one step for everyone who looks. Raises FileExistsError if it was taken since."""
        if self._mode is not None:
            os.fchmod(self._descriptor, self._mode)
        # Network file systems report a full disk here.
        self._close()
        if self._overwrite:
            self._rename()
            return
        # An empty file holds the name: unlike a look, creating it fails if somebody else was faster.
        os.close(os.open(self._name, _CREATE_FLAGS, 0o666, dir_fd=self._directory))
        try:
            self._rename()
        except BaseException:
            os.unlink(self._name, dir_fd=self._directory)
            raise

    def discard(self) -> None:
        """Remove what is left of the temporary file and close everything. To be called in the end, in any case."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory)
        finally:
            self._close()
            os.close(self._directory)

    def _rename(self) -> None:
        os.replace(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _check_space(self, length: int | None) -> None:
        if length is None:
            return
        disk = os.fstatvfs(self._descriptor)
        # Some network file systems know no size and say 0.
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < length:
            raise disk_full(length - disk.f_bavail * disk.f_frsize)

    @staticmethod
    def _check_target(place: Place, *, overwrite: bool) -> int | None:
        """The permissions to keep of a file that is replaced."""
        if place.is_folder:
            raise Problem(409, "A folder of this name exists.")
        if place.status is None:
            return None
        if not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return stat.S_IMODE(place.status.st_mode) if stat.S_ISREG(place.status.st_mode) else None


@asynccontextmanager
async def open_upload(
    folder: Folder, parts: Sequence[bytes], *, overwrite: bool, length: int | None = None
) -> AsyncIterator[PartialFile]:
    """A partial file that is gone after the block unless it was committed, whatever happens.

    Raises OSError, and Problem as PartialFile, and 404 if there is no such folder to put it in.
    """
    partial_file = await trio.to_thread.run_sync(partial(_begin, folder, parts, overwrite=overwrite, length=length))
    try:
        yield partial_file
    finally:
        with trio.move_on_after(DISCARD_TIMEOUT, shield=True):
            await trio.to_thread.run_sync(partial_file.discard, abandon_on_cancel=True)


async def receive_file(folder: Folder, parts: Sequence[bytes], body: RequestBody, *, overwrite: bool) -> bool:
    """Store a request's body as the file at `parts`; whether it replaced another. Memory: one block, whatever the size.

    Raises OSError, Problem and Disconnected; then nothing is left of the upload and an old file is untouched.
    """
    async with open_upload(folder, parts, overwrite=overwrite, length=body.length) as partial_file:
        while block := await body.read_block():
            await trio.to_thread.run_sync(partial_file.write, block)
        await trio.to_thread.run_sync(partial_file.commit)
        return partial_file.replaces


def _begin(folder: Folder, parts: Sequence[bytes], *, overwrite: bool, length: int | None) -> PartialFile:
    try:
        # A link is replaced, not followed: what it points to may be of use elsewhere.
        with folder.locate(parts, follow=False) as place:
            return PartialFile(place, overwrite=overwrite, length=length)
    except FileNotFoundError:
        raise Problem(404, "The folder to upload into does not exist.") from None
