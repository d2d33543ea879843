"""A switch under test: a link and two tunnels whose far ends the test plays itself, frame by frame."""

from __future__ import annotations

from connect_trio.mux import frames
from connect_trio.mux.codes import Peer
from connect_trio.mux.frames import Ask, FrameType
from connect_trio.mux.outbox import Outbox
from connect_trio.mux.switch import SWITCH_WINDOW, Switch
from connect_trio.mux.wire import Limits, Wire
from tests.support.core import CountingPool, Feed, Frame, drain_frames, greeted

LIMIT = 1 << 30  # what the ends of these tests would take, so that only the switch bounds


class Bench:
    """`a` and `b` name the tunnels of two sessions."""

    def __init__(self, *, window: int = SWITCH_WINDOW, limits: Limits | None = None) -> None:
        self.pool = CountingPool()
        self.switch = Switch(lambda session, link: self.wires.get(session), window=window)
        self.wires: dict[str, Wire] = {}
        self.feeds: dict[str, Feed] = {}
        self.limits = limits
        self.now = 0.0
        for name, peer in (("link", Peer.OPENER), ("a", Peer.ACCEPTOR), ("b", Peer.ACCEPTOR)):
            self.add(name, peer)
        self.opened = 0

    def add(self, name: str, peer: Peer) -> None:
        self.wires[name], self.feeds[name] = greeted(
            self.switch, Peer.SWITCH, peer, dialled=False, pool=self.pool, now=self.now, limits=self.limits
        )

    def say(self, name: str, *data: bytes) -> None:
        """The far end of a wire says this, in one read. Raises WireError."""
        self.feeds[name](b"".join(data), self.now)

    def hear(self, name: str) -> list[Frame]:
        """All that the switch says to the far end of a wire."""
        return drain_frames(self.wires[name])

    def kinds(self, name: str) -> list[tuple[int, int]]:
        return [(frame.kind, frame.sid) for frame in self.hear(name)]

    def outbox(self, name: str) -> Outbox:
        return self.wires[name].outbox

    def ask(self, session: str = "a", *, limit: int = LIMIT, attempt: int = 1) -> tuple[int, bytes]:
        """Id and OPEN frame of a new stream of the link."""
        self.opened += 1
        sid = 2 * self.opened - 1
        ask = Ask(token=sid.to_bytes(16, "big"), attempt=attempt, limit=limit, session=session, kind="http")
        return sid, frames.encode_ask(FrameType.OPEN, sid, ask)

    def circuit(self, session: str = "a", *, limit: int = LIMIT) -> tuple[int, int]:
        """An accepted stream: its ids on the link and on the tunnel. What was said to get there is gone."""
        sid, frame = self.ask(session, limit=limit)
        self.say("link", frame)
        far = self.hear(session)[-1].sid
        answer = frames.Answer(attempt=1, received=0, limit=limit)
        self.say(session, frames.encode_answer(FrameType.ACCEPT, far, answer))
        self.hear("link")
        return sid, far

    def held(self, name: str) -> int:
        """Bytes that wait for a wire."""
        outbox = self.outbox(name)
        lanes = sum(len(data) for lane in outbox.ready for data, _, _ in lane.queue)
        return lanes + (len(outbox.head[0]) if outbox.head is not None else 0)

    @property
    def circuits(self) -> dict[str, int]:
        return {name: len(wire.ports) for name, wire in self.wires.items()}


def data_run(sid: int, offset: int, size: int, *, frame: int = 16384) -> bytes:
    """DATA frames for `size` bytes."""
    out = bytearray()
    end = offset + size
    while offset < end:
        count = min(frame, end - offset)
        out += frames.encode_data(sid, offset, bytes(count))
        offset += count
    return bytes(out)
