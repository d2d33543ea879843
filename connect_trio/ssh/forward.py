"""A channel that carries plain bytes: `-L`, `-D`, `-W` to what is in the Studio, `-R` and a forwarded agent from it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from connect_trio.dial import DialError, ToolStream
from connect_trio.ssh.client import Channel, ChannelRefused, Why
from connect_trio.ssh.surroundings import LOST, Surroundings

INPUT: Final = 64 * 1024  # bytes that wait for the agent, besides SSH's own window: at most as many as that one has
OPENING: Final = 60.0  # seconds that a client has to take a channel
LAST_WORDS: Final = 5.0  # seconds to deliver what the client has said, once it is gone

logger = logging.getLogger(__name__)


class Forward:
    """`client.Handler` for one channel. Owns a place among the channels, which it gives back."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._input = min(INPUT, surroundings.window())
        self._channel: Channel
        self._queue = bytearray()
        self._paused = False
        self._eof = False  # of the client
        self._gone = False  # the client
        self._sent = False  # all that the client has to say
        self._done = False  # our tasks
        self._opened = trio.Event()
        self._wake = trio.Event()
        self._room = trio.Event()
        self._life = trio.CancelScope()

    # what the client does

    def opened(self, channel: Channel) -> None:
        self._channel = channel
        self._opened.set()

    def data(self, data: bytes) -> None:
        self._surroundings.touch()
        self._queue += data
        if len(self._queue) >= self._input and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self._wake.set()

    def eof(self) -> None:
        self._eof = True
        self._wake.set()

    def writable(self) -> None:
        self._room.set()

    def closed(self) -> None:
        self._gone = True
        self._life.deadline = min(self._life.deadline, trio.current_time() + LAST_WORDS)
        if self._sent:
            self._life.cancel()
        self._wake.set()
        self._room.set()
        self._leave()

    def _leave(self) -> None:
        """Give the place back: a channel that is not closed yet may still keep something."""
        if self._done and (self._gone or not self._opened.is_set()):
            self._surroundings.places.release()

    # the tasks

    async def dial(
        self, kind: str, metadata: dict[str, str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Begin at the client: dial, and carry once its channel is there. Started when the agent has accepted.

        Raises ChannelRefused before that, nothing later.
        """
        try:
            try:
                stream = await self._surroundings.dial(kind, metadata)
            except DialError as exc:
                raise ChannelRefused(exc.failure.text, shortage=exc.failure.status == 503) from None
            task_status.started()
            await self._carry(stream, self._opened.wait)
        finally:
            self._done = True
            self._leave()

    async def accept(self, stream: ToolStream, open_channel: Callable[[], Awaitable[None]]) -> None:
        """Begin in the Studio: open a channel to the client, and carry. Raises ChannelRefused."""
        try:
            await self._carry(stream, open_channel)
        finally:
            self._done = True
            self._leave()

    async def _carry(self, stream: ToolStream, opening: Callable[[], Awaitable[None]]) -> None:
        """Until both directions have ended, or one end is gone."""
        try:
            with trio.fail_after(OPENING):
                await opening()
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive, stream, nursery.cancel_scope)
                    await self._send(stream)
                    self._sent = True
                    if self._gone:
                        nursery.cancel_scope.cancel()
        except trio.TooSlowError:
            stream.reset("the client does not take the connection")
            # Its place could not be given to another one: the client may take it yet.
            self._surroundings.client.disconnect(Why.PROTOCOL_ERROR, f"a channel was not taken within {OPENING:g} s")
        except ChannelRefused as exc:
            stream.reset(f"the client refuses the connection: {exc}")
            raise
        except Exception:
            stream.reset("an internal error")
            logger.exception("a forward failed: this is a bug", extra={"session": self._surroundings.session})
        except BaseException:
            stream.reset("the client is gone")
            raise
        finally:
            if self._opened.is_set():
                self._channel.close()
            await trio.aclose_forcefully(stream)

    async def _send(self, stream: ToolStream) -> None:
        """From the client, until its end; what it said before it closed the channel still arrives."""
        try:
            while True:
                while self._queue:
                    data, self._queue = self._queue, bytearray()
                    await stream.send_all(data)
                    if self._paused and len(self._queue) < self._input // 2:
                        self._paused = False
                        self._channel.resume_reading()
                if self._eof or self._gone:
                    break
                self._wake = trio.Event()
                await self._wake.wait()
            await stream.send_eof()
        except LOST as exc:
            self._lost(exc)

    async def _receive(self, stream: ToolStream, everything: trio.CancelScope) -> None:
        """To the client, until the end of the stream, or until the client is gone: then that is all."""
        try:
            while True:
                while not (self._channel.writable or self._gone):
                    self._room = trio.Event()
                    await self._room.wait()
                if self._gone:
                    return
                view, buffer = await stream.receive_view()
                if not view:
                    break
                self._surroundings.touch()
                try:
                    self._channel.write(view)
                finally:
                    if buffer is not None:
                        buffer.drop()
                await trio.lowlevel.checkpoint()
            self._channel.write_eof()
        except LOST as exc:
            self._lost(exc)
            everything.cancel()

    def _lost(self, error: BaseException) -> None:
        if not self._gone:
            logger.info(
                "a forwarded connection was lost",
                extra={"session": self._surroundings.session, "reason": self._surroundings.why(error)},
            )
            self._channel.abort()
