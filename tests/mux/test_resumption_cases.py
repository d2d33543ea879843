"""Conversations that the resumption machine found, at their shortest: each went wrong once."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from connect_trio.mux.frames import Ask, FrameType, encode_ask
from tests.support.judge import check_healed, check_step
from tests.support.liars import told
from tests.support.network import Network, Setting
from tests.support.scripts import hop, lose, to_agent, to_proxy
from tests.support.tiny import UNIT, tiny


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with tiny():
        yield


def test_a_switch_repeats_an_old_credit_before_the_opener_can_tell_a_newer_one() -> None:
    net = Network(Setting(window=4 * UNIT))
    pair = net.opened(0)
    near, far = pair.sides
    net.attempt(near.core, 1)  # RESUME: nothing was received
    far.write(12)
    to_proxy(net, 0)
    net.tick(0.6)
    to_agent(net, 0)
    assert far.core.send.window.base == 12
    to_agent(net, 1)  # RESUME, late: its switch does not know of these bytes
    far.write(UNIT, chunked=True)
    hop(net, (net.tunnels[1], 0))
    net.flush(net.links[1], 1)
    hop(net, (net.tunnels[1], 1))  # CREDIT of the switch, which has room again
    check_step(net)
    check_healed(net)


def test_credit_that_only_a_failed_move_told_is_told_again() -> None:
    net = Network(Setting(window=UNIT))
    near, far = net.opened(0).sides
    net.tunnels[1].lose(1, net.now)  # a move by that server finds no route, and the home stays
    while far.write(UNIT):
        net.settle()
    while near.core.receive.queue:
        near.get(UNIT // 4 - 1)  # too little to tell at once
        net.attempt(near.core, 1)
        net.settle()
    assert near.core.attached
    net.live(1)
    assert far.core.send.window.base == UNIT
    assert far.write(1), "nobody told of the room"
    check_healed(net)


def test_a_tunnel_without_room_refuses_no_stream_that_lives_elsewhere() -> None:
    net = Network()
    pair = net.opened(0)
    full = net.tunnels[1].ends[1].wire
    assert full.peer is not None
    full.peer = attrs.evolve(full.peer, streams=0)
    assert net.attempt(pair.opener.core, 1)
    net.settle()
    assert pair.opener.core.attached
    check_step(net)
    check_healed(net)


def test_an_open_that_lies_is_no_stream_to_be_served() -> None:
    net = Network(Setting(liars=True))
    net.settle()
    ask = Ask(token=b"t" * 16, attempt=1, received=1, limit=UNIT, session="s", kind="k")
    told(net, net.tunnels[0], 0, encode_ask(FrameType.OPEN, 2, ask))
    assert not net.asked
    assert not net.acceptor.streams


def test_an_end_waits_for_the_credit_of_a_switch_that_does_not_know_what_was_acknowledged() -> None:
    net = Network(Setting(window=2 * UNIT))
    near, far = net.opened(0).sides
    net.attempt(near.core, 1)
    for _ in range(2):
        far.write(40, chunked=True)
        to_proxy(net, 0)
        near.get_all()
        to_agent(net, 0)
    assert far.core.send.window.base > UNIT
    far.finish()
    to_agent(net, 1)  # RESUME, late: its switch grants no more than its window
    to_proxy(net, 1)
    check_step(net)
    check_healed(net)


def test_moves_that_find_no_route_do_not_slow_down_the_attempts_after_a_loss() -> None:
    net = Network()
    near, _ = net.opened(0).sides
    net.tunnels[1].lose(1, net.now)
    for _ in range(5):
        net.attempt(near.core, 1)
        net.settle()
    lose(net, net.links[0], 0, 1)
    assert net.attempt(near.core, 1)
    net.tick(1.1)
    assert near.core.trial is None
    check_healed(net)
