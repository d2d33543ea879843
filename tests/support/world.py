"""An opener and an acceptor on wires without I/O, with or without a switch between them.

Nothing moves by itself: a test says which end flushes how many bytes, how many of them arrive, and what time it is.
The applications write a pattern that tells at each offset which byte must be there. Streams that lose their wires are
resumed as soon as all wires are good.
"""

from __future__ import annotations

import random
from collections import deque

import attrs

from connect_trio.mux.acceptor import MAX_PATIENCE, Acceptor, waits
from connect_trio.mux.buffers import Pool
from connect_trio.mux.codes import Peer
from connect_trio.mux.endpoint import STUB
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import FrameType
from connect_trio.mux.halves import CHUNK, FRAME
from connect_trio.mux.opener import Opener
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.switch import Leg, Switch
from connect_trio.mux.wire import Handler, Wire
from tests.support.core import CountingChunkPool, CountingPool, Feed, hello

PATTERN = random.Random(1).randbytes(8192)


def pattern(seed: int, start: int, count: int) -> bytes:
    """`count` bytes of an endless text, different for each seed."""
    at = (start + seed * 997) % len(PATTERN)
    text = PATTERN[at:]
    while len(text) < count:
        text += PATTERN
    return text[:count]


class Port:
    """One end of one wire. `flight`: bytes that left here and have not arrived at `other`."""

    other: Port

    def __init__(self, handler: Handler, peer: Peer, pool: Pool, *, dialled: bool, now: float) -> None:
        self.wire = Wire(handler, hello(peer), dialled=dialled, now=now, label=peer.name.lower())
        self.feed = Feed(self.wire, pool)
        self.flight = bytearray()

    def flush(self, most: int) -> None:
        """The transport takes at most `most` bytes."""
        parts = self.wire.outbox.gather()
        data = b"".join(parts)[:most]
        self.flight += data
        if parts:
            self.wire.outbox.sent(len(data))

    def short_cut(self, takes: deque[int]) -> None:
        """Let a switch send at once what the next number in `takes` allows."""

        def direct(view: memoryview) -> int:
            count = min(len(view), takes[0])
            takes.rotate(-1)
            self.flight.extend(view[:count])
            return count

        self.wire.outbox.direct = direct

    def deliver(self, most: int, now: float) -> None:
        """Bytes arrive at the other end. Raises WireError."""
        data = bytes(self.flight[:most])
        del self.flight[:most]
        self.other.feed(data, now)


@attrs.define(eq=False)
class App:
    """The application at one end of a stream."""

    core: CoreStream
    seed: int
    wrote: int = 0
    read: int = 0
    ended: bool = False  # read the end
    closed: bool = False

    def take(self, data: bytes | memoryview, source: int) -> None:
        assert bytes(data) == pattern(source, self.read, len(data)), "a byte is wrong, doubled, or lost"
        self.read += len(data)


@attrs.define(eq=False)
class Pair:
    """Both ends of a stream; the acceptor's when it is there."""

    opener: App
    acceptor: App | None = None
    dropped: bool = False  # an application dropped or refused it

    def sides(self) -> list[tuple[App, App | None]]:
        far = self.acceptor
        return [(self.opener, far)] + ([(far, self.opener)] if far else [])


