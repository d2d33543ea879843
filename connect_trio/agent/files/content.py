"""What a file is, and how to say so in the head of an answer. Pure."""

from __future__ import annotations

import codecs
import mimetypes
import os
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

import attrs

# Only the built-in table: what a file is must not depend on the machine.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("image/webp", ".webp")
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
"""What the preview shows in an <img>, where an SVG cannot run scripts."""

_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def media_type(name: bytes) -> str:
    """The Content-Type for a file name, by its extension."""
    kind, encoding = _TYPES.guess_type("file:" + quote(name))
    if encoding is not None:
        # As Content-Encoding it would make browsers unpack what people want to download as it is.
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if kind is None:
        return "application/octet-stream"
    # HTML, XML and others can name their charset themselves.
    return "text/plain; charset=utf-8" if kind == "text/plain" else kind


def content_disposition(kind: str, name: bytes) -> str:
    """A Content-Disposition (RFC 6266): an ASCII name for old clients and the UTF-8 one (RFC 8187) for the rest."""
    text = name.decode("utf-8", "replace")
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in text)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(text, safe='')}"


@attrs.frozen
class Version:
    """Which state of a file an answer shows: its validators (RFC 9110 section 8.8)."""

    etag: str
    modified: int

    @classmethod
    def of(cls, status: os.stat_result) -> Version:
        return cls(f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"', int(status.st_mtime))

    @property
    def last_modified(self) -> str:
        return formatdate(self.modified, usegmt=True)

    def is_known(self, if_none_match: str | None, if_modified_since: str | None) -> bool:
        """Whether the client has this version already: 304 (RFC 9110 section 13.2.2, steps 3 and 4)."""
        if if_none_match is not None:
            tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
            return "*" in tags or self.etag in tags
        since = _timestamp(if_modified_since)
        return since is not None and self.modified <= since

    def allows_range(self, if_range: str | None) -> bool:
        """Whether the parts that the client has belong to this version (RFC 9110 section 13.1.5)."""
        if if_range is None:
            return True
        return if_range.strip() == self.etag or _timestamp(if_range) == self.modified


def _timestamp(date: str | None) -> int | None:
    if date is None:
        return None
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None


def decode_text(start: bytes, *, complete: bool) -> str | None:
    """The start of a file as text, None if it is not text. If not `complete`, a character may be cut at the end."""
    mark, encoding = next(
        ((mark, encoding) for mark, encoding in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), (b"", "utf-8")
    )
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start[len(mark) :], final=complete)
    except UnicodeDecodeError:
        return None
    # NUL is valid UTF-8, but nobody writes it in a text.
    return None if "\0" in text else text


def show_size(size: int) -> str:
    """A size for people, in binary units."""
    amount = float(size)
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
