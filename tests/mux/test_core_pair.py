"""Two cores wired together: every byte arrives once and in order, whatever the wires and applications do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connect_trio.mux import frames
from connect_trio.mux.codes import RejectCode, ResetCode
from connect_trio.mux.endpoint import LINGER
from connect_trio.mux.frames import FrameType
from connect_trio.mux.opener import ANSWER
from tests.support.world import WORLDS, World, clean, make, opened


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make(request.param)
    yield made
    made.check_bounds()


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
    for app in (near, far):
        assert app.core.end is not None
        assert app.core.home is None
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
        if pair.acceptor.core.asked:
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
