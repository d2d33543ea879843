"""The memory of all streams of a process: counted exactly, and who must go when there is too much."""

from __future__ import annotations

from connect_trio.mux.budget import Budget
from connect_trio.mux.codes import ResetCode
from connect_trio.mux.frames import FrameType, encode_credit
from connect_trio.mux.halves import ReceiveHalf, SendHalf
from connect_trio.mux.streams import CoreStream
from tests.support.core import CountingChunkPool, CountingPool
from tests.support.scene import LIMIT, AcceptorScene, OpenerScene, ask, data, detach

F = FrameType


def token(number: int) -> bytes:
    return number.to_bytes(16, "big")


# what counts


def test_what_was_sent_counts_until_it_is_acknowledged_or_dropped() -> None:
    budget, pool = Budget(), CountingChunkPool()
    half = SendHalf(limit=1 << 20, allowance=1 << 20, budget=budget)
    half.write(1, bytes(100))
    chunk = pool.take_chunk()
    half.write_chunk(1, chunk, 50_000)
    chunk.drop()
    used = [budget.used]
    for received in (40, 40, 30_100):
        half.credit(received, 1 << 20)
        used.append(budget.used)
    half.attach(40_100, 1 << 20)
    used.append(budget.used)
    half.drop()
    assert used == [50_100, 50_060, 50_060, 20_000, 10_000]
    assert not budget.used


def test_the_end_costs_nothing() -> None:
    budget = Budget()
    half = SendHalf(limit=1 << 20, allowance=1 << 20, budget=budget)
    half.write(1, bytes(5))
    half.window.finish()
    half.credit(6, 1 << 20)
    assert not budget.used


def test_what_came_counts_until_it_is_taken_however_that_is_done() -> None:
    budget, pool = Budget(), CountingPool()
    half = ReceiveHalf(granted=1 << 20, window=1 << 20, budget=budget)
    buffer = pool.take()
    for size in (60_000, 60_000):
        half.window.data(half.window.received, size)
        half.deliver([buffer.view[:size]], size, buffer)
    used = [budget.used]
    half.take_some(1000)
    used.append(budget.used)
    half.advance(2000)
    used.append(budget.used)
    half.take()
    used.append(budget.used)
    half.drop()
    assert used == [120_000, 119_000, 117_000, 60_000]
    assert not budget.used


def test_what_the_short_cut_takes_never_counts() -> None:
    budget, pool = Budget(), CountingPool()
    half = ReceiveHalf(granted=1 << 20, window=1 << 20, budget=budget)
    half.sink = lambda parts: 30
    half.window.data(0, 100)
    buffer = pool.take()
    half.deliver([buffer.view[:100]], 100, buffer)
    assert budget.used == 70


def test_all_streams_count_together() -> None:
    scene = AcceptorScene()
    streams = [scene.opened(sid=2 * at + 1, token=token(at)) for at in range(2)]
    for at, stream in enumerate(streams):
        stream.write(bytes(100))
        scene.say(0, data(2 * at + 1, 0, 50))
    assert scene.acceptor.budget.used == 300
    streams[0].reset()
    assert scene.acceptor.budget.used == 150


# who must go


def over(scene: AcceptorScene, sid: int) -> None:
    """A stream gets more than there was room for."""
    scene.say(0, data(sid, 0, 1000))


def detached_in_turn(scene: AcceptorScene) -> list[CoreStream]:
    """Three streams with 300 bytes each: 1 is detached first, then 0; 2 stays."""
    streams = [scene.opened(sid=2 * at + 1, token=token(at)) for at in range(3)]
    for at in range(3):
        scene.say(0, data(2 * at + 1, 0, 300))
    for at in (1, 0):
        scene.tick(1)
        scene.say(0, detach(2 * at + 1))
    scene.hear(0)
    return streams


def test_the_longest_detached_goes_first_and_no_more_than_must() -> None:
    scene = AcceptorScene(budget=Budget(1650))
    streams = detached_in_turn(scene)
    scene.opened(sid=7, token=token(3))
    over(scene, 7)
    assert [stream.end is not None for stream in streams] == [False, True, False]
    assert streams[1].end is not None
    assert streams[1].end.code == ResetCode.BUDGET
    assert scene.acceptor.budget.used == 1600


def test_one_that_came_back_is_not_detached_any_more() -> None:
    scene = AcceptorScene(budget=Budget(1650))
    streams = detached_in_turn(scene)
    scene.say(1, ask(F.RESUME, 1, 2, token=token(1)))
    scene.opened(sid=7, token=token(3))
    over(scene, 7)
    assert [stream.end is not None for stream in streams] == [True, False, False]


def test_attached_streams_are_never_reset_for_memory() -> None:
    scene = AcceptorScene(budget=Budget(100))
    stream = scene.opened()
    scene.say(0, data(1, 0, 1000))
    stream.write(bytes(1000))
    assert scene.acceptor.budget.over
    assert stream.end is None
    assert scene.hear(0) == ["DATA/1 0:1000"]


def test_what_is_written_makes_room_too() -> None:
    scene = OpenerScene(budget=Budget(1000))
    waiting, writing = scene.opened(0), scene.opened(1, token(1))
    waiting.write(bytes(600))
    scene.lose(0)
    writing.write(bytes(600))
    assert waiting.end is not None
    assert waiting.end.code == ResetCode.BUDGET
    assert scene.homeless == [waiting, waiting]
    assert scene.opener.budget.used == 600
    assert scene.opener.counts.resets == {ResetCode.BUDGET: 1}


def test_nothing_new_is_served_while_there_is_too_much_and_it_is_again_when_there_is_room() -> None:
    scene = AcceptorScene(budget=Budget(100))
    stream = scene.opened()
    stream.write(bytes(200))
    scene.hear(0)
    scene.say(0, ask(F.OPEN, 3, 1, token=token(1)))
    assert scene.hear(0) == ["REJECT/3 BUDGET"]
    scene.say(0, encode_credit(1, 200, LIMIT), ask(F.OPEN, 5, 1, token=token(2)))
    assert scene.hear(0) == ["ACCEPT/5 #1 has 0"]


def test_what_is_detached_goes_before_anything_new_is_refused() -> None:
    scene = AcceptorScene(budget=Budget(100))
    stream = scene.opened()
    stream.write(bytes(200))
    scene.lose(0)
    scene.say(1, ask(F.OPEN, 1, 1, token=token(1)))
    assert scene.hear(1) == ["ACCEPT/1 #1 has 0"]
    assert stream.end is not None
    assert stream.end.code == ResetCode.BUDGET
