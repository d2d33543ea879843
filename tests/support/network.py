"""A proxy, two servers, and an agent with a tunnel to each: the real core and switch in a network that a test scripts.

Nothing moves by itself. A test cuts lines at any byte, lets either end notice or not, kills servers, and decides when
and over which link a homeless stream asks again: it is the network and the shell.
"""

from __future__ import annotations

from collections import deque

import attrs

from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import Peer, RejectCode
from connect_trio.mux.endpoint import Endpoint
from connect_trio.mux.errors import LocalError, WireError
from connect_trio.mux.frames import Hello
from connect_trio.mux.opener import Opener
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.switch import Switch
from connect_trio.mux.wire import Handler, Limits, Wire
from tests.support.apps import App, Pair
from tests.support.core import CountingChunkPool, CountingPool
from tests.support.lines import EVERYTHING, Line, Port
from tests.support.shares import WatchedBudget
from tests.support.tiny import BUFFER, UNIT

SERVERS = 2
PATIENCE = 600.0


@attrs.define(kw_only=True)
class Setting:
    """What a network is like. direct: how many bytes a server's short cuts take, in turn; empty: there are none.

    prompt: whether the shell asks over another way from within the call that says that one is needed.
    liars: whether somebody lies, so that wires end with a complaint."""

    window: int = UNIT
    switch_window: int = UNIT
    allowance: int = 4 * UNIT
    opener_budget: int = 1 << 30
    acceptor_budget: int = 1 << 30
    direct: tuple[int, ...] = ()
    displaces: bool = True
    prompt: bool = False
    liars: bool = False


class Server:
    """A process with a switch. Its buffers are its own, since they die with it."""

    def __init__(self, setting: Setting) -> None:
        self.pool = CountingPool(BUFFER)
        self.switch = Switch(lambda session, link: self.tunnel, window=setting.switch_window)
        self.switch.greeted = self._greeted
        self.tunnel: Wire | None = None
        self.displaced: list[Wire] = []
        self._displaces = setting.displaces

    def _greeted(self, wire: Wire, hello: Hello) -> None:
        if hello.peer != Peer.ACCEPTOR:
            return
        old = self.tunnel
        if old is not None and old.peer is not None and old.peer.generation > hello.generation:
            return
        self.tunnel = wire
        if old is not None and not old.gone and self._displaces:
            self.switch.displace(old)
            self.displaced.append(old)


