"""Each rule of resumption has a reason: without it a short conversation goes wrong that goes well with it.

The conversations are those of the executable model, over the real core and switch. One rule is missing here: that a
newer tunnel displaces the older one makes a pause shorter, and nothing right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from connect_trio.mux import frames
from connect_trio.mux.codes import DetachCode, RejectCode
from tests.support.judge import check_healed, check_step
from tests.support.liars import told
from tests.support.mutations import RULES
from tests.support.network import Network, Setting
from tests.support.scripts import SlowLine, both_ways, hop, lose, opened_late, to_agent, to_proxy
from tests.support.tiny import CHUNK, UNIT, tiny


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with tiny():
        yield


def judge(net: Network) -> None:
    check_step(net)
    check_healed(net)
    assert all(pair.whole for pair in net.pairs if not pair.dropped)


def attempts_ordered() -> None:
    """An OPEN that was given up arrives after the one that repeats it."""
    net = Network()
    pair, late = opened_late(net)
    net.attempt(pair.opener.core, 1)
    net.settle()
    net.deliver(late, 0)
    net.settle()
    judge(net)


def ids_fresh() -> None:
    """A stream has moved, and another one begins while bytes of the first are on their way over the old id."""
    net = Network()
    near, far = net.opened(0).sides
    far.write(12)
    hop(net, (net.tunnels[0], 0))
    net.flush(net.links[0], 1)
    net.attempt(near.core, 1)
    both_ways(net, 1)
    net.open(0)
    net.deliver(net.links[0], 1)
    judge(net)


def old_id_unmapped() -> None:
    """After a move, credit that another switch gave arrives over the old way."""
    net = Network(Setting(window=2 * UNIT))
    near, far = net.opened(0).sides
    net.attempt(near.core, 1)
    far.write(40, chunked=True)
    to_proxy(net, 0)
    near.get_all()
    to_agent(net, 1)
    hop(net, (net.tunnels[1], 0))
    to_agent(net, 0)
    far.write(UNIT, chunked=True)
    hop(net, (net.tunnels[1], 0))
    judge(net)


def offsets_explicit() -> None:
    """The same bytes come over the old way and, since RESUME did not know of them, over the new one."""
    net = Network()
    near, far = net.opened(0).sides
    net.attempt(near.core, 1)
    far.write(12)
    to_proxy(net, 0)
    both_ways(net, 1)
    near.get_all()
    judge(net)


def resume_tells_received() -> None:
    """Bytes were acknowledged and not read when the way is lost."""
    net = Network()
    near, _ = net.opened(0).sides
    near.write(12)
    net.live(1)
    lose(net, net.links[0], 0, 1)
    judge(net)


def limit_per_attachment() -> None:
    """The first switch promised more than the second does."""
    net = Network(Setting(window=2 * UNIT))
    near, far = net.opened(0).sides
    far.write(40, chunked=True)
    hop(net, (net.tunnels[0], 0))
    net.flush(net.links[0], 1)
    hop(net, (net.tunnels[0], 1))
    lose(net, net.links[0], 0, 1)
    net.attempt(near.core, 1)
    to_agent(net, 1)
    hop(net, (net.tunnels[1], 0))
    far.write(UNIT, chunked=True)
    hop(net, (net.tunnels[1], 0))
    judge(net)


def credit_after_resumed() -> None:
    """The acknowledgement of an end goes over the old way when the acceptor has left it."""
    net = Network()
    near, far = net.opened(0).sides
    net.attempt(near.core, 1)
    far.finish()
    to_proxy(net, 0)
    to_agent(net, 1)
    to_agent(net, 0)
    judge(net)


def failed_move_voids_old() -> None:
    """RESUME arrives and its answer does not."""
    net = Network()
    near, _ = net.opened(0).sides
    net.attempt(near.core, 1)
    to_agent(net, 1)
    lose(net, net.links[1], 0, 1)
    judge(net)


def fin_has_offset() -> None:
    """The end is lost with its way."""
    net = Network()
    near, _ = net.opened(0).sides
    near.finish()
    net.flush(net.links[0], 0)
    lose(net, net.links[0], 0, 1)
    judge(net)


def opener_waits_for_done() -> None:
    """Both have finished, and the acceptor does not know yet that its end was received."""
    net = Network()
    near, far = net.opened(0).sides
    near.finish()
    far.finish()
    both_ways(net, 0)
    judge(net)


def tombstones() -> None:
    """An OPEN that was given up arrives after all is over."""
    net = Network()
    pair, late = opened_late(net)
    net.attempt(pair.opener.core, 1)
    net.settle()
    net.accept(pair)
    net.settle()
    for app in pair.sides:
        app.finish()
    net.settle()
    assert pair.whole
    net.deliver(late, 0)
    net.settle()
    judge(net)


def unknown_is_remembered() -> None:
    """An OPEN arrives after the opener has reset the stream by another way."""
    net = Network()
    pair, late = opened_late(net)
    pair.dropped = True
    pair.opener.core.reset()
    net.attempt(pair.opener.core, 1)
    net.settle()
    net.deliver(late, 0)
    net.settle()
    assert pair.acceptor is None, "a stream is served for nobody"
    judge(net)


def refusal_is_remembered() -> None:
    """An OPEN arrives after the one that repeats it was refused."""
    net = Network()
    pair, late = opened_late(net)
    net.attempt(pair.opener.core, 1)
    net.settle()
    assert pair.acceptor is not None
    pair.dropped = True
    refused = pair.acceptor.core
    refused.reject(RejectCode.REFUSED, "no")
    net.settle()
    net.deliver(late, 0)
    net.settle()
    assert pair.acceptor.core is refused, "the application is asked twice"
    judge(net)


def reset_is_resumed() -> None:
    """A reset is lost with its way."""
    net = Network()
    pair = net.opened(0)
    pair.dropped = True
    pair.opener.core.reset()
    net.flush(net.links[0], 0)
    lose(net, net.links[0], 0, 1)
    judge(net)


def detach_on_loss() -> None:
    """The tunnel is lost and the link is well."""
    net = Network()
    net.opened(0)
    lose(net, net.tunnels[0], 0, 1)
    judge(net)


def switch_clamps() -> None:
    """The ends agree on more than a switch holds, and the proxy's link takes nothing."""
    net = Network(Setting(window=4 * UNIT))
    _, far = net.opened(0).sides
    for _ in range(4):
        far.write(CHUNK, chunked=True)
        hop(net, (net.tunnels[0], 0))
    judge(net)


