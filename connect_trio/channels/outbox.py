"""What waits to be said at one end of a channel: bounded, control before data, chosen when it is sent.

For an end that is told by callbacks and cannot wait, which is the proxy's. What the callbacks bring is bounded by
whoever pauses them: `waiting` says how much data waits.
"""

from __future__ import annotations

from collections import deque

from connect_trio.channels.ends import End
from connect_trio.channels.messages import MAX_DATA, Data, Eof, Frame, Resize, Signal

MAX_SIGNALS = 64  # that wait; one that waits already is not kept twice


class Outbox:
    """Frames of `end` that wait."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._control: deque[Frame] = deque()
        self._signals: dict[str, None] = {}
        self._resize: Resize | None = None
        self._data = bytearray()
        self._eof = False

    @property
    def waiting(self) -> int:
        """Bytes of data that wait."""
        return len(self._data)

    def post(self, frame: Frame) -> None:
        """Say this before any data. A new size replaces one that waits; signals beyond MAX_SIGNALS are dropped."""
        if isinstance(frame, Resize):
            self._resize = frame
        elif isinstance(frame, Signal):
            if len(self._signals) < MAX_SIGNALS:
                self._signals[frame.name] = None
        else:
            self._control.append(frame)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Say this when the window allows it."""
        self._data += data

    def feed_eof(self) -> None:
        """Say that no more data comes, behind what waits."""
        self._eof = True

    @property
    def ready(self) -> bool:
        """Whether `take` has something to say now."""
        eof = self._eof and not self._data
        data = bool(self._data) and self._end.sending.room > 0
        return bool(self._control or self._signals or self._resize or eof or data or self._end.receiving.due())

    def take(self) -> bytes:
        """What is to be sent now: all control, and one DATA frame at the most. Empty if nothing may be said now.

        Raises ValueError if a posted frame may not be said now.
        """
        end = self._end
        out = bytearray()
        while self._control:
            out += end.send(self._control.popleft())
        if self._resize is not None:
            out += end.send(self._resize)
            self._resize = None
        for name in self._signals:
            out += end.send(Signal(name))
        self._signals.clear()
        out += end.grant()
        if self._data and end.sending.room:
            count = min(end.sending.room, MAX_DATA)
            out += end.send(Data(bytes(self._data[:count])))
            del self._data[:count]
        if self._eof and not self._data:
            out += end.send(Eof())
            self._eof = False
        return bytes(out)
