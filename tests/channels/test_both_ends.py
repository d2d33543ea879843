"""Both ends of a channel over a wire that delivers what it likes, when it likes: the promises of docs/channels.md."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connect_trio.channels.ends import AgentEnd, End, ProxyEnd
from connect_trio.channels.messages import (
    Data,
    Eof,
    Exec,
    Exit,
    Frame,
    Pty,
    Resize,
    Signal,
    Size,
    Started,
    Stderr,
)
from connect_trio.channels.outbox import Outbox

sizes = st.one_of(st.integers(1, 100), st.integers(100, 1000))
windows = st.integers(0, 300)


class Way:
    """One direction: what is on its way, and what its receiver made of it."""

    def __init__(self, end: End) -> None:
        self.end = end  # the receiver
        self.wire = bytearray()
        self.heard: list[Frame] = []
        self.kept = 0

    def deliver(self, count: int) -> None:
        data = bytes(self.wire[:count])
        del self.wire[:count]
        for frame in self.end.receive_data(data):
            self.heard.append(frame)
            if isinstance(frame, Data | Stderr):
                self.kept += len(frame.data)

    def bytes_of(self, kind: type[Data | Stderr]) -> bytes:
        return b"".join(frame.data for frame in self.heard if isinstance(frame, kind))


class BothEnds(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.proxy, self.agent = ProxyEnd(200), AgentEnd(100)
        self.outbox = Outbox(self.proxy)
        self.up, self.down = Way(self.agent), Way(self.proxy)
        self.numbers = itertools.cycle(range(256))
        self.fed = bytearray()
        self.said: dict[type[Data | Stderr], bytearray] = {Data: bytearray(), Stderr: bytearray()}
        self.eof = self.started = self.finished = False
        self.last_size = Size()
        self.most = {self.proxy: 200, self.agent: 100}
        self.outbox.post(Pty("xterm", Size()))
        self.outbox.post(Exec(b"true"))

    def some(self, count: int) -> bytes:
        return bytes(itertools.islice(self.numbers, count))

    # the proxy

    @precondition(lambda self: not self.eof)
    @rule(count=sizes)
    def feed(self, count: int) -> None:
        data = self.some(count)
        self.fed += data
        self.outbox.feed(data)

    @rule()
    def feed_eof(self) -> None:
        if not self.eof:
            self.eof = True
            self.outbox.feed_eof()

    @rule(columns=st.integers(1, 500))
    def resize(self, columns: int) -> None:
        self.last_size = Size(columns=columns)
        self.outbox.post(Resize(self.last_size))

    @rule()
    def signal(self) -> None:
        self.outbox.post(Signal("INT"))

    @rule()
    def flush(self) -> None:
        """The stream always takes something: what is not data overtakes all that waits for a window."""
        said = self.outbox.take()
        assert not self.outbox._control
        assert not self.outbox._signals
        self.up.wire += said

    # the agent

    @rule(count=sizes, kind=st.sampled_from([Data, Stderr]))
    def write(self, count: int, kind: type[Data | Stderr]) -> None:
        if self.finished or not any(isinstance(frame, Exec) for frame in self.up.heard):
            return
        if not self.started:
            self.started = True
            self.down.wire += self.agent.send(Started())
        data = self.some(min(count, self.agent.sending.room))
        if data:
            self.said[kind] += data
            self.down.wire += self.agent.send(kind(data))

    @rule()
    def grant(self) -> None:
        self.down.wire += self.agent.grant()

    @precondition(lambda self: self.started and not self.finished)
    @rule()
    def finish(self) -> None:
        self.finished = True
        self.down.wire += self.agent.send(Eof()) + self.agent.send(Exit(7))

    # the wire, and those who take what came

    @rule(count=sizes)
    def deliver_up(self, count: int) -> None:
        self.up.deliver(count)

    @rule(count=sizes)
    def deliver_down(self, count: int) -> None:
        self.down.deliver(count)

    @rule(count=sizes, up=st.booleans())
    def take(self, count: int, up: bool) -> None:
        way = self.up if up else self.down
        count = min(count, way.kept)
        way.kept -= count
        way.end.receiving.took(count)

    @rule(window=windows, up=st.booleans())
    def change_window(self, window: int, up: bool) -> None:
        end = self.agent if up else self.proxy
        end.receiving.target = window
        self.most[end] = max(self.most[end], window)

    # what always holds

    @invariant()
    def nobody_keeps_more_than_it_granted(self) -> None:
        for way in (self.up, self.down):
            receiving = way.end.receiving
            assert way.kept == receiving.kept
            assert receiving.kept + receiving.outstanding <= self.most[way.end]

    @invariant()
    def credit_is_neither_made_nor_lost(self) -> None:
        """What may be sent and what is on its way is what was granted, as far as the grants have arrived."""
        assert self.proxy.sending.room <= self.agent.receiving.outstanding
        assert self.agent.sending.room <= self.proxy.receiving.outstanding

    @invariant()
    def bytes_arrive_in_order(self) -> None:
        assert self.fed.startswith(self.up.bytes_of(Data))
        for kind, said in self.said.items():
            assert said.startswith(self.down.bytes_of(kind))

    @invariant()
    def the_last_word_is_behind_everything(self) -> None:
        if any(isinstance(frame, Exit) for frame in self.down.heard):
            assert [type(frame) for frame in self.down.heard[-2:]] == [Eof, Exit]
            assert all(self.down.bytes_of(kind) == said for kind, said in self.said.items())

    def teardown(self) -> None:
        """Let everything arrive: then nothing is missing."""
        self.proxy.receiving.target = self.agent.receiving.target = 1 << 20
        for _ in range(100):
            self.flush()
            self.grant()
            self.up.deliver(1 << 20)
            self.take(1 << 20, up=True)
            self.down.deliver(1 << 20)
            self.take(1 << 20, up=False)
        sizes = [frame.size for frame in self.up.heard if isinstance(frame, Resize)]
        assert sizes[-1:] in ([], [self.last_size])
        if not self.finished:  # afterwards nothing is granted any more
            assert self.up.bytes_of(Data) == self.fed
        if self.finished:
            self.proxy.receive_eof()


TestBothEnds = BothEnds.TestCase
TestBothEnds.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
