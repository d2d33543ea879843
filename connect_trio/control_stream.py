"""A control stream at either end: messages in and out within bounds, until one of both ends it.

What waits to be sent is bounded in bytes. No message waits for a time of its own: a stream that is cut off may come
back, and if it does not, the mux ends it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
import trio.abc

from connect_trio.control import ControlError, Decoder, Message, Pace, encode

ROOM = 64 * 1024  # bytes that may wait to be sent before whoever can wait should
MAX_UNSENT = 256 * 1024  # bytes that may wait to be sent at all
RATE = 1024.0  # messages a second that the other end may send
BURST = 8192  # after a pause of the stream many come at once: as many as a window holds


class ControlStream:
    """Messages over `stream`, which it owns.

    accepts: the types that the other end may send. reset: ends the stream at once, with a text for the other end.
    """

    def __init__(
        self, stream: trio.abc.Stream, accepts: tuple[type[Message], ...], *, reset: Callable[[str], None]
    ) -> None:
        self._stream = stream
        self._reset = reset
        self._decoder = Decoder(accepts)
        self._pace = Pace(rate=RATE, burst=BURST, now=trio.current_time())
        self._unsent = bytearray()
        self._posted = trio.Event()
        self._taken = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = False
        self._cause: Exception | None = None

    def post(self, message: Message) -> None:
        """Send a message, in its turn. Never waits. Raises ValueError if it is not one that may travel.

        Nothing happens after the end. An end that does not read what it is sent ends the stream.
        """
        line = encode(message)
        if self._ended:
            return
        self._unsent += line
        self._posted.set()
        if len(self._unsent) > MAX_UNSENT:
            self._end(ControlError("the other end does not read what it is sent"))

    async def wait_room(self) -> None:
        """Wait until little waits to be sent, or the stream has ended: for those who would only add to it."""
        while len(self._unsent) > ROOM and not self._ended:
            await self._taken.wait()

    async def run(self, handle: Callable[[Message], None]) -> Exception | None:
        """Hand messages to `handle` until the end: why it came, None where the other end closed in order.

        A ControlError, of `handle` too, says which rule was broken; the other end reads it in the reset. Anything else
        is what the stream raised. The stream is closed then.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, name="control stream writer")
                    await self._read(handle)
        finally:
            self._end(None)
            await trio.aclose_forcefully(self._stream)
        return self._cause

    def _end(self, cause: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._cause = cause
        if isinstance(cause, ControlError):
            self._reset(str(cause))
        self._unsent.clear()
        self._taken.set()
        self._scope.cancel()

    async def _read(self, handle: Callable[[Message], None]) -> None:
        decoder = self._decoder
        try:
            while data := await self._stream.receive_some():
                decoder.receive_data(data)
                while not self._ended and (message := decoder.maybe_message()) is not None:
                    if not self._pace.take(trio.current_time()):
                        raise ControlError(f"more than {RATE:g} messages a second")
                    handle(message)
            decoder.receive_eof()
            self._end(None)
        except (ControlError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._end(exc)

    async def _write(self) -> None:
        try:
            while True:
                await self._posted.wait()
                self._posted = trio.Event()
                lines = bytes(self._unsent)
                self._unsent.clear()
                self._taken.set()
                self._taken = trio.Event()
                await self._stream.send_all(lines)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._end(exc)
