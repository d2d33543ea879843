"""The loss of a wire ends no stream: both ends keep it, it goes on by the next wire, or is given up in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connect_trio.mux.acceptor import ORPHAN, waits
from connect_trio.mux.codes import DetachCode, ResetCode
from connect_trio.mux.frames import FrameType
from connect_trio.mux.opener import PATIENCE
from tests.support.world import WORLDS, World, make, opened


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = make(request.param)
    yield made
    made.check_bounds()


@pytest.mark.parametrize("which", [0, -1])
def test_the_loss_of_a_wire_detaches_its_streams_at_both_ends(world: World, which: int) -> None:
    near, far = opened(world)
    world.write(near, 100_000, chunked=True)
    world.lose(which)
    world.settle()
    for app in (near, far):
        assert app.core.end is None
        assert app.core.home is app.core.trial is None
        assert app.core.detached == world.now
        assert app.core.lost in (DetachCode.LOST, DetachCode.LINK_LOST)
        assert not app.core.room
    assert (world.opener.detached, world.acceptor.detached) == (1, 1)
    assert world.homeless == [near.core]


@pytest.mark.parametrize("which", [0, -1])
def test_a_detached_stream_goes_on_when_there_are_wires_again(world: World, which: int) -> None:
    near, far = opened(world)
    for app in (near, far):
        world.write(app, 100_000, chunked=True)
    world.flush(0, 40_000)
    world.deliver(0)
    world.lose(which)
    world.reconnect()
    for app in (near, far):
        world.settle()
        world.finish(app)
    world.settle()
    for app in (near, far):
        world.read(app, 200_000)
        while not app.ended:
            world.read(app, 200_000)
        assert app.read == 100_000
        assert app.core.end is not None
        assert app.core.end.cause is FrameType.DONE
    world.outlive_lingers()
    world.check_nothing_remembered()


@pytest.mark.parametrize("which", [0, -1])
def test_a_stream_that_was_not_accepted_asks_again_after_the_loss_of_its_wire(world: World, which: int) -> None:
    pair = world.open()
    world.write(pair.opener, 1000)
    world.settle()
    world.lose(which)
    world.settle()
    assert pair.opener.core.detached is None, "it does not count as lost what was never had"
    assert pair.acceptor is not None
    pair.acceptor.core.accept()
    world.reconnect()
    world.settle()
    assert pair.opener.core.accepted
    assert pair.opener.core.attempt == 2
    world.read(pair.acceptor, 2000)
    assert pair.acceptor.read == 1000


@pytest.mark.parametrize("which", [0, -1])
def test_what_stays_detached_is_reset_at_both_ends_in_the_end(world: World, which: int) -> None:
    near, far = opened(world)
    world.write(near, 100_000, chunked=True)
    world.settle()
    world.lose(which)
    world.settle()
    world.lose_all()
    for app, patience in ((near, PATIENCE), (far, waits(PATIENCE))):
        world.tick(patience - world.now - 1)
        assert app.core.detached is not None
        world.tick(2)
        assert app.core.end is not None
        assert (app.core.end.cause, app.core.end.by_peer) == (FrameType.RESET, False)
        assert app.core.end.code == ResetCode.DETACHED_TIMEOUT
    world.outlive_lingers()
    world.check_nothing_remembered()


def test_an_orphan_is_given_up_early_while_its_proxy_could_come_back() -> None:
    """The link was lost, the tunnel is good: a living proxy would have asked through it."""
    world = make("switched")
    near, far = opened(world)
    world.lose(0)
    world.settle()
    assert far.core.lost == DetachCode.LINK_LOST
    while world.acceptor.streams:
        world.settle()
        world.tick(1)
    assert world.now == pytest.approx(ORPHAN, abs=1)
    assert far.core.end is not None
    assert far.core.end.code == ResetCode.DETACHED_TIMEOUT
    assert near.core.end is None


def test_an_orphan_is_kept_for_the_full_time_while_no_proxy_could_come_back() -> None:
    world = make("switched")
    _, far = opened(world)
    world.lose(0)
    world.settle()
    world.lose_all()
    world.tick(ORPHAN + 1)
    assert world.acceptor.streams == 1
    world.tick(waits(PATIENCE) - world.now - 1)
    assert world.acceptor.streams == 1
    world.tick(2)
    assert not world.acceptor.streams
    assert far.core.end is not None
