"""One endpoint under test on several wires, whose far ends the test plays itself, frame by frame.

Frames are compared as short texts, such as "RESUME/3 #2 has 700": type, id, and what matters of the rest.
"""

from __future__ import annotations

from connect_trio.mux import frames
from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import DetachCode, Peer, RejectCode, ResetCode, name_of
from connect_trio.mux.frames import Answer, Ask, FrameType
from connect_trio.mux.opener import Opener
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Liveness, Wire
from tests.support.core import CountingChunkPool, CountingPool, Feed, Frame, drain_frames, greeted

F = FrameType
LIMIT = 1 << 20
TOKEN = b"T" * 16
PATIENT = Liveness(dead=1e9, idle_dead=1e9)  # the far ends say nothing but what the test says
CODES = {F.RESET: ResetCode, F.REJECT: RejectCode, F.DETACH: DetachCode}


def show(frame: Frame) -> str:
    kind, payload = F(frame.kind), memoryview(frame.payload)
    head = f"{kind.name}/{frame.sid}"
    if kind in (F.OPEN, F.RESUME):
        ask = frames.decode_ask_untrusted(payload)
        return f"{head} #{ask.attempt} has {ask.received}"
    if kind in (F.ACCEPT, F.RESUMED):
        answer = frames.decode_answer_untrusted(payload)
        return f"{head} #{answer.attempt} has {answer.received}"
    if kind in CODES:
        return f"{head} {name_of(CODES[kind], frames.decode_say_untrusted(payload)[0])}"
    if kind == F.DATA:
        offset = frames.OFFSET.unpack_from(payload)[0]
        return f"{head} {offset}:{offset + len(payload) - frames.OFFSET_SIZE}"
    if kind == F.FIN:
        return f"{head} {frames.OFFSET.unpack(payload)[0]}"
    if kind == F.CREDIT:
        return f"{head} has {frames.CREDIT.unpack(payload)[0]}"
    return head


# what the far end says


def ask(
    kind: FrameType, sid: int, attempt: int, received: int = 0, *, token: bytes = TOKEN, limit: int = LIMIT
) -> bytes:
    return frames.encode_ask(kind, sid, Ask(token=token, attempt=attempt, received=received, limit=limit))


def answer(kind: FrameType, sid: int, attempt: int, received: int = 0, *, limit: int = LIMIT) -> bytes:
    return frames.encode_answer(kind, sid, Answer(attempt=attempt, received=received, limit=limit, patience=600_000))


def data(sid: int, offset: int, size: int) -> bytes:
    return frames.encode_data(sid, offset, bytes((offset + at) & 255 for at in range(size)))


def detach(sid: int, code: DetachCode = DetachCode.LOST) -> bytes:
    return frames.encode_detach(sid, code)


def reset(sid: int, code: ResetCode = ResetCode.APP) -> bytes:
    return frames.encode_say(F.RESET, sid, code)


def done(sid: int) -> bytes:
    return frames.encode(F.DONE, sid)


class Scene:
    """Wires 0, 1 ... to the far ends; `now` is what time it is."""

    def __init__(self, endpoint: Opener | Acceptor, us: Peer, wires: int) -> None:
        self.endpoint = endpoint
        self.now = 0.0
        self.pool = CountingPool()
        self.chunks = CountingChunkPool()
        self.wires: list[Wire] = []
        self.feeds: list[Feed] = []
        for _ in range(wires):
            dialled = us is Peer.OPENER
            wire, feed = greeted(endpoint, us, Peer.SWITCH, dialled=dialled, pool=self.pool, liveness=PATIENT)
            self.wires.append(wire)
            self.feeds.append(feed)

    def say(self, which: int, *said: bytes) -> None:
        self.feeds[which](b"".join(said), self.now)

    def hear(self, which: int) -> list[str]:
        """All that was said on a wire since it was asked last."""
        return [show(frame) for frame in drain_frames(self.wires[which])]

    def lose(self, which: int) -> None:
        self.wires[which].lost(self.now)

    def tick(self, seconds: float) -> None:
        """Time passes; also for those who count from the next tick."""
        self.now += seconds
        self.endpoint.tick(self.now)

    def write_chunk(self, stream: CoreStream, size: int) -> None:
        chunk = self.chunks.take_chunk()
        for at, slot in enumerate(chunk.slots):
            slot[:] = bytes([at]) * len(slot)
        stream.write_chunk(chunk, size)


class OpenerScene(Scene):
    """`homeless` notes who needs a way."""

    def __init__(self, wires: int = 3, *, budget: Budget | None = None) -> None:
        self.opener = Opener(budget=budget)
        self.homeless: list[CoreStream] = []
        self.opener.homeless = lambda stream, wire: self.homeless.append(stream)
        super().__init__(self.opener, Peer.OPENER, wires)

    def open(self, which: int = 0, token: bytes = TOKEN) -> CoreStream:
        return self.opener.open(self.wires[which], token=token, now=self.now)

    def opened(self, which: int = 0, token: bytes = TOKEN) -> CoreStream:
        """An accepted stream; what was said to get there is gone."""
        stream = self.open(which, token)
        assert stream.home is not None
        self.say(which, answer(F.ACCEPT, stream.home.sid, 1))
        self.hear(which)
        return stream

    def attempt(self, stream: CoreStream, which: int) -> None:
        self.opener.attempt(stream, self.wires[which], self.now)


class AcceptorScene(Scene):
    """Each stream is accepted as it comes, unless `served` says otherwise."""

    def __init__(self, wires: int = 3, *, serves: bool = True, budget: Budget | None = None) -> None:
        self.streams: list[CoreStream] = []
        self.serves = serves
        self.acceptor = Acceptor(self._on_open, budget=budget)
        super().__init__(self.acceptor, Peer.ACCEPTOR, wires)

    def _on_open(self, stream: CoreStream) -> None:
        self.streams.append(stream)
        if self.serves:
            stream.accept()

    def opened(self, which: int = 0, sid: int = 1, token: bytes = TOKEN) -> CoreStream:
        """An accepted stream; what was said to get there is gone."""
        self.say(which, ask(F.OPEN, sid, 1, token=token))
        self.hear(which)
        return self.streams[-1]
