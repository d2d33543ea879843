"""Each rule of how streams share a budget has a reason: without it a short conversation goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.apps import App, Pair
from tests.support.judge import check_healed, check_step
from tests.support.mutations_shares import SHARE_RULES
from tests.support.network import Network, Setting
from tests.support.scripts import to_agent
from tests.support.tiny import FLOOR, UNIT, tiny

WINDOW = 4 * UNIT
STREAMS = 12
LIMIT = 8 * WINDOW  # for the floors of all streams, and the windows of eight


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with tiny():
        yield


def network(*, opener: int = 1 << 30, acceptor: int = 1 << 30) -> Network:
    net = Network(Setting(window=WINDOW, switch_window=WINDOW, opener_budget=opener, acceptor_budget=acceptor))
    net.settle()
    return net


def judge(net: Network) -> None:
    check_step(net)
    check_healed(net)
    assert all(pair.whole for pair in net.pairs)


def served(net: Network) -> Pair:
    """A stream that the agent serves; what this says does not reach the proxy."""
    pair = net.open(0)
    assert pair is not None
    to_agent(net, 0)
    assert pair.acceptor is not None, "an open is refused while the floors fit"
    net.accept(pair)
    return pair


def fill(net: Network, app: App) -> None:
    """An agent's application writes all it may; nothing arrives."""
    while app.write(UNIT):
        net.flush(net.tunnels[0], 0)


def granted_is_kept() -> None:
    """Memory becomes scarce at the proxy when the agent has been told of its whole window."""
    net = network()
    near, far = net.opened(0).sides
    far.write(UNIT, chunked=True)
    net.settle()
    net.budgets[0].share = FLOOR
    near.get_all()
    near.write(UNIT)
    net.live(1)
    judge(net)


def shares_shrink() -> None:
    """Each of many streams has all on its way that it may have."""
    net = network(acceptor=LIMIT)
    for _ in range(STREAMS):
        pair = served(net)
        assert pair.acceptor is not None
        fill(net, pair.acceptor)
        assert not net.budgets[1].over, "more is kept than the budget"
    judge(net)


def windows_grow_back() -> None:
    """All that filled the budget is read, and a stream goes on."""
    net = network(opener=LIMIT)
    pairs = [net.opened(0) for _ in range(STREAMS)]
    for pair in pairs:
        for _ in range(5):
            pair.sides[1].write(UNIT)
            net.settle()
    assert net.budgets[0].share < WINDOW
    for pair in pairs:
        pair.sides[0].get_all()
    near, far = pairs[0].sides
    for _ in range(5):
        far.write(UNIT)
        net.settle()
        near.get_all()
    incoming = near.core.receive.window
    assert incoming.granted - incoming.taken > WINDOW // 2, "the window stays small"
    judge(net)


def floors_remain() -> None:
    """One stream has filled the budget, of which nobody reads anything; another one wants to go on."""
    net = network(opener=UNIT)
    full, other = net.opened(0), net.opened(0)
    for _ in range(5):
        full.sides[1].write(UNIT)
        net.settle()
    assert net.budgets[0].over
    near, far = other.sides
    for _ in range(100):
        for app in (near, far):
            app.write(UNIT)
        net.live(0.1)
        for app in (near, far):
            app.get_all()
    assert min(near.read, far.read) > WINDOW + UNIT, "a stream stands still"
    judge(net)


def waiting_senders_are_answered() -> None:
    """The proxy keeps little of what it sends, and the agent's window is large."""
    net = network()
    near, far = net.opened(0).sides
    net.budgets[0].share = FLOOR
    for _ in range(100):
        near.write(UNIT)
        net.live(0.05)
        far.get_all()
    assert far.read > 50 * FLOOR, "the sender waits for the timer"
    judge(net)


SCENARIOS: dict[str, Callable[[], None]] = {rule: globals()[rule] for rule in SHARE_RULES}


@pytest.mark.parametrize("rule", SCENARIOS)
def test_with_the_rule_it_goes_well(rule: str) -> None:
    SCENARIOS[rule]()


@pytest.mark.parametrize("rule", SCENARIOS)
def test_without_the_rule_it_goes_wrong(rule: str) -> None:
    with SHARE_RULES[rule](), pytest.raises(AssertionError):
        SCENARIOS[rule]()
