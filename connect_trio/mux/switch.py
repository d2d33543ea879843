"""The server in the middle: frames between links and tunnels. Sans-I/O, and all that it knows may be lost.

A circuit pairs an id on a link with an id on a tunnel. The switch copies no payload: it reads the offset of DATA and
FIN, lowers the limit in control frames to what it is ready to hold, writes the other id into the frame where it lies in
the receive buffer, and hands on whole runs of frames. What the other wire does not take at once waits in the lane of
its circuit, never more than `window` bytes a direction, so that reading a wire never has to stop for another.
"""

from __future__ import annotations

from collections.abc import Callable

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import DetachCode, GoawayCode, Peer, RejectCode
from connect_trio.mux.errors import LocalError, WireError
from connect_trio.mux.frames import (
    CREDIT,
    HEADER_SIZE,
    LIMIT_IN_ASK,
    OFFSET,
    RECEIVED_IN_ASK,
    STREAM_ID,
    FrameType,
    Goaway,
    Hello,
)
from connect_trio.mux.halves import FRAME, SMALL
from connect_trio.mux.outbox import QUANTUM, Lane
from connect_trio.mux.wire import Wire

SWITCH_WINDOW = 1 << 20  # bytes that a circuit may have waiting here in each direction
PROMISED = 2 << 30  # bytes that all circuits together may have waiting, though each at least the initial credit
ENDING = 60.0  # seconds that a circuit may be half over: longer than both ends wait for each other's answer

_DATA, _FIN, _CREDIT = int(FrameType.DATA), int(FrameType.FIN), int(FrameType.CREDIT)
_ASKS = (int(FrameType.OPEN), int(FrameType.RESUME))
_ANSWERS = (int(FrameType.ACCEPT), int(FrameType.RESUMED))
_FIRST_ATTEMPT = 1


class Leg(Lane):
    """One side of a circuit, and the lane of what goes out on it.

    The numbers describe the direction that *begins* here: `granted` is the limit that this leg's sender was told,
    (`received`, `limit`) the newest that its receiver said, and `forwarded` what the other leg's writer was handed, or
    the receiver has anyway; `high` is the end of what it sent, FIN counted as one position. `answered`: its side said
    ACCEPT or RESUMED. `over`: its side has said its last frame.
    """

    __slots__ = (
        "answered",
        "forwarded",
        "granted",
        "high",
        "limit",
        "link",
        "over",
        "peer",
        "received",
        "switch",
        "wire",
    )

    peer: Leg

    def __init__(self, switch: Switch, wire: Wire, sid: int, *, link: bool) -> None:
        super().__init__(wire.outbox, sid)
        self.link = link
        self.switch = switch
        self.wire = wire
        self.forwarded = 0
        self.granted = 0
        self.received = 0
        self.limit = 0
        self.high = 0
        self.answered = False
        self.over = False

    def clamp(self) -> int:
        """The limit to tell this leg's sender: what the receiver wants, but no more than we are ready to hold."""
        self.granted = max(self.granted, min(self.limit, self.forwarded + self.switch.window))
        return self.granted

    def heard(self, received: int, limit: int) -> int:
        """The receiver of what begins here said this; the limit to pass on."""
        self.received = max(self.received, received)
        self.limit = limit
        if received > self.forwarded:
            self.forwarded = received
            self.peer.skip(received)
        return self.clamp()

    def skip(self, received: int) -> None:
        """Forget what waits here and is with its receiver, or so it says: its word must not make us hold more."""
        queue = self.queue
        while queue and queue[0][2] <= received:
            buffer = queue.popleft()[1]
            if buffer is not None:
                buffer.drop()
        if not queue:
            self.queue = ()

    def hold(self, run: memoryview, buffer: Buffer, mark: int, *, copied: bool) -> None:
        """Queue frames that the wire did not take; small ones join those before them.

        What the receiver says to hold already is not kept for it.
        """
        if mark <= self.peer.received:
            return
        if not copied and len(run) > SMALL:
            self.push(run, buffer.keep(), mark)
            return
        if self.queue:
            last, owner, _ = self.queue[-1]
            if owner is None and len(last) + len(run) <= SMALL:
                self.queue[-1] = (b"".join((last, run)), None, mark)
                return
        self.push(bytes(run), None, mark)

    def sent(self, mark: int) -> None:
        """The bytes that began at the other leg, before offset `mark`, have left here: there is room for more."""
        source = self.peer
        source.forwarded = max(source.forwarded, mark)
        if source.over or self.over:
            return
        room = min(source.limit, source.forwarded + self.switch.window) - source.granted
        spent = source.granted - source.forwarded < FRAME  # so that it may wait, for however little room there is
        if room >= self.switch.window >> 1 or (spent and room > 0):
            source.outbox.credit(source.sid, source.received, source.clamp())


