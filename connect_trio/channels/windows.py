"""Credit of one direction of a channel: bytes of DATA and STDERR, granted by whoever receives them.

A channel begins without any: each end grants what it is ready to keep, as soon as it likes.
"""

from __future__ import annotations

from connect_trio.channels.messages import MAX_WINDOW, ChannelError


class SendWindow:
    """What the other end lets us send. room: bytes that may be sent now."""

    __slots__ = ("room",)

    def __init__(self) -> None:
        self.room = 0

    def granted(self, count: int) -> None:
        """Raises ChannelError if the other end grants more than may be outstanding."""
        if self.room + count > MAX_WINDOW:
            raise ChannelError(f"WINDOW: more than {MAX_WINDOW} bytes are granted")
        self.room += count

    def sent(self, count: int) -> None:
        if count > self.room:
            raise ValueError(f"{count} bytes where {self.room} may be sent")
        self.room -= count


class ReceiveWindow:
    """What we let the other end send, so that never more than `target` bytes are on their way to us or kept here.

    target may be changed at any time, up to MAX_WINDOW; a smaller one takes back nothing, but delays what is granted.
    outstanding: bytes that were granted and have not come. kept: bytes that came and were not taken.
    """

    __slots__ = ("kept", "outstanding", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.outstanding = 0
        self.kept = 0

    def received(self, count: int) -> None:
        """Raises ChannelError if that is more than was granted."""
        if count > self.outstanding:
            raise ChannelError(f"{count} bytes where {self.outstanding} were granted")
        self.outstanding -= count
        self.kept += count

    def took(self, count: int) -> None:
        """The application took bytes that had come."""
        if count > self.kept:
            raise ValueError(f"{count} bytes taken where {self.kept} are kept")
        self.kept -= count

    def due(self) -> int:
        """Bytes worth granting now, else 0: a frame for each piece taken would be too much."""
        free = min(self.target, MAX_WINDOW) - self.outstanding - self.kept
        return free if free > 0 and (free >= self.target // 4 or not self.outstanding) else 0

    def grant(self, count: int) -> None:
        """A WINDOW of `count` bytes is being sent."""
        self.outstanding += count
