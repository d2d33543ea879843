"""The steps of the resumption machine: anything that networks, servers, clocks, shells and applications may do.

A step is a name and small numbers, whether hypothesis chooses them or a seeded random walk, so that both can be
replayed and shortened.
"""

from __future__ import annotations

import random

from connect_trio.mux.codes import RejectCode, ResetCode
from connect_trio.mux.endpoint import Endpoint
from tests.support.apps import HOW, App, Pair
from tests.support.judge import SHORT_RUN, check_healed, check_settled, check_step
from tests.support.lines import EVERYTHING, Line
from tests.support.network import SERVERS, Network, Setting
from tests.support.shares import MODEST, SHARES
from tests.support.tiny import UNIT

Step = tuple[str, dict[str, int]]
STREAMS = 3
DIRECT = ((), (EVERYTHING,), (0, 7, EVERYTHING, 20, 1, 100))
BUDGETS = (1 << 30, MODEST, 2 * UNIT)
SECONDS = (0.05, 0.3, 0.6, 1.1, 2.0, 6.0, 16.0)

# The range of each number, both ends included.
MANY = (0, 11)
FLAG = (0, 1)
PART = (0, 130)
ARGUMENTS: dict[str, dict[str, tuple[int, int]]] = {
    "flush": {"which": MANY, "end": FLAG, "most": PART},
    "deliver": {"which": MANY, "end": FLAG, "most": PART},
    "pass_on": {"which": MANY, "times": (1, 4)},
    "flow": {"which": MANY, "times": (1, 6), "size": (0, 60)},
    "settle": {},
    "cut": {"which": MANY, "lose": FLAG, "notice": (0, 3)},
    "notice": {"which": MANY, "end": FLAG},
    "kill": {"index": FLAG, "lose": FLAG},
    "drain": {"index": FLAG, "on": FLAG},
    "redial": {"index": FLAG, "who": FLAG},
    "dial_beside": {"index": FLAG},
    "tick": {"seconds": (0, len(SECONDS) - 1), "lively": FLAG},
    "age": {"seconds": (60, 800), "lively": (0, 3)},
    "open": {"index": FLAG},
    "answer": {"good": (0, 9)},
    "attempt": {"which": MANY, "index": FLAG},
    "attempt_all": {},
    "move": {"which": MANY, "index": FLAG},
    "move_slowly": {"which": MANY, "index": FLAG, "times": (1, 6), "size": (1, 60)},
    "write": {"which": MANY, "size": (1, 100), "chunked": FLAG, "times": (1, 4)},
    "read": {"which": MANY, "most": (1, 60), "how": (0, 2)},
    "drink": {"which": MANY, "most": (0, 60)},
    "read_all": {},
    "finish": {"which": MANY},
    "reset": {"which": MANY},
    "close": {"which": MANY},
    "spare": {"which": MANY},
    "squeeze": {"who": FLAG},
    "share": {"who": FLAG, "much": (0, len(SHARES) - 1)},
}
WEIGHTS = {
    "flush": 8, "deliver": 14, "pass_on": 16, "flow": 5, "settle": 4, "cut": 2.5, "notice": 3, "kill": 0.5,
    "drain": 0.3, "redial": 8, "dial_beside": 0.5, "tick": 4, "age": 0.3, "open": 4, "answer": 6, "attempt": 5,
    "attempt_all": 3, "move": 5, "move_slowly": 3, "write": 20, "read": 8, "drink": 0.7, "read_all": 4,
    "finish": 1.5, "reset": 0.3, "close": 0.3, "spare": 0.2, "squeeze": 0.15, "share": 2,
}  # fmt: skip


def setting_of(numbers: dict[str, int]) -> Setting:
    return Setting(
        window=UNIT * (1 + numbers.get("window", 0)),
        switch_window=UNIT * (1 + numbers.get("switch_window", 0)),
        allowance=UNIT * (1 + numbers.get("allowance", 3)),
        direct=DIRECT[numbers.get("direct", 0)],
        opener_budget=BUDGETS[numbers.get("opener_budget", 0)],
        acceptor_budget=BUDGETS[numbers.get("acceptor_budget", 0)],
        displaces=not numbers.get("tolerant", 0),
        prompt=bool(numbers.get("prompt", 0)),
    )


SETTING = {
    "window": (0, 3),
    "switch_window": (0, 3),
    "allowance": (0, 3),
    "direct": (0, 2),
    "opener_budget": (0, 2),
    "acceptor_budget": (0, 2),
    "tolerant": FLAG,
    "prompt": FLAG,
}


