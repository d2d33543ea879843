"""What can be wrong with a request, in words for whoever made it."""

from __future__ import annotations

import errno


class Problem(Exception):
    """A request that cannot be served.

    status: HTTP status. text: one sentence that says what is wrong and, where possible, how to mend it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


_FULL = "The disk of this Studio is full: delete something or choose a bigger disk, then try again."
_TEXTS = {
    errno.ENOENT: (404, "There is no file or folder of this name."),
    errno.ENOTDIR: (404, "There is no folder of this name."),
    # Only a name that was swapped for a link between look and use gets here: it is refused, not followed.
    errno.ELOOP: (404, "This name leads round in circles."),
    errno.ENAMETOOLONG: (400, "This name is longer than the disk allows."),
    errno.EINVAL: (400, "The disk does not allow this name."),
    errno.EILSEQ: (400, "The disk does not allow this name."),
    errno.EISDIR: (409, "A folder of this name exists."),
    errno.EEXIST: (409, "This name exists already: choose another, or have it replaced."),
    errno.ENOTEMPTY: (409, "The folder is not empty: delete its contents first."),
    errno.EBUSY: (409, "Something is using this just now."),
    errno.EACCES: (403, "The Studio has no permission for this file or folder."),
    errno.EPERM: (403, "The Studio has no permission for this file or folder."),
    errno.EROFS: (403, "This folder is read-only."),
    errno.ENXIO: (403, "This is not a regular file."),
    errno.ENOSPC: (507, _FULL),
    errno.EDQUOT: (507, "The disk quota of this Studio is used up: delete something, then try again."),
    errno.EFBIG: (507, "The file is larger than this disk allows."),
    errno.EMFILE: (503, "Too many files are open: try again in a moment."),
    errno.ENFILE: (503, "Too many files are open: try again in a moment."),
}


def disk_full(missing: int) -> Problem:
    """The disk lacks `missing` bytes."""
    return Problem(507, f"{_FULL} {missing:,} bytes more are needed.")


def from_os_error(error: OSError) -> Problem:
    """The problem behind an error of the file system. Names no path: the visitor knows which one was asked for."""
    if error.errno in _TEXTS:
        return Problem(*_TEXTS[error.errno])
    return Problem(500, f"The disk of this Studio answered: {error.strerror or error}.")
