"""Two cores wired together: every byte arrives once and in order, whatever the wires and applications do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connect_trio.mux import frames
from connect_trio.mux.codes import DetachCode, RejectCode, ResetCode
from connect_trio.mux.endpoint import LINGER
from connect_trio.mux.frames import FrameType
from connect_trio.mux.opener import ANSWER
from connect_trio.mux.states import State
from tests.support.examples import examples
from tests.support.world import App, Pair, World, clean

WORLDS = ("pair", "switched", "short cut", "choked short cut")
DIRECT = {"short cut": (1 << 30,), "choked short cut": (0, 7, 1 << 30, 20, 1, 100)}


def make(kind: str, *, window: int = 1 << 20, switch_window: int = 1 << 20) -> World:
    return World(window=window, switch_window=None if kind == "pair" else switch_window, direct=DIRECT.get(kind, ()))


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make(request.param)
    yield made
    made.check_bounds()


def opened(world: World) -> tuple[App, App]:
    pair = world.open()
    world.settle()
    assert pair.acceptor is not None
    pair.acceptor.core.accept()
    world.settle()
    return pair.opener, pair.acceptor


def test_a_stream_lives_and_is_forgotten_without_a_clock(world: World) -> None:
    near, far = opened(world)
    for app in (near, far):
        assert world.write(app, 1000)
        assert world.write(app, 200_000, chunked=True)
        world.finish(app)
    world.settle()
    for app in (near, far):
        while not app.ended:
            world.read(app, 70_000)
        assert app.read == 201_000
    assert near.core.state is State.CLOSED
    assert far.core.state is State.CLOSED
    world.check_nothing_remembered()


def test_byte_by_byte(world: World) -> None:
    pair = world.open()
    world.write(pair.opener, 50)
    world.finish(pair.opener)
    for _ in range(5000):
        for which in range(len(world.ports)):
            world.flush(which, 1)
            world.deliver(which, 1)
        if pair.acceptor is None:
            continue
        if pair.acceptor.core.state is State.ASKED:
            pair.acceptor.core.accept()
        elif world.write(pair.acceptor, 30):
            world.finish(pair.acceptor)
        for app, _ in pair.sides():
            world.read(app, 1)
        if clean(pair):
            break
    world.settle()  # the last DONE
    assert pair.acceptor is not None
    assert (pair.opener.read, pair.acceptor.read) == (30, 50)
    world.check_nothing_remembered()


def test_bytes_may_be_sent_before_the_answer_and_no_more_than_the_initial_credit(world: World) -> None:
    pair = world.open()
    while world.write(pair.opener, 1 << 20, chunked=True):
        world.settle()
    assert pair.opener.wrote == frames.INITIAL
    world.settle()
    assert pair.acceptor is not None
    assert pair.acceptor.core.receive.window.received == frames.INITIAL
    pair.acceptor.core.accept()
    world.settle()
    assert pair.opener.core.room == (1 << 20) - frames.INITIAL


def test_a_refused_stream_is_forgotten_at_once(world: World) -> None:
    pair = world.open()
    world.write(pair.opener, 1000)
    world.settle()
    assert pair.acceptor is not None
    pair.acceptor.core.reject(RejectCode.UNREACHABLE, "no tool")
    world.settle()
    end = pair.opener.core.end
    assert end is not None
    assert (end.cause, end.code, end.text, end.by_peer) == (FrameType.REJECT, RejectCode.UNREACHABLE, "no tool", True)
    world.check_nothing_remembered()


@pytest.mark.parametrize("by_opener", [True, False])
def test_a_reset_reaches_the_other_end_and_is_forgotten(world: World, by_opener: bool) -> None:
    near, far = opened(world)
    us, them = (near, far) if by_opener else (far, near)
    for app in (near, far):
        world.write(app, 200_000, chunked=True)
    us.core.reset(ResetCode.APP, "enough")
    world.settle()
    assert them.core.end is not None
    assert (them.core.end.cause, them.core.end.text) == (FrameType.RESET, "enough")
    world.tick(1)
    world.check_nothing_remembered()


def test_both_ends_may_reset_at_once(world: World) -> None:
    near, far = opened(world)
    near.core.reset()
    far.core.reset()
    world.settle()
    world.check_nothing_remembered()


def test_an_open_that_nobody_answers_is_given_up(world: World) -> None:
    pair = world.open()
    world.settle()
    for _ in range(int(ANSWER) + 2):
        world.tick(1)
        world.settle()
    end = pair.opener.core.end
    assert end is not None
    assert end.code == ResetCode.DETACHED_TIMEOUT
    world.tick(1)
    world.check_nothing_remembered()


def test_a_closed_stream_waits_a_while_for_the_other_side(world: World) -> None:
    near, far = opened(world)
    world.write(near, 100)
    world.close(near)
    world.settle()
    world.read(far, 100)
    assert far.ended
    for _ in range(int(LINGER) + 2):
        assert far.core.end is None
        world.tick(0.97)
        world.settle()
        if near.core.end is not None:
            break
    assert far.core.end is not None
    assert world.now >= LINGER
    world.tick(1)
    world.check_nothing_remembered()


def test_bytes_for_a_closed_stream_reset_it(world: World) -> None:
    near, far = opened(world)
    world.close(near)
    world.settle()
    world.write(far, 100)
    world.settle()
    assert far.core.end is not None
    assert far.core.end.cause is FrameType.RESET
    world.tick(1)
    world.check_nothing_remembered()


def test_received_bytes_are_acknowledged_within_half_a_second(world: World) -> None:
    near, far = opened(world)
    world.write(near, 100)
    world.settle()
    assert near.core.send.window.base == 0
    world.tick(0.6)
    world.settle()
    assert near.core.send.window.base == 100
    assert not near.core.send.kept
    assert far.core.receive.window.taken == 0


def test_an_end_closed_without_reading_gives_its_buffers_back(world: World) -> None:
    near, far = opened(world)
    for app in (near, far):
        world.write(app, 200_000, chunked=True)
        world.finish(app)
    world.settle()
    assert near.core.end is not None
    assert near.core.end.cause is FrameType.DONE
    for app in (near, far):
        world.close(app)
    world.check_nothing_remembered()


@pytest.mark.parametrize("which", [0, -1])
def test_the_loss_of_a_wire_ends_its_streams_at_both_ends(world: World, which: int) -> None:
    near, far = opened(world)
    world.write(near, 100_000, chunked=True)
    world.lose(which)
    world.settle()
    for app in (near, far):
        assert app.core.end is not None
        assert app.core.end.cause is FrameType.DETACH
        assert app.core.end.code in (DetachCode.LOST, DetachCode.LINK_LOST)
    world.check_nothing_remembered()


class CoreMachine(RuleBasedStateMachine):
    """Anything that applications, transports and the clock may do, in any order."""

    tiny = True

    @initialize(
        kind=st.sampled_from(WORLDS),
        window=st.integers(0, 3),
        switch_window=st.integers(0, 3),
        streams=st.integers(0, 3),
    )
    def start(self, kind: str, window: int, switch_window: int, streams: int) -> None:
        self._initial = frames.INITIAL
        if self.tiny:
            frames.INITIAL = 40
        unit = frames.INITIAL
        self.world = make(kind, window=unit * (1 + window), switch_window=unit * (1 + switch_window))
        self.sizes = 1 if self.tiny else 1500
        for _ in range(streams):
            opened(self.world)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._finish()
        finally:
            frames.INITIAL = self._initial

    def _finish(self) -> None:
        """The network becomes good, every application reads and closes: whole streams are whole, nothing remains."""
        world = self.world
        world.settle()
        self._note_losses()
        for pair in world.pairs:
            if pair.acceptor is not None and pair.acceptor.core.state is State.ASKED:
                pair.acceptor.core.accept()
        for _ in range(60):
            for pair in world.pairs:
                for app, _ in pair.sides():
                    world.finish(app)
                    while app.core.receive.queue and not app.closed:
                        world.read(app, 10_000)
                    world.read(app, 1)
            world.settle()
            world.tick(0.3)
        for pair in world.pairs:
            if not pair.lost:
                assert clean(pair), "a healthy stream did not end well"
                assert pair.acceptor is not None
                assert (pair.acceptor.read, pair.opener.read) == (pair.opener.wrote, pair.acceptor.wrote)
        world.wind_down()
        world.check_nothing_remembered()

    def _apps(self) -> list[tuple[Pair, App]]:
        return [(pair, app) for pair in self.world.pairs for app, _ in pair.sides() if not app.closed]

    def _app(self, which: int) -> App:
        apps = self._apps()
        return apps[which % len(apps)][1] if apps else self.world.pairs[0].opener

    @rule()
    def open(self) -> None:
        if self.world.ports[0].wire.gone:
            self.world.lose_all()
            self.world.connect()
        if len(self.world.pairs) < 6:
            self.world.open()
            self._note_losses()

    streams = precondition(lambda self: bool(self.world.pairs))
    number = st.integers(0, 97)

    @streams
    @rule(good=st.integers(0, 9))
    def answer(self, good: int) -> None:
        for pair in self.world.pairs:
            if pair.acceptor is not None and pair.acceptor.core.state is State.ASKED:
                if good:
                    pair.acceptor.core.accept()
                else:
                    pair.lost = True
                    pair.acceptor.core.reject(RejectCode.REFUSED, "no")
                return

    @streams
    @rule(which=number, size=st.integers(1, 200), chunked=st.booleans(), times=st.integers(1, 20))
    def write(self, which: int, size: int, chunked: bool, times: int) -> None:
        for _ in range(times):
            self.world.write(self._app(which), size * self.sizes, chunked=chunked)

    @streams
    @rule(which=number, most=st.integers(1, 200), how=st.sampled_from(["some", "views", "piece"]))
    def read(self, which: int, most: int, how: str) -> None:
        self.world.read(self._app(which), most * self.sizes, how)

    @streams
    @rule(which=number)
    def finish(self, which: int) -> None:
        if not which % 3:
            self.world.finish(self._app(which))

    @streams
    @rule(which=number, close=st.booleans())
    def drop(self, which: int, close: bool) -> None:
        if which % 7 or not self._apps():
            return
        pair, app = self._apps()[which // 7 % len(self._apps())]
        pair.lost = True
        if close:
            self.world.close(app)
        else:
            app.core.reset(ResetCode.APP, "dropped")

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @rule(turns=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300), st.integers(0, 300)), max_size=12))
    def trickle(self, turns: list[tuple[int, int, int]]) -> None:
        for which, out, arrive in turns:
            self.world.flush(which, out * self.sizes)
            self.world.deliver(which, arrive * self.sizes)

    @rule(which=st.integers(0, 3), most=st.one_of(st.integers(0, 60), st.just(1 << 30)))
    def flush(self, which: int, most: int) -> None:
        self.world.flush(which, most * self.sizes)

    @rule(which=st.integers(0, 3), most=st.one_of(st.integers(0, 60), st.just(1 << 30)))
    def deliver(self, which: int, most: int) -> None:
        self.world.deliver(which, most * self.sizes)

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.6]), lively=st.booleans())
    def tick(self, seconds: float, lively: bool) -> None:
        if lively:
            self.world.settle()
        self.world.tick(seconds)
        self._note_losses()

    @rule(which=st.integers(0, 60))
    def lose(self, which: int) -> None:
        if which >= 57:
            self.world.lose(which)
            self._note_losses()

    def _note_losses(self) -> None:
        if any(port.wire.gone for port in self.world.ports):
            for pair in self.world.pairs:
                pair.lost = True

    @invariant()
    def bounds(self) -> None:
        if hasattr(self, "world"):
            self.world.check_bounds()


class WideMachine(CoreMachine):
    """The same with the real initial credit, so that pooled buffers are kept and cut."""

    tiny = False


CoreMachine.TestCase.settings = examples(60, steps=60)
TestTinyWindows = CoreMachine.TestCase
WideMachine.TestCase.settings = examples(25, steps=40)
TestRealWindows = WideMachine.TestCase
