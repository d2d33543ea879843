"""Connections between real wires: bytes leave, fly and arrive only when a test says so, and may be cut at any byte."""

from __future__ import annotations

from collections import deque

from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import Hello
from connect_trio.mux.wire import Handler, Limits, Wire
from tests.support.core import CountingPool, Feed

EVERYTHING = 1 << 30


class Port:
    """One end of a line. `flight`: bytes that left here and have not arrived. `dead`: its process was killed."""

    def __init__(
        self, handler: Handler, hello: Hello, pool: CountingPool, *, dialled: bool, now: float, limits: Limits
    ) -> None:
        self.wire = Wire(handler, hello, dialled=dialled, now=now, limits=limits, label=f"{hello.peer}/{hello.slot}")
        self.feed = Feed(self.wire, pool)
        self.flight = bytearray()
        self.dead = False

    @property
    def alive(self) -> bool:
        return not (self.dead or self.wire.gone)


class Line:
    """A link or a tunnel: two ends, each with its own opinion whether the line is up. `cut`: nothing new gets on its
    way; what is in flight may still arrive. End 0 has dialled, end 1 is the server's.
    `tainted`: there are lies on it."""

    def __init__(self, near: Port, far: Port) -> None:
        self.ends = (near, far)
        self.cut = False
        self.tainted = False

    @property
    def over(self) -> bool:
        """Nobody listens any more."""
        return not any(port.alive for port in self.ends)

    @property
    def quiet(self) -> bool:
        return not any(port.flight or not port.wire.outbox.idle for port in self.ends if port.alive)

    def flush(self, end: int, most: int = EVERYTHING) -> None:
        """The transport takes at most `most` bytes; one that is cut takes them for nothing."""
        port = self.ends[end]
        if not port.alive:
            return
        parts = port.wire.outbox.gather()
        if parts:
            data = b"".join(parts)[:most]
            self.carry(end, data)
            port.wire.outbox.sent(len(data))

    def carry(self, end: int, data: bytes | memoryview) -> None:
        if not self.cut:
            self.ends[end].flight += data

    def deliver(self, end: int, most: int, now: float) -> None:
        """Bytes that left `end` arrive at the other, if that one still listens. Raises WireError."""
        port, other = self.ends[end], self.ends[1 - end]
        data = bytes(port.flight[:most])
        del port.flight[:most]
        if data and other.alive:
            other.feed(data, now)

    def lose(self, end: int, now: float) -> None:
        """This end gives the line up: end of file, an error, or too much silence."""
        self.cut = True
        port = self.ends[end]
        if port.alive:
            port.wire.lost(now)
            port.feed.close()

    def kill(self, end: int) -> None:
        """The process at this end is gone, with all that it knew."""
        self.cut = True
        self.ends[end].dead = True

    def tick(self, now: float) -> None:
        """Both ends look at their clocks. Honest processes do not complain about each other."""
        for end, port in enumerate(self.ends):
            if port.alive and port.wire.deadline(now) <= now:
                try:
                    port.wire.tick(now)
                except WireError as exc:
                    if exc.code is not None:
                        raise AssertionError("honest ends do not break the rules") from exc
                    self.lose(end, now)

    def short_cut(self, takes: deque[int]) -> None:
        """Let the server send at once what the next number in `takes` allows."""

        def direct(view: memoryview) -> int:
            count = min(len(view), takes[0])
            takes.rotate(-1)
            self.carry(1, view[:count])
            return count

        self.ends[1].wire.outbox.direct = direct