class Switch:
    """Circuits of one server. A `Handler` of its links and tunnels.

    route: given a session and the link that asks, the tunnel to use; None if there is none here.
    """

    def __init__(self, route: Callable[[str, Wire], Wire | None], *, window: int = SWITCH_WINDOW) -> None:
        if window < frames.INITIAL:
            raise ValueError(f"a switch holds at least {frames.INITIAL} bytes, the protocol's initial credit")
        self.window = self._most = window
        self._circuits = 0
        self.draining = False  # takes nothing new: those who ask are sent elsewhere
        self.greeted: Callable[[Wire, Hello], None] | None = None
        self._route = route
        self._out: Wire | None = None  # where the run goes that is being collected
        self._start = 0
        self._run: list[tuple[Leg, int, int, int]] = []  # (leg it goes out on, start, end, mark)
        self._buffer: Buffer | None = None
        self._ending: dict[Leg, float] = {}  # sides that have said their last frame, and until when the other may take

    # frames

    def on_frame(self, wire: Wire, kind: int, sid: int, buffer: Buffer, start: int, end: int, now: float) -> None:
        leg: Leg | None = wire.ports.get(sid)
        if leg is not None and kind in (_DATA, _FIN):
            offset = OFFSET.unpack_from(buffer.data, start + HEADER_SIZE)[0]
            mark = offset + end - start - frames.DATA_HEADER_SIZE
            # A sender never repeats itself within a circuit: that, and its limit, bound what can wait here.
            if mark > leg.granted or offset < leg.high or leg.over:
                self._refuse(leg, now)
                return
            if kind == _FIN:
                mark += 1
            leg.high = mark
            self._carry(leg.peer, buffer, start, end, mark)
            return
        self._hand_on()
        if leg is not None:
            self._control(leg, kind, buffer.view[start:end], now)
        elif kind in _ASKS:
            self._connect(wire, kind, sid, buffer.view[start:end], now)
        elif not wire.known_id(sid):
            raise WireError(f"{FrameType(kind).name} on stream id {sid}, which was never opened")

    def _carry(self, to: Leg, buffer: Buffer, start: int, end: int, mark: int) -> None:
        """Rewrite the id of a DATA or FIN frame where it lies, and let it join the run for its wire."""
        if self._out is not to.wire or self._run[-1][2] != start:
            self._hand_on()
            self._out, self._start, self._buffer = to.wire, start, buffer
        STREAM_ID.pack_into(buffer.data, start + 4, to.sid)
        self._run.append((to, start, end, mark))

    def on_batch_end(self, wire: Wire, now: float) -> None:
        self._hand_on()
        if self._ending:
            self._sweep(now)

    def _hand_on(self) -> None:
        """Send the collected run, or queue by stream what the wire does not take at once."""
        out, run, buffer = self._out, self._run, self._buffer
        if out is None or buffer is None:
            return
        self._out, self._run, self._buffer = None, [], None
        outbox, low, high = out.outbox, self._start, run[-1][2]
        if outbox.direct is not None and outbox.idle:
            low += outbox.direct(buffer.view[low:high])
        copied = (high - low) * 4 < len(buffer.data)  # a waiting lane must not pin buffers for its small share of them
        since, last = -1, len(run) - 1
        for at, (leg, start, end, mark) in enumerate(run):
            if end <= low:
                leg.sent(mark)
            elif start < low:
                outbox.begin_head(buffer.view[low:end], buffer.keep(), mark, leg)
            else:
                since = start if since < 0 else since
                if at == last or run[at + 1][0] is not leg or run[at + 1][2] - since > QUANTUM:
                    leg.hold(buffer.view[since:end], buffer, mark, copied=copied)
                    since = -1
        if low < high:
            outbox.kick()

    def _control(self, leg: Leg, kind: int, frame: memoryview, now: float) -> None:
        """Any other frame on a circuit: remember what it says, and pass it on ahead of the data."""
        to = leg.peer
        if leg.over:
            return  # a sender's terminal frame was its last on the id
        if kind == _CREDIT:
            received, limit = CREDIT.unpack_from(frame, HEADER_SIZE)
            to.outbox.credit(to.sid, received, to.heard(received, limit))
        elif kind in _ANSWERS and not (leg.link or leg.answered):
            leg.answered = True
            to.outbox.say(self._patched(frame, to, to.heard(*_pair(frame))))
        elif kind == FrameType.DETACH:
            to.outbox.terminate(to, self._patched(frame, to))
            leg.outbox.terminate(leg, frames.encode_detach(leg.sid, DetachCode.LOST))
            self._free(leg)
        elif kind in (FrameType.RESET, FrameType.DONE, FrameType.REJECT):
            to.outbox.terminate(to, self._patched(frame, to))
            leg.over = True
            if kind == FrameType.REJECT or to.over:
                self._free(leg)
            else:
                self._ending[leg] = now + ENDING
        else:
            self._refuse(leg, now)

    def _patched(self, frame: memoryview, to: Leg, limit: int | None = None) -> bytes:
        """A copy of a control frame with the id, and the limit, for the other side."""
        copy = bytearray(frame)
        STREAM_ID.pack_into(copy, 4, to.sid)
        if limit is not None:
            OFFSET.pack_into(copy, LIMIT_IN_ASK, limit)
        return bytes(copy)

    # circuits

    def _connect(self, link: Wire, kind: int, sid: int, frame: memoryview, now: float) -> None:
        if link.peer is None or link.peer.peer != Peer.OPENER:
            raise WireError("only an opener may open streams")  # an agent, in particular, not to another's tunnel
        link.admit_id_untrusted(sid)
        ask = frames.decode_ask_untrusted(frame[HEADER_SIZE:])
        if self.draining:
            link.outbox.say(frames.encode_detach(sid, DetachCode.DRAINING))
            return
        tunnel = self._route(ask.session, link)
        if tunnel is None or tunnel.gone:
            link.outbox.say(frames.encode_detach(sid, DetachCode.NO_ROUTE))
            return
        try:
            far_id = tunnel.new_id()
        except LocalError as exc:
            if kind == FrameType.OPEN and ask.attempt == _FIRST_ATTEMPT:
                link.outbox.say(frames.encode_say(FrameType.REJECT, sid, RejectCode.OVERLOADED, str(exc)))
            else:  # the stream may live already: there may be room by another way
                link.outbox.say(frames.encode_detach(sid, DetachCode.NO_ROUTE))
            return
        near, far = Leg(self, link, sid, link=True), Leg(self, tunnel, far_id, link=False)
        near.peer, far.peer = far, near
        if kind == FrameType.OPEN and ask.attempt == _FIRST_ATTEMPT:
            near.granted = frames.INITIAL
        self._count(1)
        link.bind(near.sid, near, now)
        tunnel.bind(far.sid, far, now)
        tunnel.outbox.say(self._patched(frame, far, far.heard(ask.received, ask.limit)))

    def _refuse(self, leg: Leg, now: float) -> None:
        """The sender broke the rules of the circuit: it is cut both ways, and the sender's wire is told on."""
        self._hand_on()
        self._cut(leg, DetachCode.CONGESTED)
        leg.wire.count_lie("a frame that its circuit does not allow", now)

    def _cut(self, leg: Leg, code: DetachCode) -> None:
        for each in (leg, leg.peer):
            each.outbox.terminate(each, frames.encode_detach(each.sid, code))
        self._free(leg)

    def _count(self, more: int) -> None:
        """The more circuits, the less is promised to each; what was promised before is not taken back."""
        self._circuits += more
        share = PROMISED // (2 * max(1, self._circuits))
        self.window = min(self._most, max(frames.INITIAL, share))

    def _free(self, leg: Leg) -> None:
        if leg.wire.ports.get(leg.sid) is leg:
            self._count(-1)
        for each in (leg, leg.peer):
            each.over = True
            each.clear()
            each.wire.unbind(each.sid)
            self._ending.pop(each, None)

    def _sweep(self, now: float) -> None:
        """Free circuits of which one side has not answered the other's last frame."""
        while self._ending:
            leg, due = next(iter(self._ending.items()))
            if due > now:
                return
            self._cut(leg, DetachCode.LOST)

    # the life of wires

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None:
        if self.greeted is not None:
            self.greeted(wire, hello)

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None:
        """The wire takes nothing new (`wire.closing`); what it carries goes on."""

    def on_lost(self, wire: Wire, now: float) -> None:
        """Whoever is at the other side of each circuit learns it before anything else is sent there.

        A link that has ended is most likely that of a process that has; one that is silent may only be cut off.
        """
        self._out, self._run, self._buffer = None, [], None
        for leg in list(wire.ports.values()):
            other: Leg = leg.peer
            code = DetachCode.LINK_LOST if leg.link and not wire.silent else DetachCode.LOST
            other.outbox.terminate(other, frames.encode_detach(other.sid, code))
            self._free(leg)

    def displace(self, old: Wire) -> None:
        """A newer tunnel has taken the place of this one: no circuit uses it any more."""
        for leg in list(old.ports.values()):
            self._cut(leg, DetachCode.LOST)
        old.goaway(GoawayCode.DISPLACED, "a newer tunnel of the same agent took its place")


def _pair(frame: memoryview) -> tuple[int, int]:
    """`received` and `limit` of OPEN, RESUME, ACCEPT or RESUMED."""
    received: int = OFFSET.unpack_from(frame, RECEIVED_IN_ASK)[0]
    limit: int = OFFSET.unpack_from(frame, LIMIT_IN_ASK)[0]
    return received, limit
