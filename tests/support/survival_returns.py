"""Visitors who come back: a WebSocket that is closed with 1012 is no loss to them, and they ask again and again."""

from __future__ import annotations

import random
import socket
import time

import attrs
import h11
import trio

from tests.support.survival_flows import TROUBLES, Broken, Client, Conversation, Flow
from tests.support.survival_tool import BLOCK, CLOSE, content
from tests.support.visits import HERE

RESTART = 1012
PER_CONNECTION = 20
SLOW = 4
"""One request of so many has a body that takes its time."""
PIECES, PIECE_PAUSE = 4, 0.2


class Restarted(Exception):
    """The WebSocket was closed with 1012."""


@attrs.define(eq=False)
class Returning(Conversation):
    """A conversation that connects anew when it is told that its proxy restarts.

    restarts: when it was told so. unanswered: messages that were on their way at such a moment.
    """

    restarts: list[float] = attrs.field(factory=list)
    unanswered: int = 0
    _away: bool = False

    async def run(self) -> None:
        while not self.ended:
            try:
                await Conversation.run(self)
            except Restarted:
                self.restarts.append(time.monotonic())
                await self._come_back()

    def send(self) -> None:
        if not self._away:
            Conversation.send(self)

    def _take(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == CLOSE and int.from_bytes(payload[:2], "big") == RESTART and not self._leaving:
            raise Restarted
        Conversation._take(self, opcode, payload, now)

    async def _come_back(self) -> None:
        self._away = True
        self.unanswered += len(self._waiting)
        self.back = self.sent  # the number of no message is used again
        self._waiting.clear()
        self._unsent.clear()
        self._sock = socket.socket()
        try:
            await self.open()
        except (OSError, h11.RemoteProtocolError, Broken) as exc:
            self.break_off(f"could not come back: {exc}")
        self._away = False


class Stale(Exception):
    """A connection that had been used was closed before anything of an answer came: a browser asks again."""


@attrs.define(eq=False)
class Caller(Flow):
    """Requests with a body each, over connections that are kept for some of them.

    pause: seconds between two. answered: how many got the right answer. stale: how many had to be asked again.
    longest: of those the seconds that one took.
    """

    pause: float = 0.25
    answered: int = 0
    stale: int = 0
    longest: float = 0.0
    stopping: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Until `stopping` is set, or a request fails."""
        while not self.stopping.is_set() and self.error is None:
            try:
                async with await trio.open_tcp_stream(HERE, self.door.port) as stream:
                    await self._calls(Client(stream, self.door))
            except Stale:
                self.stale += 1
            except TROUBLES as exc:
                self.break_off(f"{exc!r} (after {self.answered} answers)")
        self.ended = True

    async def _calls(self, http: Client) -> None:
        for number in range(PER_CONNECTION):
            began = time.monotonic()
            await self._call(http, used=number > 0)
            self.longest = max(self.longest, time.monotonic() - began)
            self.answered += 1
            if not http.again() or self.stopping.is_set():
                return
            await trio.sleep(self.pause * random.uniform(0.5, 1.5))

    async def _call(self, http: Client, *, used: bool) -> None:
        """Raises Stale, Broken and what a broken connection raises."""
        pieces, pause = (PIECES, PIECE_PAUSE) if self.answered % SLOW == 0 else (1, 0.0)
        size = BLOCK // 4
        try:
            await http.ask("POST", f"/up/{self.number}", ("Content-Length", str(pieces * size)))
            for piece in range(pieces):
                await http.send(h11.Data(content(self.number, piece * size, size)))
                await trio.sleep(pause)
            await http.send(h11.EndOfMessage())
            await http.answer()
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
            if used:
                raise Stale from exc
            raise
        arrived = await http.rest()
        if arrived != {"seen": pieces * size, "wrong": None}:
            raise Broken(f"the tool saw {arrived}")