def switch_skips_acknowledged() -> None:
    """RESUME is slow, and more than a switch holds is acknowledged over the old way meanwhile."""
    net = Network(Setting(window=2 * UNIT))
    near, far = net.opened(0).sides
    net.attempt(near.core, 1)
    for _ in range(3):
        far.write(40, chunked=True)
        to_proxy(net, 0)
        near.get_all()
        to_agent(net, 0)
    assert far.core.send.window.base == 120
    both_ways(net, 1, times=2)
    far.write(40, chunked=True)
    judge(net)


def acceptor_waits_longer() -> None:
    """The opener comes back after 400 of its 600 seconds."""
    net = Network()
    net.opened(0)
    lose(net, net.tunnels[0], 0, 1)
    net.live(400)
    judge(net)


def told_less_is_a_lie() -> None:
    """Somebody acknowledged bytes that never arrived: the opener has dropped them, and no credit is left."""
    net = Network()
    near, _ = net.opened(0).sides
    while near.write(UNIT):
        pass
    assert near.core.home is not None
    told(net, net.links[0], 0, frames.encode_credit(near.core.home.sid, UNIT, UNIT))
    lose(net, net.links[0], 0, 1)
    net.attempt(near.core, 1)
    net.live(30)
    assert near.core.end is not None, "the stream hangs"


def detach_is_answered() -> None:
    """Somebody told only one side that the way is lost."""
    net = Network()
    _, far = net.opened(0).sides
    assert far.core.home is not None
    told(net, net.tunnels[0], 0, frames.encode_detach(far.core.home.sid, DetachCode.LOST))
    judge(net)


def attempts_back_off() -> None:
    """A round trip takes 3 seconds, the first attempt gives up after one."""
    net = Network()
    near, _ = net.opened(0).sides
    lose(net, net.links[0], 0, 1)
    slow = SlowLine(net.links[1], delay=3)
    for _ in range(60):
        if not near.core.attached:
            net.attempt(near.core, 1)
        slow.step(net)
        net.tick(0.5)
        hop(net, (net.tunnels[1], 1), (net.tunnels[1], 0))
    assert near.core.attached
    assert near.core.attempt <= 4
    judge(net)


def sent_again_from_where_the_peer_is() -> None:
    """Bytes are lost with their way."""
    net = Network()
    near, _ = net.opened(0).sides
    near.write(12)
    net.flush(net.links[0], 0)
    lose(net, net.links[0], 0, 1)
    judge(net)


def cut_head_is_copied() -> None:
    """A stream moves while the header of its frame is half out on the old link; ids differ on both."""
    net = Network()
    net.opened(1)
    near, _ = net.opened(0).sides
    near.write(40, chunked=True)
    net.flush(net.links[0], 0, 6)
    net.attempt(near.core, 1)
    both_ways(net, 1)
    net.settle()
    judge(net)


def acknowledged_in_time() -> None:
    """A few bytes, too few for credit to be due, are not kept for as long as the stream is idle."""
    net = Network(Setting(window=4 * UNIT))
    near, _ = net.opened(0).sides
    near.write(6)
    net.live(1)
    assert not near.core.send.kept
    judge(net)


def clock_before_bytes() -> None:
    """A server sleeps for longer than the acceptor remembers, and wakes with an OPEN in its buffers."""
    net = Network()
    pair, late = opened_late(net)
    net.lines.remove(late)
    net.attempt(pair.opener.core, 1)
    net.settle()
    net.accept(pair)
    net.heal()
    net.live(140)
    net.lines.append(late)
    net.deliver(late, 0)
    net.settle()
    judge(net)


ONLY_SLOWER = "new_tunnel_displaces"
SCENARIOS: dict[str, Callable[[], None]] = {rule: globals()[rule] for rule in RULES if rule != ONLY_SLOWER}


@pytest.mark.parametrize("rule", SCENARIOS)
def test_with_the_rule_it_goes_well(rule: str) -> None:
    SCENARIOS[rule]()


@pytest.mark.parametrize("rule", SCENARIOS)
def test_without_the_rule_it_goes_wrong(rule: str) -> None:
    with RULES[rule](), pytest.raises(AssertionError):
        SCENARIOS[rule]()


@pytest.mark.parametrize("displaces", [True, False])
def test_a_newer_tunnel_that_displaces_nothing_is_only_slower(displaces: bool) -> None:
    net = Network(Setting(displaces=displaces))
    net.opened(0)
    net.cut(net.tunnels[0], lose=True)
    net.dial_beside(0)
    net.settle()
    judge(net)
