"""Frames on their way into a stream, whole and in order, whoever of those who sent them is cancelled."""

from __future__ import annotations

import trio
import trio.abc


class Writer:
    """Sends to `stream` what is posted; `run` does so."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._unsent = bytearray()
        self._sending = False
        self._posted = trio.Event()
        self._moved = trio.Event()

    def post(self, data: bytes) -> None:
        """Send whole frames, in their turn. Never waits; who posts much waits for `taken` before the next time."""
        if data:
            self._unsent += data
            self._posted.set()

    async def taken(self) -> None:
        """Wait until the stream is being given all that was posted."""
        while self._unsent:
            await self._moved.wait()

    async def sent(self) -> None:
        """Wait until the stream has taken all that was posted."""
        while self._unsent or self._sending:
            await self._moved.wait()

    async def run(self) -> None:
        """Until the stream has ended: raises trio.BrokenResourceError, trio.ClosedResourceError."""
        while True:
            await self._posted.wait()
            self._posted = trio.Event()
            data = bytes(self._unsent)
            self._unsent.clear()
            self._sending = True
            self._move()
            await self._stream.send_all(data)
            self._sending = False
            self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
