"""Frames that nobody honest would send: any type, any numbers, to either end of any line, on ids in use and others."""

from __future__ import annotations

from connect_trio.mux import frames
from connect_trio.mux.attachments import Attachment
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import Answer, Ask, FrameType
from connect_trio.mux.switch import Leg
from tests.support.core import Feed
from tests.support.lines import Line, Port
from tests.support.network import Network
from tests.support.steps import ARGUMENTS, WEIGHTS, Steps
from tests.support.tiny import UNIT

KINDS = tuple(FrameType)
HUGE = (2**32 - 1, frames.MAX_OFFSET - 3, frames.MAX_OFFSET, frames.MAX_OFFSET + 1, 2**64 - 1)
LIES = {
    "lie": {
        "which": (0, 11),
        "end": (0, 1),
        "kind": (0, len(KINDS) - 1),
        "place": (0, 15),
        "first": (0, 4 * UNIT),
        "second": (0, 5 * UNIT),
        "size": (0, 40),
    }
}
LYING_ARGUMENTS = {**ARGUMENTS, **LIES}
LYING_WEIGHTS = {**WEIGHTS, "lie": 8.0, "redial": 14.0}


class LyingSteps(Steps):
    """Streams with odd numbers have liars at one of their ends, or between them. The others must not suffer."""

    def open(self, index: int) -> None:
        before = len(self.net.pairs)
        super().open(index)
        for pair in self.net.pairs[before:]:
            pair.opener.trusted = before % 2 == 0

    def lie(self, which: int, end: int, kind: int, place: int, first: int, second: int, size: int) -> None:
        """`end` is told something that the other one never said."""
        line = self.net.lines[which % len(self.net.lines)]
        port = line.ends[end]
        if not port.alive or port.wire.peer is None:
            return
        suspects = [sid for sid in port.wire.ports if self._lied_about(port, sid)]
        sid = suspects[place % len(suspects)] if suspects and place < 14 else self._new_id(line, end, place)
        if sid in port.wire.ports and sid not in suspects:
            return
        first, second = _spread(first), _spread(second)
        if size % 2:  # a lie is the more dangerous the nearer it is to the truth
            first, second = self._nearly(port, sid, first, second)
        told(self.net, line, end, self._frame(KINDS[kind], sid, first, second, size))

    def _nearly(self, port: Port, sid: int, first: int, second: int) -> tuple[int, int]:
        """Numbers that could almost be true of the stream under an id."""
        place = port.wire.ports.get(sid)
        if isinstance(place, Attachment):
            sent, incoming = place.stream.send.window, place.stream.receive.window
            numbers = (sent.base, sent.position, sent.end, sent.limit, incoming.received, incoming.granted)
        elif isinstance(place, Leg):
            numbers = (place.granted, place.high, place.forwarded, place.received, place.limit, place.peer.granted)
        else:
            return first, second
        return _near(numbers[first % 6], first), _near(numbers[second % 6], second)

    def _new_id(self, line: Line, end: int, place: int) -> int:
        """An id that the peer begins to use, or one that neither would use for long."""
        return line.ends[1 - end].wire.new_id() if line.ends[1 - end].alive and place % 2 else 1001 + place % 3

    def _lied_about(self, port: Port, sid: int) -> bool:
        token = self._token(port, sid)
        return token is not None and int.from_bytes(token, "big") % 2 == 1

    def _token(self, port: Port, sid: int) -> bytes | None:
        place = port.wire.ports[sid]
        if isinstance(place, Leg):
            near = place if place.link else place.peer
            line = next((line for line in self.net.lines if line.ends[1].wire is near.wire), None)
            place = None if line is None else line.ends[0].wire.ports.get(near.sid)
        return place.stream.token if isinstance(place, Attachment) else None

    def _frame(self, kind: FrameType, sid: int, first: int, second: int, size: int) -> bytes:
        if kind in frames.HOP_TYPES:
            sid = 0
        if kind in (FrameType.OPEN, FrameType.RESUME):
            return frames.encode_ask(kind, sid, self._ask(first, second, size))
        if kind in (FrameType.ACCEPT, FrameType.RESUMED):
            answer = Answer(attempt=size % 5, received=first, limit=second, patience=size * 1000)
            return frames.encode_answer(kind, sid, answer)
        if kind == FrameType.DATA:
            return frames.encode_data(sid, first, bytes(1 + size))
        numbers = {
            FrameType.FIN: frames.OFFSET.pack(first),
            FrameType.CREDIT: frames.CREDIT.pack(first, second),
            FrameType.DETACH: frames.CODE.pack(size % 9),
            FrameType.DONE: b"",
            FrameType.GOAWAY: frames.GOAWAY.pack(size % 8, size),
        }
        usual = frames.CODE.pack(size % 9) + b"\xffno!"[: size % 5]
        return frames.encode(kind, sid, numbers.get(kind, bytes(8) if kind in frames.HOP_TYPES else usual))

    def _ask(self, first: int, second: int, size: int) -> Ask:
        """About a stream that liars know, or one that never was."""
        known = [pair.opener.core for pair in self.net.pairs if not pair.opener.trusted]
        token = known[first % len(known)].token if known and size % 3 else b"nobody%09d" % (second % 10**9)
        return Ask(
            token=token,
            attempt=size % 7 if size < 39 else 2**32 - 1,
            limit=min(second, frames.MAX_OFFSET + 1),
            received=min(first, frames.MAX_OFFSET + 1),
            patience=size * 100,
            session="s",
            kind="k",
        )


def _near(number: int, choice: int) -> int:
    return min(HUGE[-1], max(0, number + choice % 5 - 2))


def _spread(number: int) -> int:
    """Mostly small numbers, some at the ends of what fits."""
    return HUGE[number % len(HUGE)] if number % 23 == 22 else number


def told(net: Network, line: Line, end: int, frame: bytes) -> None:
    """A frame arrives at an end of a line, whoever sent it. No other line may suffer."""
    port = line.ends[end]
    line.tainted = True
    alive = {other: [each.alive for each in other.ends] for other in net.lines if other is not line}
    feed = Feed(port.wire, port.feed.pool)
    try:
        feed(frame, net.now)
    except WireError:
        line.lose(end, net.now)
    feed.close()
    net.meet()
    assert all([each.alive for each in other.ends] == was for other, was in alive.items()), "a lie ended another wire"
