"""One wire, one hop: what both of its ends must agree on, whatever the frames on it mean.

Sans-I/O. A wire is driven by three things: calls, received bytes, and `now` (seconds on any monotonic clock). It says
HELLO, answers PING, watches the peer, allocates ids, and hands every frame of a stream to its handler; what goes out
waits in its outbox. It knows no stream: `ports` maps an id to whatever its handler put there.

Call order: `receive(buffer, end, now)` for each read, then look at `outbox`; `tick(now)` not later than
`deadline(now)`; `lost(now)` once when the connection is gone. `receive` and `tick` raise WireError when the wire must
end; the shell then sends what the outbox holds (a GOAWAY, if the peer is to know), closes, and calls `lost`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.codes import GoawayCode
from connect_trio.mux.errors import LocalError, WireError
from connect_trio.mux.frames import HEADER, HEADER_SIZE, FrameType, Goaway, Hello
from connect_trio.mux.outbox import Outbox

MAX_ID = 2**32 - 1

# Plain numbers: looking a member up in its enum costs more than the comparison.
_FIRST_STREAM_TYPE = 16
_OPEN, _RESUME, _RESET = int(FrameType.OPEN), int(FrameType.RESUME), int(FrameType.RESET)


@attrs.frozen(kw_only=True)
class Liveness:
    """When a peer that says nothing is asked, and when it is given up; seconds.

    A wire with streams is asked after `ping` and dead after `dead`. One without is asked by the end that dialled, every
    `idle_ping`, and dead after `idle_dead`. hello: how long the first frame may take.
    """

    ping: float = 1.0
    dead: float = 5.0
    idle_ping: float = 25.0
    idle_dead: float = 60.0
    hello: float = 10.0


@attrs.frozen(kw_only=True)
class Limits:
    """streams: most ids in use at once that the peer may make. rate: most frames that make or end streams per second
    that the peer may send on average, with bursts of `burst`: at least `streams`, since the loss of a wire behind a
    switch ends all of them at once. lies: most streams per minute that break the rules."""

    streams: int = 65536
    rate: float = 20_000
    burst: float = 2 * 65536
    lies: int = 10


class Handler(Protocol):
    """What gives frames a meaning: an endpoint or a switch. Never waits; raises WireError to end the wire."""

    def on_hello(self, wire: Wire, hello: Hello, now: float) -> None: ...

    def on_frame(self, wire: Wire, kind: int, sid: int, buffer: Buffer, start: int, end: int, now: float) -> None:
        """A whole frame of a stream: header at `start`, payload to `end`, both in `buffer`."""
        ...

    def on_batch_end(self, wire: Wire, now: float) -> None:
        """No more whole frames in what was read."""
        ...

    def on_goaway(self, wire: Wire, goaway: Goaway, now: float) -> None: ...

    def on_lost(self, wire: Wire, now: float) -> None:
        """The wire is gone; its `ports` are still there to look at."""
        ...


class Wire:
    """State of one connection that carries frames. `dialled`: this end made the connection, and gives odd ids."""

    def __init__(
        self,
        handler: Handler,
        hello: Hello,
        *,
        dialled: bool,
        now: float,
        liveness: Liveness = Liveness(),
        limits: Limits = Limits(),
        label: str = "",
    ) -> None:
        self.handler = handler
        self.dialled = dialled
        self.liveness = liveness
        self.limits = limits
        self.label = label
        self.outbox = Outbox()
        self.ports: dict[int, Any] = {}
        self.peer: Hello | None = None
        self.closing: Goaway | None = None  # the peer's GOAWAY
        self.alarm: Callable[[], None] = _nobody  # called when `deadline` has moved nearer
        self.ponged: Callable[[bytes], None] = _unasked  # called with what a PONG repeats; may raise WireError
        self.gone = False
        self.silent = False  # given up because nothing was heard: the peer may live and come back
        self._next_id = 1 if dialled else 2
        self._highest_peer_id = 0
        self._made = now
        self._heard = now
        self._busy_since: float | None = None
        self._pinged = False
        self._bucket = limits.burst
        self._bucket_at = now
        self._lies: list[float] = []
        self.outbox.say(frames.encode_hello(hello))

    def __repr__(self) -> str:
        state = "gone" if self.gone else "closing" if self.closing else "up" if self.peer else "waiting for HELLO"
        return f"<Wire {self.label or 'unnamed'} {state} streams={len(self.ports)}>"

    # ids

    def new_id(self) -> int:
        """An id that was never used on this wire. Raises LocalError when no stream can be opened here (any more)."""
        sid = self._next_id
        if self.gone:
            raise LocalError("this wire is gone")
        if sid > MAX_ID:
            raise LocalError("out of stream ids on this wire")
        if self.peer is not None and len(self.ports) >= self.peer.streams:
            raise LocalError(f"the peer takes no more than {self.peer.streams} streams at once")
        self._next_id += 2
        return sid

    def admit_id_untrusted(self, sid: int) -> None:
        """A peer begins to use an id: it must be new, of the peer's parity, and within the limit of streams."""
        if sid & 1 == self._next_id & 1 or sid <= self._highest_peer_id:
            raise WireError(f"stream id {sid} cannot be opened by this peer")
        self._highest_peer_id = sid
        if len(self.ports) >= self.limits.streams:
            raise WireError(f"more than {self.limits.streams} streams at once", GoawayCode.OVERLOADED)

    def known_id(self, sid: int) -> bool:
        """Whether the id was announced by either side: a frame on one that never was is a framing error."""
        return sid < self._next_id if sid & 1 == self._next_id & 1 else sid <= self._highest_peer_id

    def bind(self, sid: int, port: object, now: float) -> None:
        """Frames on `sid` belong to `port` from now on; the first one starts the fast clock."""
        if not self.ports:
            self._busy_since = now
            self.alarm()
        self.ports[sid] = port

    def unbind(self, sid: int) -> None:
        self.ports.pop(sid, None)
        if not self.ports:
            self._busy_since = None

    # input

    def receive(self, buffer: Buffer, end: int, now: float) -> int:
        """Dispatch the whole frames in `buffer.data[:end]`; how many bytes they were.

        The clock is looked at before the bytes: a process that was paused for longer than the peer waits must not act
        on what lay in its buffers. Raises WireError.
        """
        self._check_alive(now)
        self._heard = now
        self._pinged = False
        try:
            return self._dispatch(buffer, end, now)
        finally:  # also of what came before garbage: it counts as received
            self.handler.on_batch_end(self, now)

    def _dispatch(self, buffer: Buffer, end: int, now: float) -> int:
        data, at, on_frame = buffer.data, 0, self.handler.on_frame
        unpack, lengths = HEADER.unpack_from, frames.LENGTHS
        while end - at >= HEADER_SIZE:
            word, sid = unpack(data, at)
            kind, length = word >> 24, word & 0xFFFFFF
            bounds = lengths.get(kind)
            if bounds is None or not bounds[0] <= length <= bounds[1] or (kind < _FIRST_STREAM_TYPE) != (sid == 0):
                frames.check_header_untrusted(kind, length, sid)
            stop = at + HEADER_SIZE + length
            if stop > end:
                break
            if kind >= _FIRST_STREAM_TYPE and self.peer is not None:
                if kind >= _RESET or kind in (_OPEN, _RESUME):
                    self._spend(now)
                on_frame(self, kind, sid, buffer, at, stop, now)
            else:
                self._hop_frame(kind, buffer.view[at + HEADER_SIZE : stop], now)
            at = stop
        return at

    def _hop_frame(self, kind: int, payload: memoryview, now: float) -> None:
        if (kind == FrameType.HELLO) != (self.peer is None):
            raise WireError("HELLO must be the first frame and come once")
        if kind == FrameType.HELLO:
            self.peer = frames.decode_hello_untrusted(payload)
            self.alarm()  # from the time for a HELLO to the clocks of a wire in use
            self.handler.on_hello(self, self.peer, now)
        elif kind == FrameType.PING:
            self.outbox.say(frames.encode(FrameType.PONG, 0, bytes(payload)))
        elif kind == FrameType.GOAWAY:
            self.closing = frames.decode_goaway_untrusted(payload)
            self.handler.on_goaway(self, self.closing, now)
        elif kind == FrameType.PONG:
            self.ponged(bytes(payload))

    def _spend(self, now: float) -> None:
        """Token bucket over the frames that make or end streams (CVE-2023-44487 and its kin)."""
        limits = self.limits
        self._bucket = min(limits.burst, self._bucket + (now - self._bucket_at) * limits.rate) - 1
        self._bucket_at = now
        if self._bucket < 0:
            raise WireError("streams are opened and ended too fast", GoawayCode.OVERLOADED)

    def count_lie(self, text: str, now: float) -> None:
        """A stream broke the rules and was reset. Raises WireError if that happens again and again."""
        self._lies = [at for at in self._lies if now - at < 60]
        self._lies.append(now)
        if len(self._lies) > self.limits.lies:
            raise WireError(f"more than {self.limits.lies} streams broke the rules within a minute, the last: {text}")

    # time

    @property
    def asked(self) -> bool:
        """Whether the peer was asked for a sign of life and has given none since: it may be gone."""
        return self._pinged

    def _quiet(self, now: float) -> tuple[float, float, bool]:
        """Seconds of silence that count, after how many the peer is asked, and whether the fast clock runs."""
        if self.peer is None:  # parts of a HELLO are no sign of life
            return now - self._made, self.liveness.hello, False
        if self._busy_since is not None:
            return now - max(self._heard, self._busy_since), self.liveness.ping, True
        return now - self._heard, self.liveness.idle_ping, False

    def _patience(self, busy: bool) -> float:
        if self.peer is None:
            return self.liveness.hello
        return self.liveness.dead if busy else self.liveness.idle_dead

    def _check_alive(self, now: float) -> None:
        quiet, _, busy = self._quiet(now)
        if quiet > self._patience(busy):
            self.silent = True
            what = "no HELLO came" if self.peer is None else "nothing was heard of the peer"
            raise WireError(f"{what} for {quiet:.1f} s", None)

    def ping(self, payload: bytes) -> None:
        """Ask now, with 8 bytes that the answer repeats (`ponged`): what has passed there and back has a way."""
        self._pinged = True
        self.outbox.say(frames.encode(FrameType.PING, 0, payload))

    def tick(self, now: float) -> None:
        """Ask or give up a silent peer. Raises WireError for the latter."""
        self._check_alive(now)
        quiet, ask_after, busy = self._quiet(now)
        if quiet >= ask_after and not self._pinged and self.peer is not None and (busy or self.dialled):
            self.ping(b"\0" * 8)

    def deadline(self, now: float) -> float:
        """When `tick` has to be called next, if nothing is heard until then."""
        quiet, ask_after, busy = self._quiet(now)
        since = now - quiet
        dead = since + self._patience(busy) + 0.001
        if self.peer is None:
            return dead
        if not (busy or self.dialled):
            grain = self.liveness.idle_dead / 60  # a second: ten thousand idle wires share few wake-ups
            return math.ceil(dead / grain) * grain
        # An answer that comes meanwhile moves the next question, so that each has the time of `dead` - `ping`.
        return min(dead, now + ask_after) if self._pinged else since + ask_after

    # end

    def goaway(self, code: GoawayCode, text: str = "", *, grace: float = 0) -> None:
        """Tell the peer that this wire will end, `grace` seconds from now at the latest."""
        self.outbox.say(frames.encode_goaway(Goaway(code=code, grace=int(grace * 1000), text=text)))

    def lost(self, now: float) -> None:
        """The connection is gone. Safe to call twice."""
        if self.gone:
            return
        self.gone = True
        self.alarm = _nobody
        self.handler.on_lost(self, now)
        self.ports.clear()
        self.outbox.close()


def _nobody() -> None:
    """Nobody keeps the clock for this wire (yet)."""


def _unasked(payload: bytes) -> None:
    """Nobody waits for this PONG; that it came is a sign of life."""
