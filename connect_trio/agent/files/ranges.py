"""Range requests (RFC 9110 section 14): which bytes of a file an answer carries. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_RANGES = 64
"""More than that in one header is an attack or a mistake; the header is ignored (RFC 9110 section 14.2)."""
# The length bound keeps `int` cheap on hostile input; 10**18 bytes are an exabyte.
_SPEC = re.compile(r"(?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{0,18})|-(?P<suffix>[0-9]{1,18}))")


class UnsatisfiableRange(Exception):
    """No byte of what was asked for exists: 416 (RFC 9110 section 15.5.17)."""


def select_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The part `(start, stop)` of `size` bytes that `header` asks for, with start < stop; None for the whole.

    A header that is malformed, in another unit, or asks for several parts that do not join into one is ignored, as
    section 14.2 allows; so is every range of an empty file, since no Content-Range could describe the answer.
    Raises UnsatisfiableRange.
    """
    specs = _parse(header) if header is not None and size else None
    if specs is None:
        return None
    parts = _joined(part for first, last in specs if (part := _resolve(first, last, size)))
    if not parts:
        raise UnsatisfiableRange
    return parts[0] if len(parts) == 1 else None


def _parse(header: str) -> list[tuple[int | None, int | None]] | None:
    """The (first, last) of each spec, first None for a suffix of `last` bytes; None if the header is to be ignored."""
    unit, separator, rest = header.partition("=")
    pieces = [piece.strip(" \t") for piece in rest.split(",", MAX_RANGES)]
    # Empty list elements are to be tolerated (RFC 9110 section 5.6.1.2).
    pieces = [piece for piece in pieces if piece]
    if unit.strip(" \t").lower() != "bytes" or not separator or not pieces or len(pieces) > MAX_RANGES:
        return None
    specs: list[tuple[int | None, int | None]] = []
    for piece in pieces:
        match = _SPEC.fullmatch(piece)
        if match is None:
            return None
        first, last, suffix = match.group("first", "last", "suffix")
        if suffix is not None:
            specs.append((None, int(suffix)))
        elif last and int(last) < int(first):
            return None
        else:
            specs.append((int(first), int(last) if last else None))
    return specs


def _resolve(first: int | None, last: int | None, size: int) -> tuple[int, int] | None:
    """The bytes that one spec selects; None if it is not satisfiable."""
    if first is None:
        return (max(0, size - last), size) if last else None
    if first >= size:
        return None
    return first, size if last is None else min(last + 1, size)


def _joined(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts in order, those that overlap or touch made one (RFC 9110 section 15.3.7.2)."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined
