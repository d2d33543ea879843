"""Streams to tools that wait for their next request, kept per session and visitor identity, never across."""

from __future__ import annotations

from collections import OrderedDict

import trio

from connect_trio.dial import Failure, ToolStream
from connect_trio.edge.errors import ToolFailed
from connect_trio.httpio import HttpError, Inbox, ResponseHead, read_response
from connect_trio.mux.buffers import Buffer
from connect_trio.transport.sockets import Data

NOT_HTTP = Failure(status=502, part="tool", text="The tool's answer is not HTTP.")
NO_ANSWER = Failure(status=502, part="tool", text="The tool closed the connection without an answer.")
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Upstream:
    """A stream to a tool with what was received and not yet read. It belongs to one exchange or to the pool.

    reused: whether it carried an exchange before: then the tool may have closed it while the next request was on its
    way. silent: nothing was received since the request was sent.
    """

    __slots__ = ("inbox", "key", "reused", "silent", "since", "stream")

    def __init__(self, stream: ToolStream, key: str, *, head_size: int) -> None:
        self.stream = stream
        self.key = key
        self.inbox = Inbox(head_size)
        self.reused = False
        self.silent = True
        self.since = 0.0

    async def send_all(self, data: Data) -> None:
        """Raises ToolFailed."""
        try:
            await self.stream.send_all(data)
        except _BROKEN as exc:
            raise ToolFailed from exc

    async def send_eof(self) -> None:
        """Half-close. Raises ToolFailed."""
        try:
            await self.stream.send_eof()
        except _BROKEN as exc:
            raise ToolFailed from exc

    async def receive_view(self) -> tuple[memoryview | bytes, Buffer | None]:
        """As `ToolStream.receive_view`; raises ToolFailed."""
        try:
            view, buffer = await self.stream.receive_view()
        except _BROKEN as exc:
            raise ToolFailed from exc
        if view:
            self.silent = False
        return view, buffer

    async def read_head(self, method: bytes) -> ResponseHead:
        """The next head. Raises ToolFailed."""
        while True:
            try:
                head = read_response(self.inbox, method) if self.inbox else None
            except HttpError as exc:
                raise ToolFailed(NOT_HTTP) from exc
            if head is not None:
                return head
            view, buffer = await self.receive_view()
            if not view:
                raise ToolFailed(NO_ANSWER)
            self.inbox.feed(view)
            if buffer is not None:
                buffer.drop()

    def reset(self, text: str) -> None:
        """Cut the tool's connection, so that the tool sees that nobody waits any more."""
        self.stream.reset(text)


class StreamPool:
    """Unused streams. At most `per_key` of one key and `total` in all; those unused for `idle` seconds are given up.

    A stream that is put back must have carried whole exchanges only.
    """

    def __init__(self, *, per_key: int, total: int, idle: float) -> None:
        self._per_key = per_key
        self._total = total
        self._idle = idle
        self._by_key: dict[str, list[Upstream]] = {}
        self._by_age: OrderedDict[Upstream, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_age)

    def take(self, key: str) -> Upstream | None:
        """The most recently used healthy stream of a key; those found unhealthy on the way are given up."""
        while upstreams := self._by_key.get(key):
            upstream = upstreams[-1]
            self._remove(upstream)
            if upstream.stream.healthy:
                upstream.reused = upstream.silent = True
                upstream.stream.expendable = False
                return upstream
            upstream.reset("no longer usable")
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep a stream for the next request of its key. Its only value is to be there: it is not worth resuming."""
        upstream.stream.expendable = True
        upstream.since = trio.current_time()
        mine = self._by_key.setdefault(upstream.key, [])
        mine.append(upstream)
        self._by_age[upstream] = None
        if len(mine) > self._per_key:
            self._give_up(mine[0])
        elif len(self._by_age) > self._total:
            self._give_up(next(iter(self._by_age)))

    def age(self) -> None:
        """Give up what was not used for too long. Called every now and then."""
        horizon = trio.current_time() - self._idle
        while self._by_age and (oldest := next(iter(self._by_age))).since <= horizon:
            self._give_up(oldest)

    def close(self) -> None:
        """Give up all streams."""
        for upstream in list(self._by_age):
            self._give_up(upstream)

    def _give_up(self, upstream: Upstream) -> None:
        self._remove(upstream)
        upstream.reset("unused")

    def _remove(self, upstream: Upstream) -> None:
        del self._by_age[upstream]
        mine = self._by_key[upstream.key]
        mine.remove(upstream)
        if not mine:
            del self._by_key[upstream.key]
