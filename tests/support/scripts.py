"""Words for conversations that are written out step by step."""

from __future__ import annotations

from collections import deque

from tests.support.apps import Pair
from tests.support.lines import Line
from tests.support.network import Network


def hop(net: Network, *hops: tuple[Line, int]) -> None:
    """What waits at an end of a line (0: the client's, 1: the server's) goes over it, one line after the other."""
    for line, end in hops:
        net.flush(line, end)
        net.deliver(line, end)


def to_agent(net: Network, server: int) -> None:
    hop(net, (net.links[server], 0), (net.tunnels[server], 1))


def to_proxy(net: Network, server: int) -> None:
    hop(net, (net.tunnels[server], 0), (net.links[server], 1))


def both_ways(net: Network, server: int, times: int = 1) -> None:
    for _ in range(times):
        to_agent(net, server)
        to_proxy(net, server)


def lose(net: Network, line: Line, *ends: int) -> None:
    """A line breaks with what is in flight; these ends notice."""
    net.cut(line, lose=True)
    for end in ends:
        line.lose(end, net.now)


def leave_behind(net: Network, server: int) -> Line:
    """The proxy gives its link to a server up and makes a new one; what was in flight may still arrive."""
    line = net.links[server]
    net.flush(line, 0)
    net.cut(line, lose=False)
    line.lose(0, net.now)
    net.redial(server, 0)
    return line


def opened_late(net: Network) -> tuple[Pair, Line]:
    """A stream whose first OPEN is still on its way to the first server when the proxy has given that line up."""
    net.settle()
    pair = net.open(0)
    assert pair is not None
    return pair, leave_behind(net, 0)


class SlowLine:
    """A line on which bytes fly for `delay` steps."""

    def __init__(self, line: Line, *, delay: int) -> None:
        self._line = line
        self._flying: tuple[deque[int], deque[int]] = (deque([0] * delay), deque([0] * delay))

    def step(self, net: Network) -> None:
        for end, flying in enumerate(self._flying):
            before = len(self._line.ends[end].flight)
            net.flush(self._line, end)
            flying.append(len(self._line.ends[end].flight) - before)
            net.deliver(self._line, end, flying.popleft())
