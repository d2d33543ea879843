"""Two cores wired together, driven by anything that may happen in any order: every byte arrives exactly once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connect_trio.mux import frames
from connect_trio.mux.codes import RejectCode, ResetCode
from tests.support.examples import examples
from tests.support.world import WORLDS, App, Pair, clean, make, opened


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
        world.reconnect()
        world.settle()
        for _ in range(60):
            for pair in world.pairs:
                if pair.acceptor is not None and pair.acceptor.core.asked and pair.acceptor.core.end is None:
                    pair.acceptor.core.accept()
                for app, _ in pair.sides():
                    world.finish(app)
                    while app.core.receive.queue and not app.closed:
                        world.read(app, 10_000)
                    world.read(app, 1)
            world.settle()
            world.tick(0.3)
        for pair in world.pairs:
            if not pair.dropped:
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
        self.world.reconnect()
        if len(self.world.pairs) < 6:
            self.world.open()

    streams = precondition(lambda self: bool(self.world.pairs))
    number = st.integers(0, 97)

    @streams
    @rule(good=st.integers(0, 9))
    def answer(self, good: int) -> None:
        for pair in self.world.pairs:
            if pair.acceptor is not None and pair.acceptor.core.asked and pair.acceptor.core.end is None:
                if good:
                    pair.acceptor.core.accept()
                else:
                    pair.dropped = True
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
        pair.dropped = True
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

    @rule(which=st.integers(0, 60), at_once=st.booleans())
    def lose(self, which: int, at_once: bool) -> None:
        if which >= 53:
            self.world.lose(which)
            if at_once:
                self.world.reconnect()

    @rule()
    def reconnect(self) -> None:
        self.world.reconnect()

    @streams
    @rule(which=number)
    def move(self, which: int) -> None:
        if not which % 3:
            self.world.move(self.world.pairs[which % len(self.world.pairs)].opener.core)

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
