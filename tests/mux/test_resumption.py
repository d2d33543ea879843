"""Both ends of a stream whose ways come and go: each sequence of its life, over wires that a test cuts where it wants.

What each side says, frame by frame, is in test_resuming_opener.py and test_resuming_acceptor.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connect_trio.mux.acceptor import Acceptor
from connect_trio.mux.codes import RejectCode, ResetCode
from connect_trio.mux.frames import FrameType
from tests.support.world import WORLDS, App, World, make, opened

F = FrameType
SIZE = 200_000


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make(request.param)
    yield made
    made.check_bounds()
    made.wind_down()
    made.check_nothing_remembered()


def cut(world: World) -> None:
    """All that is on its way is lost."""
    world.lose_all()


def resume(world: World) -> None:
    world.reconnect()
    world.settle()


def read_all(world: World, *apps: App) -> None:
    for app in apps:
        while app.core.receive.queue:
            world.read(app, SIZE)
        world.read(app, 1)
    world.settle()


def done(*apps: App) -> bool:
    return all(app.core.end is not None and app.core.end.cause is F.DONE for app in apps)


@pytest.mark.parametrize("arrived", [0, 1, 20_000, 65_552, 150_000])
def test_what_was_lost_on_the_way_is_sent_again_in_both_directions(world: World, arrived: int) -> None:
    near, far = opened(world)
    for app in (near, far):
        world.write(app, SIZE, chunked=True)
    for which in (0, len(world.ports) - 1):
        world.flush(which, arrived + 5000)
        world.deliver(which, arrived)
    cut(world)
    resume(world)
    read_all(world, near, far)
    assert (near.read, far.read) == (SIZE, SIZE)


def test_a_stream_survives_any_number_of_losses(world: World) -> None:
    near, far = opened(world)
    for _ in range(10):
        for app in (near, far):
            world.write(app, 50_000, chunked=True)
        world.flush(0, 60_000)
        world.deliver(0, 30_000)
        cut(world)
        resume(world)
        read_all(world, near, far)
    assert (near.read, far.read) == (500_000, 500_000)
    assert near.core.attempt == 11


def test_the_end_of_a_stream_may_be_lost(world: World) -> None:
    near, far = opened(world)
    for app in (near, far):
        world.finish(app)
    cut(world)
    resume(world)
    read_all(world, near, far)
    assert done(near, far)


def test_the_acknowledgement_of_the_end_may_be_lost(world: World) -> None:
    near, far = opened(world)
    world.finish(near)
    world.finish(far)
    for which in range(len(world.ports)):
        world.flush(which)
        world.deliver(which)
    cut(world)
    resume(world)
    assert done(near, far)


def test_done_may_be_lost(world: World) -> None:
    near, far = opened(world)
    world.finish(near)
    world.settle()
    world.finish(far)
    while far.core.end is None:
        for which in range(len(world.ports)):
            world.flush(which)
            if far.core.end is None:
                world.deliver(which)
    assert near.core.end is None
    cut(world)
    resume(world)
    assert done(near, far)


@pytest.mark.parametrize("by_opener", [True, False])
def test_a_reset_while_detached_reaches_the_other_end(world: World, by_opener: bool) -> None:
    us, them = opened(world) if by_opener else reversed(opened(world))
    cut(world)
    us.core.reset(ResetCode.APP, "enough")
    resume(world)
    assert them.core.end is not None
    assert (them.core.end.cause, them.core.end.code, them.core.end.text) == (F.RESET, ResetCode.APP, "enough")


def test_both_may_reset_while_detached(world: World) -> None:
    near, far = opened(world)
    cut(world)
    near.core.reset()
    far.core.reset()
    resume(world)
    assert not world.opener.streams


def test_a_question_that_was_lost_is_asked_again_and_served_once(world: World) -> None:
    pair = world.open()
    world.write(pair.opener, 1000)
    cut(world)
    resume(world)
    assert pair.acceptor is not None
    pair.acceptor.core.accept()
    world.settle()
    read_all(world, pair.acceptor)
    assert pair.acceptor.read == 1000


def test_an_answer_that_was_lost_is_given_again(world: World) -> None:
    pair = world.open()
    world.write(pair.opener, 1000)
    world.settle()
    assert pair.acceptor is not None
    pair.acceptor.core.accept()
    cut(world)
    assert not pair.opener.core.detached, "it was not accepted yet"
    resume(world)
    assert pair.opener.core.accepted
    read_all(world, pair.acceptor)
    assert pair.acceptor.read == 1000


def test_a_refusal_while_detached_is_the_answer_to_the_next_question(world: World) -> None:
    pair = world.open()
    world.settle()
    cut(world)
    assert pair.acceptor is not None
    pair.acceptor.core.reject(RejectCode.UNREACHABLE, "no tool")
    resume(world)
    end = pair.opener.core.end
    assert end is not None
    assert (end.cause, end.text) == (F.REJECT, "no tool")


def test_an_agent_that_was_started_anew_knows_no_stream(world: World) -> None:
    near, far = opened(world)
    cut(world)
    far.core.reset()  # so that the old process holds nothing that is counted
    world.acceptor = Acceptor(world.asked.append)
    resume(world)
    assert near.core.end is not None
    assert (near.core.end.code, near.core.end.by_peer) == (ResetCode.UNKNOWN, True)


def test_a_move_loses_no_byte_and_no_time(world: World) -> None:
    near, far = opened(world)
    for _ in range(5):
        for app in (near, far):
            world.write(app, 60_000, chunked=True)
        assert world.move(near.core)
        for app in (near, far):
            world.write(app, 60_000, chunked=True)
        for which in (1, 0, 3, 2, 0, 1, 2, 3):
            world.flush(which, 50_000)
            world.deliver(which, 30_000)
        world.settle()
        read_all(world, near, far)
    assert (near.read, far.read) == (near.wrote, far.wrote)
    assert near.wrote >= 300_000
    assert world.opener.counts.moved == 5
    assert world.opener.counts.detached == 0


def test_a_loss_in_the_middle_of_a_move_is_only_a_loss(world: World) -> None:
    near, far = opened(world)
    for app in (near, far):
        world.write(app, SIZE, chunked=True)
    world.move(near.core)
    for which in range(len(world.ports)):
        world.flush(which, 40_000)
        world.deliver(which, 20_000)
    cut(world)
    resume(world)
    read_all(world, near, far)
    assert (near.read, far.read) == (SIZE, SIZE)


def test_a_closed_stream_that_is_detached_still_delivers_what_was_written(world: World) -> None:
    near, far = opened(world)
    world.write(near, SIZE, chunked=True)
    cut(world)
    world.close(near)
    resume(world)
    read_all(world, far)
    assert far.read == SIZE
    assert far.ended