class World:
    """The whole arrangement. `direct`: how many bytes a switch's short cuts take, in turn; empty: no short cut."""

    def __init__(
        self, *, window: int, switch_window: int | None = None, direct: tuple[int, ...] = (), allowance: int = 1 << 22
    ) -> None:
        self.now = 0.0
        self.pool = CountingPool()
        self.chunks = CountingChunkPool()
        self.asked: deque[CoreStream] = deque()
        self.opener = Opener(window=window, allowance=allowance)
        self.opener.homeless = self._homeless
        self.acceptor = Acceptor(self.asked.append, window=window, allowance=allowance)
        self.switch: Switch | None = None
        if switch_window is not None:
            self.switch = Switch(lambda session, link: self._ports[2].wire, window=switch_window)
        self.direct = deque(direct)
        self.homeless: list[CoreStream] = []  # streams that wait for wires
        self.pairs: list[Pair] = []
        self.all_ports: list[Port] = []
        self._ports: list[Port] = []
        self.connect()

    @property
    def ports(self) -> list[Port]:
        return self._ports

    def connect(self) -> None:
        """New wires, by which the homeless go on; those that were there must be lost already."""
        handlers: list[tuple[Handler, Peer, bool]] = [(self.opener, Peer.OPENER, True)]
        if self.switch is not None:
            handlers += [(self.switch, Peer.SWITCH, False), (self.switch, Peer.SWITCH, False)]
        handlers.append((self.acceptor, Peer.ACCEPTOR, self.switch is not None))
        made = [Port(h, peer, self.pool, dialled=dialled, now=self.now) for h, peer, dialled in handlers]
        for left, right in zip(made[::2], made[1::2], strict=True):
            left.other, right.other = right, left
        if self.direct:
            for port in made[1:3]:
                port.short_cut(self.direct)
        self._ports = made
        self.all_ports += made
        homeless, self.homeless = self.homeless, []
        for stream in homeless:
            if stream in self.opener.streams:
                self._homeless(stream, None)

    @property
    def good(self) -> bool:
        """Whether all wires work."""
        return not any(port.wire.gone for port in self._ports)

    def reconnect(self) -> None:
        """New wires if one of them is lost."""
        if not self.good:
            self.lose_all()
            self.connect()

    def _homeless(self, stream: CoreStream, wire: Wire | None) -> None:
        if self.good:
            self.opener.attempt(stream, self._ports[0].wire, self.now)
        elif stream not in self.homeless:  # one that is reset while it waits is named again
            self.homeless.append(stream)

    def move(self, core: CoreStream) -> bool:
        """Ask for the same way once more, beside the home that still works; whether that could be asked."""
        can = self.good and core.home is not None and core.accepted and core.trial is None
        if can:
            self.opener.attempt(core, self._ports[0].wire, self.now)
        return can

    # what happens on wires

    def flush(self, which: int, most: int = 1 << 30) -> None:
        port = self._ports[which % len(self._ports)]
        if not port.wire.gone:
            port.flush(most)

    def deliver(self, which: int, most: int = 1 << 30) -> None:
        port = self._ports[which % len(self._ports)]
        if port.wire.gone or port.other.wire.gone:
            return
        try:
            port.deliver(most, self.now)
        except WireError as exc:
            if exc.code is not None:
                raise AssertionError("honest ends do not break the rules") from exc
            self.lose(which)
        self._meet()

    def _meet(self) -> None:
        """Streams that arrived at the acceptor get an application."""
        while self.asked:
            core = self.asked.popleft()
            pair = next(pair for pair in self.pairs if pair.opener.core.ask.token == core.ask.token)
            # A refusal may be lost with its wire: then the same question comes again.
            before = pair.acceptor.core.end if pair.acceptor is not None else None
            assert pair.acceptor is None or (before and before.cause is FrameType.REJECT), "a stream was served twice"
            pair.acceptor = App(core, 2 * self.pairs.index(pair) + 1)

    def lose(self, which: int) -> None:
        """The wire of a port breaks, and both its ends notice."""
        port = self._ports[which % len(self._ports)]
        for end in (port, port.other):
            end.wire.lost(self.now)
            end.feed.close()
            end.flight.clear()

    def lose_all(self) -> None:
        for which in range(len(self._ports)):
            self.lose(which)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for endpoint in (self.opener, self.acceptor):
            due = endpoint.deadline()
            if due is not None and due <= self.now:
                endpoint.tick(self.now)
        for which, port in enumerate(self._ports):
            if port.wire.gone:
                continue
            try:
                if port.wire.deadline(self.now) <= self.now:
                    port.wire.tick(self.now)
            except WireError:
                self.lose(which)

    def settle(self) -> None:
        """Everything that was said arrives, until nobody says anything more."""
        for _ in range(10_000):
            if not any(port.flight or not port.wire.outbox.idle for port in self._ports if not port.wire.gone):
                return
            for which in range(len(self._ports)):
                self.flush(which)
                self.deliver(which)
        raise AssertionError("the wires never become quiet")

    # what applications do

    def open(self) -> Pair:
        token = len(self.pairs).to_bytes(16, "big")
        core = self.opener.open(self._ports[0].wire, token=token, now=self.now, session="s", kind="test")
        self.pairs.append(Pair(App(core, 2 * len(self.pairs))))
        return self.pairs[-1]

    def write(self, app: App, size: int, *, chunked: bool = False) -> int:
        if app.core.asked or app.core.send.window.finished:
            return 0
        size = min(size, app.core.room, CHUNK if chunked else FRAME)
        if size:
            data = pattern(app.seed, app.wrote, size)
            if chunked:
                chunk = self.chunks.take_chunk()
                for at, slot in enumerate(chunk.slots[: -(-size // FRAME)]):
                    part = data[at * FRAME : (at + 1) * FRAME]
                    slot[: len(part)] = part
                app.core.write_chunk(chunk, size)
            else:
                app.core.write(data)
            app.wrote += size
        return size

    def finish(self, app: App) -> None:
        core = app.core
        if core.end is None and not core.asked and not core.send.window.finished:
            core.finish()

    def read(self, app: App, most: int, how: str = "some") -> None:
        if app.closed:
            return
        receive, source = app.core.receive, app.seed ^ 1
        if how == "some":
            app.take(receive.take_some(most), source)
        elif how == "views":
            views = receive.views(3)
            data = b"".join(views)[:most]
            app.take(data, source)
            receive.advance(len(data))
        elif piece := receive.take():
            app.take(piece[0], source)
            if piece[1] is not None:
                piece[1].drop()
        app.core.took()
        app.ended = app.ended or (receive.window.finished and not receive.queue)

    def close(self, app: App) -> None:
        app.closed = True
        app.core.abandon(self.now)

    # what must be true

    def check_bounds(self) -> None:
        for pair in self.pairs:
            for app, far in pair.sides():
                send, receive = app.core.send.window, app.core.receive
                assert send.base <= send.position <= send.end + send.finished
                assert send.base <= min(send.position, send.end) <= send.limit, "sent more than is allowed"
                assert send.end - send.base <= send.allowance
                waiting = sum(len(data) for data, _ in receive.queue)
                assert waiting <= max(receive.window.window, receive.window.granted)
                if app.core.end is None:
                    assert waiting == receive.window.buffered <= receive.window.window
                if far is not None and app.core.end is None and far.core.end is None:
                    assert send.limit <= far.core.receive.window.granted, "more is allowed than the receiver granted"
        for port in self._ports:
            for leg in port.wire.ports.values():
                if isinstance(leg, Leg):
                    held = sum(len(data) for data, _, _ in leg.queue)
                    payload = leg.peer.high - leg.peer.forwarded
                    assert payload <= leg.switch.window + 1, "a switch holds more than its window"
                    assert held <= 17 * max(1, payload)
        assert self.chunks.in_use <= len(self.chunks.made)
        assert self.pool.in_use >= 0

    def check_nothing_remembered(self) -> None:
        for port in self.all_ports:
            assert not port.wire.ports, "a circuit or an id is still in use"
        for endpoint in (self.opener, self.acceptor):
            assert not endpoint._unacknowledged
            assert not endpoint._detached
            assert not endpoint.timers
            assert not endpoint.streams
            assert not endpoint.budget.used, "bytes are counted that nobody keeps"
        assert not self.acceptor.asked
        assert not self.acceptor.tombstones
        for port in self._ports:
            port.feed.close()
        if self.switch is not None:
            assert not self.switch._ending
        assert not self.chunks.in_use, "sent buffers were not given back"
        assert not self.pool.in_use, "received buffers were not given back"

    def wind_down(self) -> None:
        """Both applications close everything; the network is good; then all lingers pass."""
        self.reconnect()
        self.settle()
        for pair in self.pairs:
            for app, _ in pair.sides():
                self.close(app)
        for _ in range(150):
            self.settle()
            self.tick(0.9)
        self.settle()
        assert all(pair.opener.core.end for pair in self.pairs)
        self.outlive_lingers()

    def outlive_lingers(self) -> None:
        """A long time passes without wires: what is remembered of ended streams goes, and nothing hides behind it."""
        assert not any(port.wire.ports for port in self._ports), "an id is still in use"
        self.lose_all()
        for seconds in (0.0, STUB + 1, waits(MAX_PATIENCE) + 1):
            self.tick(seconds)


def clean(pair: Pair) -> bool:
    """Whether the stream ended because both sides were done."""
    return all(app.core.end is not None and app.core.end.cause is FrameType.DONE for app, _ in pair.sides())


WORLDS = ("pair", "switched", "short cut", "choked short cut")
DIRECT = {"short cut": (1 << 30,), "choked short cut": (0, 7, 1 << 30, 20, 1, 100)}


def make(kind: str, *, window: int = 1 << 20, switch_window: int = 1 << 20) -> World:
    return World(window=window, switch_window=None if kind == "pair" else switch_window, direct=DIRECT.get(kind, ()))


def opened(world: World) -> tuple[App, App]:
    pair = world.open()
    world.settle()
    assert pair.acceptor is not None
    pair.acceptor.core.accept()
    world.settle()
    return pair.opener, pair.acceptor