class Network:
    """Lines that nobody listens to any more are forgotten; `links` and `tunnels` are the newest of each server."""

    def __init__(self, setting: Setting | None = None) -> None:
        self.setting = setting = setting or Setting()
        self.now = 0.0
        self.pools = [CountingPool(BUFFER), CountingPool(BUFFER)]
        self.chunks = CountingChunkPool()
        self.asked: deque[CoreStream] = deque()
        self.budgets = WatchedBudget(setting.opener_budget), WatchedBudget(setting.acceptor_budget)
        self.opener = Opener(
            window=setting.window,
            allowance=setting.allowance,
            patience=PATIENCE,
            budget=self.budgets[0],
        )
        self.opener.homeless = self._homeless
        self.acceptor = Acceptor(
            self.asked.append,
            window=setting.window,
            allowance=setting.allowance,
            max_patience=PATIENCE,
            budget=self.budgets[1],
        )
        self.homeless: dict[CoreStream, None] = {}
        self.links: list[Line] = []
        self.pairs: list[Pair] = []
        self.direct = deque(setting.direct)
        self.generation = 0
        self.lines: list[Line] = []
        self.servers = [Server(setting) for _ in range(SERVERS)]
        self.links = [self._dial(index, 0) for index in range(SERVERS)]
        self.tunnels = [self._dial(index, 1) for index in range(SERVERS)]

    @property
    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        return self.opener, self.acceptor

    def _homeless(self, stream: CoreStream, wire: Wire | None) -> None:
        self.homeless[stream] = None
        if self.setting.prompt and stream.tries < 3:
            for index in range(SERVERS):
                if self.links[index].ends[0].wire is not wire and self.attempt(stream, index):
                    return

    # lines

    def _dial(self, index: int, who: int) -> Line:
        """who: 0 the proxy, 1 the agent."""
        server, limits = self.servers[index], Limits()
        handlers: tuple[Handler, Handler] = (self.opener, self.acceptor)
        self.generation += 1
        hello = Hello(
            peer=(Peer.OPENER, Peer.ACCEPTOR)[who], instance=b"i" * 16, slot=index, generation=self.generation
        )
        near = Port(handlers[who], hello, self.pools[who], dialled=True, now=self.now, limits=limits)
        answer = Hello(peer=Peer.SWITCH, instance=b"s" * 16)
        far = Port(server.switch, answer, server.pool, dialled=False, now=self.now, limits=limits)
        line = Line(near, far)
        if self.direct:
            line.short_cut(self.direct)
        self.lines = [line for line in self.lines if not line.over]
        self.lines.append(line)
        return line

    def redial(self, index: int, who: int) -> None:
        """A new connection where the client knows that the old one is gone."""
        lines = self.tunnels if who else self.links
        if not lines[index].ends[0].alive:
            lines[index] = self._dial(index, who)

    def dial_beside(self, index: int) -> None:
        """The agent makes another tunnel to a server although the one that it has seems well."""
        self.tunnels[index] = self._dial(index, 1)

    def kill(self, index: int, *, lose: bool) -> None:
        """The server dies and is there again, as new; what it had sent may still arrive."""
        for line in self.lines:
            if line.ends[1].wire.handler is self.servers[index].switch:
                line.kill(1)
                if lose:
                    line.ends[1].flight.clear()
        self.servers[index] = Server(self.setting)

    def cut(self, line: Line, *, lose: bool) -> None:
        line.cut = True
        if lose:
            for port in line.ends:
                port.flight.clear()

    def flush(self, line: Line, end: int, most: int = EVERYTHING) -> None:
        line.flush(end, most)

    def deliver(self, line: Line, end: int, most: int = EVERYTHING) -> None:
        try:
            line.deliver(end, most, self.now)
        except WireError as exc:
            if exc.code is not None and not line.tainted:
                raise AssertionError(f"honest ends do not break the rules: {exc}") from exc
            line.lose(1 - end, self.now)
        self._close_displaced()
        self.meet()

    def _close_displaced(self) -> None:
        for server in self.servers:
            while server.displaced:
                wire = server.displaced.pop()
                line = next(line for line in self.lines if line.ends[1].wire is wire)
                line.flush(1)
                line.lose(1, self.now)

    def meet(self) -> None:
        """Streams that arrived at the agent get an application."""
        while self.asked:
            core = self.asked.popleft()
            index = int.from_bytes(core.token, "big")
            if index >= len(self.pairs):
                assert self.setting.liars, "a stream that nobody opened"
                core.reject(RejectCode.REFUSED, "nobody")
                continue
            pair = self.pairs[index]
            old = pair.acceptor
            twice = old is not None and (pair.accepted or old.core.end is None)
            assert not twice or not pair.opener.trusted, "served twice"
            if old is not None:
                old.get_all()
                pair.accepted = 0
            pair.acceptor = App(core, 2 * index + 1, self.chunks, trusted=pair.opener.trusted)

    def settle(self) -> None:
        """Everything that was said arrives over the lines that are up, until nobody says anything more."""
        for _ in range(3000):
            lines = [line for line in self.lines if not (line.cut or line.quiet)]
            if not lines:
                return
            for line in lines:
                for end in (0, 1):
                    line.flush(end)
                    self.deliver(line, end)
        raise AssertionError("the lines never become quiet")

    # time

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for endpoint in self.endpoints:
            due = endpoint.deadline()
            if due is not None and due <= self.now:
                endpoint.tick(self.now)
        for line in list(self.lines):
            line.tick(self.now)

    def live(self, seconds: float) -> None:
        """Time passes in a network that works."""
        until = self.now + seconds
        while self.now < until:
            self.settle()
            self.tick(min(0.9, until - self.now))
        self.settle()

    # the shell of the proxy

    def open(self, index: int, *, trusted: bool = True) -> Pair | None:
        number = len(self.pairs)
        try:
            core = self.opener.open(
                self.links[index].ends[0].wire, token=number.to_bytes(16, "big"), now=self.now, session="s", kind="k"
            )
        except LocalError:
            return None
        self.pairs.append(Pair(App(core, 2 * number, self.chunks, trusted=trusted)))
        return self.pairs[-1]

    def opened(self, index: int) -> Pair:
        """A stream that both ends use."""
        self.settle()
        pair = self.open(index)
        assert pair is not None
        self.settle()
        self.accept(pair)
        self.settle()
        return pair

    def attempt(self, stream: CoreStream, index: int) -> bool:
        """Ask over a link; whether it was possible. For one that has a home, this is a move."""
        if stream.home is not None and stream.end is not None:
            return False
        try:
            self.opener.attempt(stream, self.links[index].ends[0].wire, self.now)
        except LocalError:
            return False
        self.homeless.pop(stream, None)
        return True

    def attempt_all(self) -> None:
        for stream in list(self.homeless):
            if stream not in self.opener.streams or stream.home is not None or stream.trial is not None:
                del self.homeless[stream]
            elif not self.attempt(stream, stream.attempt % SERVERS):
                self.attempt(stream, (stream.attempt + 1) % SERVERS)

    # the end

    def mend(self) -> None:
        """Both ends of what is cut know it, and dial again."""
        for line in list(self.lines):
            if line.cut:
                for end in (0, 1):
                    line.lose(end, self.now)
        for index in range(SERVERS):
            for who in (0, 1):
                self.redial(index, who)

    def heal(self, seconds: float = 140.0) -> None:
        """The network becomes good; every application accepts, reads, and ends; until nothing is left or time is up."""
        until = self.now + seconds
        while self.now < until:
            self.mend()
            self.settle()
            self.attempt_all()
            self.settle()
            for pair in self.pairs:
                self._finish(pair)
            self.settle()
            if self.all_quiet:
                for app in (app for pair in self.pairs for app in pair.sides):
                    app.get_all()
                return
            self.tick(0.9)

    def _finish(self, pair: Pair) -> None:
        far = pair.acceptor
        if far is not None and far.core.asked and far.core.end is None:
            self.accept(pair)
        for app in pair.sides:
            app.get_all()
            app.finish()

    def accept(self, pair: Pair) -> None:
        assert pair.acceptor is not None
        pair.accepted += 1
        assert pair.accepted == 1, "served twice"
        pair.acceptor.core.accept()

    @property
    def all_quiet(self) -> bool:
        return (
            all(pair.over for pair in self.pairs)
            and not self.opener.streams
            and not any(port.wire.ports for line in self.lines for port in line.ends if port.alive)
        )
