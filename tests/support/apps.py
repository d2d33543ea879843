"""Applications at both ends of streams: what they write tells at each offset which byte must be there."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs

from connect_trio.mux import halves
from connect_trio.mux.frames import FrameType
from connect_trio.mux.streams import CoreStream
from tests.support.core import CountingChunkPool

PATTERN = random.Random(1).randbytes(8192)
HOW = ("some", "views", "piece")


def pattern(seed: int, start: int, count: int) -> bytes:
    """`count` bytes of an endless text, different for each seed."""
    at = (start + seed * 997) % len(PATTERN)
    text = PATTERN[at : at + count]
    while len(text) < count:
        text += PATTERN[: count - len(text)]
    return text


@attrs.define(eq=False)
class App:
    """The application at one end of a stream. thirst: how many bytes its short cut takes as they come.

    trusted: whether what it reads is compared with what the other side writes: not where somebody lies. As an
    observer it notes that it was woken, so that no wake-up can be lost unseen."""

    core: CoreStream
    seed: int
    chunks: CountingChunkPool
    wrote: int = 0
    read: int = 0
    thirst: int = 0
    closed: bool = False
    trusted: bool = True
    seen: tuple[int, int] | None = None  # by `shares.check_shares`: what was written, and granted
    _readable: bool = False
    _writable: bool = False
    _blocked: bool = False
    _share: int = 0  # of what it may keep, when it was blocked
    _known: tuple[int, bool] = (0, False)

    def __attrs_post_init__(self) -> None:
        self.core.observer = self
        self._known = self._news()

    def readable(self) -> None:
        self._readable = True

    def writable(self) -> None:
        self._writable = True

    def _news(self) -> tuple[int, bool]:
        return self.core.receive.window.received, self.core.end is not None

    def check_woken(self) -> None:
        """Whoever waits for bytes, for the end, or for room, has been told if there is any."""
        news, core = self._news(), self.core
        if news[1] != self._known[1]:
            assert self._readable, "nobody told a reader of the end"
            assert self._writable, "nobody told a writer of the end"
        elif news != self._known and core.receive.queue:
            assert self._readable, "nobody told of new bytes"
        home = core.home
        going = home is not None and (home.queue or (home.outbox.head is not None and home.outbox.head[3] is home))
        free = self.can_write() and core.room > 0
        # Of a share that has grown nobody tells: whoever waits for that keeps something, and will hear of that.
        kept = core.send.window.end - core.send.window.base
        told = self._writable or going or kept >= self._share
        assert told or not (self._blocked and free), "nobody told of new room"
        if self._writable or not free:
            self._blocked, self._share = not free, min(core.send.window.allowance, core.endpoint.budget.share)
        self._readable = self._writable = False
        self._known = news

    @property
    def ended(self) -> bool:
        """Whether it has read everything, up to the end."""
        return self.core.receive.window.finished and not self.core.receive.queue

    def can_write(self) -> bool:
        core = self.core
        return not (self.closed or core.end is not None or core.asked or core.send.window.finished)

    def write(self, size: int, *, chunked: bool = False) -> int:
        """As much of the text as there is room for."""
        if not self.can_write():
            return 0
        size = min(size, self.core.room, halves.CHUNK if chunked else halves.FRAME)
        if size:
            data = pattern(self.seed, self.wrote, size)
            self.wrote += size
            if chunked:
                self._write_chunk(data)
            else:
                self.core.write(data)
        return size

    def _write_chunk(self, data: bytes) -> None:
        chunk = self.chunks.take_chunk()
        for at in range(0, len(data), halves.FRAME):
            part = data[at : at + halves.FRAME]
            chunk.slots[at // halves.FRAME][: len(part)] = part
        self.core.write_chunk(chunk, len(data))

    def finish(self) -> None:
        if self.can_write():
            self.core.finish()

    def take(self, data: bytes | memoryview) -> None:
        if self.trusted:
            assert bytes(data) == pattern(self.seed ^ 1, self.read, len(data)), "a byte is wrong, doubled, or lost"
        self.read += len(data)

    def get(self, most: int, how: str = "some") -> None:
        """Read about `most` bytes of what has come."""
        receive = self.core.receive
        if self.closed or not receive.queue:
            return
        if how == "some":
            self.take(receive.take_some(most))
        elif how == "views":
            data = b"".join(receive.views(3))[:most]
            self.take(data)
            receive.advance(len(data))
        elif piece := receive.take():
            self.take(piece[0])
            if piece[1] is not None:
                piece[1].drop()
        self.core.took()

    def get_all(self) -> None:
        while self.core.receive.queue and not self.closed:
            self.get(1000)

    def drink(self, most: int) -> None:
        """From now on, and for `most` bytes, what comes is taken before it is queued."""
        self.thirst = most
        self.core.receive.sink = self._sink

    def _sink(self, parts: Sequence[memoryview]) -> int:
        data = b"".join(parts)[: self.thirst]
        self.thirst -= len(data)
        self.take(data)
        return len(data)

    def close(self, now: float) -> None:
        self.closed = True
        self.core.receive.sink = None
        self.core.abandon(now)


@attrs.define(eq=False)
class Pair:
    """Both ends of a stream; the acceptor's when it is there. dropped: an application has given the stream up."""

    opener: App
    acceptor: App | None = None
    dropped: bool = False
    accepted: int = 0

    @property
    def sides(self) -> tuple[App, ...]:
        return (self.opener,) if self.acceptor is None else (self.opener, self.acceptor)

    @property
    def over(self) -> bool:
        return all(app.core.end is not None for app in self.sides)

    @property
    def whole(self) -> bool:
        """Whether the stream ended because both sides were done, with every byte."""
        far = self.acceptor
        return (
            far is not None
            and all(app.core.end is not None and app.core.end.cause is FrameType.DONE for app in self.sides)
            and (far.read, self.opener.read) == (self.opener.wrote, far.wrote)
        )
