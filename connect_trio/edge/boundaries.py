"""Where one WebSocket frame ends and the next begins, in bytes that pass by (RFC 6455, section 5.2). Sans-I/O.

Whoever wants to say something of its own in the middle of somebody else's conversation must do so between two frames.
Only headers are looked at, and nothing is copied but a header that comes in parts.
"""

from __future__ import annotations

_LONG, _LONGEST = 126, 127
_LENGTHS = {_LONG: 2, _LONGEST: 8}
_MASKED, _CLOSE = 0x80, 0x8
_LONGEST_HEADER = 14

RESTART = 1012
"""The close code of a service that restarts: whoever hears it may come back."""
POLICY = 1008
"""The close code of what is not allowed (any more): coming back is of no use."""
_MOST_REASON = 123


class FrameFollower:
    """Follows one direction. Garbage makes it wrong, never slow or large: the two ends are to judge it.

    closed: a close frame has begun; no frame may follow it.
    """

    __slots__ = ("_header", "_payload", "closed")

    def __init__(self) -> None:
        self._payload = 0
        self._header = b""
        self.closed = False

    @property
    def between(self) -> bool:
        """Whether a frame could begin here."""
        return not (self._payload or self._header)

    def feed(self, data: bytes | memoryview) -> None:
        """These bytes have passed. Everything that a tool says comes by here, so the usual header is read in place."""
        at, end, left = 0, len(data), self._payload
        while not self._header:
            at += left
            if at > end:
                self._payload = at - end
                return
            if end - at < _LONGEST_HEADER:
                self._payload = 0
                break
            if data[at] & 0xF == _CLOSE:
                self.closed = True
            second = data[at + 1]
            left = second & 0x7F
            at += 2
            if left >= _LONG:
                size = _LENGTHS[left]
                left = int.from_bytes(data[at : at + size], "big")
                at += size
            if second & _MASKED:
                at += 4
        while at < end:
            at = self._step(data, at)

    def feed_to_boundary(self, data: bytes | memoryview) -> int:
        """The bytes up to the first place between two frames have passed, or all if there is none; how many."""
        at = 0
        while at < len(data) and not self.between:
            at = self._step(data, at)
        return at

    def _step(self, data: bytes | memoryview, at: int) -> int:
        """Past the rest of a payload, a header, or all that there is; where that is."""
        if self._payload:
            count = min(self._payload, len(data) - at)
            self._payload -= count
            return at + count
        head = self._header
        if len(head) + len(data) - at < 2:
            self._header = head + bytes(data[at:])
            return len(data)
        second = head[1] if len(head) > 1 else data[at + 1 - len(head)]
        size = 2 + _LENGTHS.get(second & 0x7F, 0) + (4 if second & _MASKED else 0)
        missing = size - len(head)
        if len(data) - at < missing:
            self._header = head + bytes(data[at:])
            return len(data)
        self._begin(head + bytes(data[at : at + missing]))
        return at + missing

    def _begin(self, header: bytes) -> None:
        short = header[1] & 0x7F
        size = _LENGTHS.get(short, 0)
        self._payload = int.from_bytes(header[2 : 2 + size], "big") if size else short
        self._header = b""
        self.closed = self.closed or header[0] & 0xF == _CLOSE


def close_frame(code: int, reason: str) -> bytes:
    """An unmasked close frame, as a server sends it. reason: its first 123 bytes of UTF-8 are sent."""
    payload = code.to_bytes(2, "big") + reason.encode()[:_MOST_REASON].decode(errors="ignore").encode()
    return bytes((0x80 | _CLOSE, len(payload))) + payload