class Steps:
    """A network, and what may happen to it. hours: whether so much time may pass that streams are given up."""

    def __init__(self, setting: Setting, *, hours: bool = False) -> None:
        self.net = Network(setting)
        self.hours = hours
        self.net.settle()

    # the network

    def _line(self, which: int) -> Line:
        """One that has something to carry, if there is any."""
        busy = [line for line in self.net.lines if not line.quiet] or self.net.lines
        return busy[which % len(busy)]

    def flush(self, which: int, end: int, most: int) -> None:
        self.net.flush(self._line(which), end, most)

    def deliver(self, which: int, end: int, most: int) -> None:
        self.net.deliver(self._line(which), end, most)

    def pass_on(self, which: int, times: int) -> None:
        """Whatever there is goes over a line, back and forth."""
        line = self._line(which)
        for _ in range(times):
            for end in (0, 1):
                self.net.flush(line, end)
                self.net.deliver(line, end)

    def flow(self, which: int, times: int, size: int) -> None:
        """Bytes flow over all lines but one, which is slow; the applications write and read."""
        self._flow(self.net.lines[which % len(self.net.lines)], times, size)

    def _flow(self, slow: Line, times: int, size: int) -> None:
        for _ in range(times):
            for app in (app for pair in self.net.pairs for app in pair.sides):
                app.get(size, HOW[size % 3])
                app.write(size, chunked=bool(size & 1))
            for line in self.net.lines:
                for end in (0, 1):
                    if line is not slow:
                        self.net.flush(line, end)
                        self.net.deliver(line, end)

    def settle(self) -> None:
        self.net.settle()

    def cut(self, which: int, lose: int, notice: int) -> None:
        """notice: bit 0 for the client, bit 1 for the server."""
        line = self.net.lines[which % len(self.net.lines)]
        self.net.cut(line, lose=bool(lose))
        for end in (0, 1):
            if notice >> end & 1:
                line.lose(end, self.net.now)

    def notice(self, which: int, end: int) -> None:
        lines = [line for line in self.net.lines if line.cut]
        if lines:
            lines[which % len(lines)].lose(end, self.net.now)

    def kill(self, index: int, lose: int) -> None:
        self.net.kill(index, lose=bool(lose))

    def drain(self, index: int, on: int) -> None:
        self.net.servers[index].switch.draining = bool(on)

    def redial(self, index: int, who: int) -> None:
        self.net.redial(index, who)

    def dial_beside(self, index: int) -> None:
        self.net.dial_beside(index)

    def tick(self, seconds: int, lively: int) -> None:
        if not self.hours and self.net.now + SECONDS[seconds] > SHORT_RUN - 20:
            return
        if lively:
            self.net.live(SECONDS[seconds])
            if SECONDS[seconds] > 1:
                check_settled(self.net)
        else:
            self.net.tick(SECONDS[seconds])

    def age(self, seconds: int, lively: int) -> None:
        """So much time that what is detached is given up."""
        until = self.net.now + seconds * self.hours
        while self.net.now < until:
            if not lively:
                self.net.settle()
            self.net.tick(0.9)

    # the shell

    def open(self, index: int) -> None:
        if len(self.net.opener.streams) < STREAMS and len(self.net.pairs) < 2 * STREAMS:
            self.net.open(index)

    def answer(self, good: int) -> None:
        for pair in self.net.pairs:
            far = pair.acceptor
            if far is not None and far.core.asked and far.core.end is None:
                if good:
                    self.net.accept(pair)
                else:
                    pair.dropped = True
                    far.core.reject(RejectCode.REFUSED, "no")
                return

    def attempt(self, which: int, index: int) -> None:
        homeless = list(self.net.homeless)
        if homeless:
            self.net.attempt(homeless[which % len(homeless)], index)

    def attempt_all(self) -> None:
        self.net.attempt_all()

    def move(self, which: int, index: int) -> None:
        """Make before break: attach a healthy stream over another way."""
        core = self._pair(which).opener.core if self.net.pairs else None
        if core is not None and core.attached:
            self.net.attempt(core, index)

    def move_slowly(self, which: int, index: int, times: int, size: int) -> None:
        """RESUME is on its way while bytes still flow over the old one."""
        self.move(which, index)
        self._flow(self.net.links[index], times, size)

    # applications

    def _pair(self, which: int) -> Pair:
        return self.net.pairs[-1 - which // 2 % min(STREAMS, len(self.net.pairs))]

    def _app(self, which: int) -> App | None:
        if not self.net.pairs:
            return None
        sides = self._pair(which).sides
        return sides[which % len(sides)]

    def write(self, which: int, size: int, chunked: int, times: int) -> None:
        app = self._app(which)
        for _ in range(times if app else 0):
            assert app is not None
            app.write(size, chunked=bool(chunked))

    def read(self, which: int, most: int, how: int) -> None:
        if app := self._app(which):
            app.get(most, HOW[how])

    def drink(self, which: int, most: int) -> None:
        app = self._app(which)
        if app is not None and not app.closed:
            app.drink(most)

    def read_all(self) -> None:
        for pair in self.net.pairs:
            for app in pair.sides:
                app.get_all()

    def finish(self, which: int) -> None:
        if app := self._app(which):
            app.finish()

    def reset(self, which: int) -> None:
        if app := self._app(which):
            self._pair(which).dropped |= app.core.end is None
            app.core.reset(ResetCode.APP, "dropped")

    def close(self, which: int) -> None:
        app = self._app(which)
        if app is not None and not app.closed:
            self._pair(which).dropped |= app.core.end is None or not app.ended
            app.close(self.net.now)

    def spare(self, which: int) -> None:
        """Nobody would miss the stream if its way were lost."""
        if self.net.pairs:
            pair = self._pair(which)
            pair.dropped = pair.opener.core.expendable = True

    def squeeze(self, who: int) -> None:
        """For a moment there is no memory left: whoever has no way goes."""
        endpoint: Endpoint = self.net.endpoints[who]
        for pair in self.net.pairs:
            pair.dropped |= any(app.core in endpoint._detached for app in pair.sides)
        before, endpoint.budget.limit = endpoint.budget.limit, -1
        endpoint.squeeze()
        endpoint.budget.limit = before

    def share(self, who: int, much: int) -> None:
        """Memory becomes scarce, or is there again."""
        self.net.budgets[who].share = SHARES[much]


def run(step: Step, steps: Steps) -> None:
    name, numbers = step
    getattr(steps, name)(**numbers)
    check_step(steps.net)


def random_numbers(rng: random.Random, ranges: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {name: rng.randint(*bounds) for name, bounds in ranges.items()}


def heal(steps: Steps) -> None:
    for server in steps.net.servers:
        server.switch.draining = False
    check_healed(steps.net)


assert FLAG[1] + 1 == SERVERS
assert set(WEIGHTS) == set(ARGUMENTS)
