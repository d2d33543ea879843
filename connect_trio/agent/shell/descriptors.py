"""Non-blocking file descriptors under trio: pipes to processes, and the master side of terminals."""

from __future__ import annotations

import errno
import os

import trio


class Descriptor:
    """One end of a pipe or a terminal, owned by this object. At most one task reads and one writes."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def fileno(self) -> int:
        """-1 when it was closed."""
        return self._fd

    def read_now(self, most: int) -> bytes | None:
        """At most `most` bytes, empty at the end, None if nothing is there now."""
        try:
            return os.read(self._fd, most)
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno == errno.EIO:  # the end of a terminal: nobody has its other side open
                return b""
            raise

    def write_now(self, data: memoryview) -> int | None:
        """Bytes that the kernel took, 0 if none now, None if nobody reads any more."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno in (errno.EIO, errno.EPIPE):
                return None
            raise

    async def wait_readable(self) -> None:
        """Raises trio.ClosedResourceError if it is closed meanwhile."""
        await trio.lowlevel.wait_readable(self._fd)

    async def wait_writable(self) -> None:
        """Raises trio.ClosedResourceError if it is closed meanwhile."""
        await trio.lowlevel.wait_writable(self._fd)

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
