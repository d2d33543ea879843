"""WebSocket messages of the bulk path, framed in one copy (RFC 6455, sections 5.2 and 5.3); wsproto takes six."""

from __future__ import annotations

import os
from collections.abc import Sequence

Data = bytes | bytearray | memoryview

BINARY = 0x82  # a whole message in one frame
MASKED = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127

_KEY_SIZE = 4
_STRIPE = 16384  # masked at a time, four passes each: what stays in the first cache is done twice as fast
_XOR = [bytes(value ^ key for value in range(256)) for key in range(256)]


def binary_message(parts: Sequence[Data], *, masked: bool) -> bytes | bytearray:
    """A binary message of these parts. masked: as a client must, with a fresh key."""
    head = _head(sum(map(len, parts)), MASKED if masked else 0)
    if not masked:
        return b"".join((head, *parts))
    key = os.urandom(_KEY_SIZE)
    frame = bytearray().join((head, key, *parts))
    for begin in range(len(head) + _KEY_SIZE, len(frame), _STRIPE):
        end = begin + _STRIPE
        for at, value in enumerate(key, begin):
            frame[at:end:_KEY_SIZE] = frame[at:end:_KEY_SIZE].translate(_XOR[value])
    return frame


def _head(size: int, mask: int) -> bytes:
    if size < _TWO_BYTES:
        return bytes((BINARY, mask | size))
    if size < 1 << 16:
        return bytes((BINARY, mask | _TWO_BYTES)) + size.to_bytes(2, "big")
    return bytes((BINARY, mask | _EIGHT_BYTES)) + size.to_bytes(8, "big")
