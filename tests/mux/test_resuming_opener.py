"""The opener's side of resumption, frame by frame: when it asks, what it says, and what it makes of each answer."""

from __future__ import annotations

import pytest

from connect_trio.mux import frames
from connect_trio.mux.codes import DetachCode, RejectCode, ResetCode
from connect_trio.mux.endpoint import ACKNOWLEDGE, LINGER, STUB
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import FrameType
from connect_trio.mux.opener import ANSWER, PATIENCE
from tests.support.scene import LIMIT, OpenerScene, answer, data, detach, done, reset

F = FrameType
OTHER = b"O" * 16


@pytest.fixture
def scene() -> OpenerScene:
    return OpenerScene()


def test_normal_life(scene: OpenerScene) -> None:
    stream = scene.open()
    stream.write(b"123456789")
    assert scene.hear(0) == ["OPEN/1 #1 has 0", "DATA/1 0:9"]
    scene.say(0, answer(F.ACCEPT, 1, 1, 9))
    stream.finish()
    assert scene.hear(0) == ["FIN/1 9"]
    scene.say(0, frames.encode_credit(1, 10, LIMIT), data(1, 0, 4), frames.encode_fin(1, 4))
    assert scene.hear(0) == ["CREDIT/1 has 5"]
    scene.say(0, done(1))
    assert scene.hear(0) == ["DONE/1"]
    assert not scene.opener.streams
    assert not scene.opener.timers
    assert not scene.wires[0].ports


def test_a_lost_way_is_answered_and_the_stream_goes_on_from_what_the_other_end_holds(scene: OpenerScene) -> None:
    stream = scene.opened()
    for _ in range(3):
        stream.write(bytes(500))
    scene.say(0, data(1, 0, 700))
    scene.hear(0)
    scene.say(0, detach(1))
    assert scene.hear(0) == ["DETACH/1 LOST"]
    assert scene.homeless == [stream]
    scene.attempt(stream, 1)
    assert scene.hear(1) == ["RESUME/1 #2 has 700"]
    scene.say(1, answer(F.RESUMED, 1, 2, 1000), data(1, 700, 50))
    assert scene.hear(1) == ["DATA/1 1000:1500"]
    assert stream.receive.window.received == 750
    assert (scene.opener.counts.detached, scene.opener.counts.resumed) == (1, 1)


def test_a_frame_that_is_known_in_part_is_sent_whole(scene: OpenerScene) -> None:
    stream = scene.opened()
    stream.write(bytes(500))
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, answer(F.RESUMED, 1, 2, 120))
    assert scene.hear(1) == ["DATA/1 0:500"]


@pytest.mark.parametrize(("holds", "again"), [(9, ["FIN/1 9"]), (10, [])])
def test_the_end_is_sent_again_unless_it_is_known(scene: OpenerScene, holds: int, again: list[str]) -> None:
    stream = scene.opened()
    stream.write(b"123456789")
    stream.finish()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, answer(F.RESUMED, 1, 2, holds))
    assert scene.hear(1) == again
    assert stream.send.window.fin_acknowledged == (holds == 10)


def test_done_instead_of_an_answer_ends_a_stream_that_was_complete(scene: OpenerScene) -> None:
    stream = scene.opened()
    stream.write(b"x")
    stream.finish()
    scene.say(0, frames.encode_fin(1, 0))
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, done(1))
    assert scene.hear(1) == ["DONE/1"]
    assert stream.end is not None
    assert stream.end.cause is F.DONE
    assert not scene.opener.streams


def test_a_detached_stream_that_is_reset_says_so_right_behind_its_question(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    stream.reset()
    scene.attempt(stream, 1)
    assert scene.hear(1) == ["RESUME/1 #2 has 0", "RESET/1 APP"]
    scene.say(1, answer(F.RESUMED, 1, 2), reset(1))
    assert not scene.hear(1)
    assert not scene.opener.streams
    assert not scene.wires[1].ports


def test_a_reset_that_was_lost_with_its_wire_is_said_again_until_somebody_must_have_heard(scene: OpenerScene) -> None:
    stream = scene.opened()
    stream.reset()
    scene.tick(0)
    assert scene.hear(0) == ["RESET/1 APP"]
    scene.lose(0)
    assert scene.homeless == [stream]
    scene.attempt(stream, 1)
    assert scene.hear(1) == ["RESUME/1 #2 has 0", "RESET/1 APP"]
    scene.tick(STUB)
    assert scene.hear(1) == ["DETACH/1 MOVED"]
    assert not scene.opener.streams


def test_a_reset_that_answers_a_question_ends_the_stream(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, reset(1, ResetCode.UNKNOWN))
    assert scene.hear(1) == ["RESET/1 UNKNOWN"]
    assert stream.end is not None
    assert (stream.end.code, stream.end.by_peer) == (ResetCode.UNKNOWN, True)
    assert not scene.opener.streams


def test_a_reset_on_the_old_way_takes_the_question_back(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(0, reset(1))
    assert scene.hear(0) == ["RESET/1 APP"]
    assert scene.hear(1) == ["DETACH/1 MOVED"]
    assert not scene.opener.streams


# moving


def test_a_healthy_stream_moves_without_a_pause(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.attempt(stream, 1)
    stream.write(bytes(10))
    scene.say(0, data(1, 0, 20))
    assert scene.hear(0) == ["DATA/1 0:10"]
    assert scene.hear(1) == ["RESUME/1 #2 has 0"]
    assert stream.receive.window.received == 20
    scene.say(1, answer(F.RESUMED, 1, 2, 4), data(1, 0, 25))
    assert scene.hear(0) == ["DETACH/1 MOVED"]
    assert scene.hear(1) == ["CREDIT/1 has 20", "DATA/1 0:10"]
    assert stream.receive.take_some(100) == bytes(range(25))
    scene.say(0, data(1, 20, 10))  # late, on an id that nobody uses
    assert stream.end is None
    assert stream.receive.window.received == 25
    assert scene.opener.counts.moved == 1


@pytest.mark.parametrize("how", ["detach", "loss", "time-out"])
def test_a_failed_move_gives_up_the_old_way_too(scene: OpenerScene, how: str) -> None:
    """The acceptor may have left it already."""
    stream = scene.opened()
    scene.attempt(stream, 1)
    if how == "detach":
        scene.say(1, detach(1))
    elif how == "loss":
        scene.lose(1)
    else:
        scene.tick(1.0)
    assert scene.hear(0) == ["DETACH/1 MOVED"]
    assert scene.homeless == [stream]
    assert stream.detached == scene.now


@pytest.mark.parametrize("code", [DetachCode.NO_ROUTE, DetachCode.DRAINING])
def test_a_move_that_was_not_forwarded_leaves_the_old_way_as_it_is(scene: OpenerScene, code: DetachCode) -> None:
    stream = scene.opened()
    scene.attempt(stream, 1)
    scene.say(1, detach(1, code))
    assert scene.hear(0) == ["CREDIT/1 has 0"]
    assert not scene.homeless
    stream.write(b"x")
    assert scene.hear(0) == ["DATA/1 0:1"]
    scene.attempt(stream, 2)
    assert scene.hear(2) == ["RESUME/1 #3 has 0"]


def test_what_only_a_question_told_that_nobody_got_is_told_again_on_the_old_way(scene: OpenerScene) -> None:
    """Otherwise the acceptor would keep these bytes for as long as the stream is idle."""
    stream = scene.opened()
    scene.say(0, data(1, 0, 20))
    scene.attempt(stream, 1)
    scene.say(1, detach(1, DetachCode.NO_ROUTE))
    scene.tick(ACKNOWLEDGE)
    assert scene.hear(0) == ["CREDIT/1 has 20"]


def test_a_wire_that_carries_both_ways_of_a_stream_makes_it_homeless_once(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.attempt(stream, 0)
    scene.lose(0)
    assert scene.homeless == [stream]


# attempts


def test_the_time_of_an_attempt_doubles_and_starts_anew_after_success(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    for attempt, patience in enumerate((1, 2, 4, 8, 15, 15), start=2):
        scene.attempt(stream, 1)
        assert len(scene.hear(1)) == 1
        scene.tick(patience - 0.01)
        assert not scene.hear(1)
        scene.tick(0.01)
        assert scene.hear(1) == [f"DETACH/{2 * attempt - 3} MOVED"]
    scene.attempt(stream, 1)
    scene.say(1, answer(F.RESUMED, 13, 8))
    assert stream.attached
    scene.say(1, detach(13))
    scene.hear(1)
    scene.attempt(stream, 1)
    scene.tick(1)
    assert scene.hear(1) == ["RESUME/15 #9 has 0", "DETACH/15 MOVED"]


def test_an_attempt_has_the_time_of_four_round_trips(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.tick(0.7)
    scene.say(1, answer(F.RESUMED, 1, 2))
    scene.say(1, detach(1))
    scene.hear(1)
    scene.attempt(stream, 1)
    scene.tick(2.79)
    assert len(scene.hear(1)) == 1
    scene.tick(0.02)
    assert scene.hear(1) == ["DETACH/3 MOVED"]


def test_only_one_question_at_a_time(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.attempt(stream, 1)
    with pytest.raises(LocalError):
        scene.attempt(stream, 2)
    assert not scene.hear(2)


def test_an_answer_to_another_question_is_a_lie(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.say(1, answer(F.RESUMED, 1, 1))
    assert stream.end is not None
    assert stream.end.code == ResetCode.PROTOCOL


# before the answer


def test_a_stream_that_was_not_accepted_is_opened_again_and_then_waits_with_its_bytes(scene: OpenerScene) -> None:
    stream = scene.open()
    stream.write(b"early")
    assert scene.hear(0) == ["OPEN/1 #1 has 0", "DATA/1 0:5"]
    scene.say(0, detach(1))
    assert scene.homeless == [stream]
    scene.attempt(stream, 1)
    assert not stream.room
    assert scene.hear(1) == ["OPEN/1 #2 has 0"]
    scene.say(1, answer(F.ACCEPT, 1, 2, 3))
    assert scene.hear(1) == ["DATA/1 0:5"]


def test_the_answer_has_its_time_however_often_it_was_asked_for(scene: OpenerScene) -> None:
    stream = scene.open()
    scene.tick(ANSWER - 1)
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.tick(1)
    assert scene.hear(1) == ["RESET/1 DETACHED_TIMEOUT"]


def test_a_refusal_of_the_second_question_ends_the_stream(scene: OpenerScene) -> None:
    stream = scene.open()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, frames.encode_say(F.REJECT, 1, RejectCode.REFUSED))
    assert stream.end is not None
    assert stream.end.cause is F.REJECT
    assert not scene.hear(1)
    assert not scene.opener.streams
    assert not scene.opener.timers


# while detached


def test_a_detached_stream_is_given_up_after_its_time_and_other_attempts_do_not_prolong_it(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.tick(PATIENCE - 1)
    scene.attempt(stream, 1)
    scene.say(1, detach(1))
    scene.hear(1)
    scene.tick(1)
    assert stream.end is not None
    assert stream.end.code == ResetCode.DETACHED_TIMEOUT


def test_a_closed_stream_does_not_linger_while_it_is_detached(scene: OpenerScene) -> None:
    stream = scene.opened()
    stream.abandon(scene.now)
    scene.tick(LINGER - 1)
    scene.lose(0)
    scene.tick(LINGER)
    assert stream.end is None
    scene.attempt(stream, 1)
    scene.say(1, answer(F.RESUMED, 1, 2))
    assert scene.hear(1) == ["RESUME/1 #2 has 0", "FIN/1 0"]
    scene.tick(LINGER - 1)
    assert not scene.hear(1)
    scene.tick(1)
    assert scene.hear(1) == ["RESET/1 APP"]


def test_an_expendable_stream_is_reset_when_its_way_is_lost(scene: OpenerScene) -> None:
    pooled, used = scene.opened(), scene.opened(token=OTHER)
    pooled.expendable = True
    scene.lose(0)
    assert pooled.end is not None
    assert pooled.end.code == ResetCode.APP
    assert used.end is None
    scene.attempt(pooled, 1)
    assert scene.hear(1) == ["RESUME/1 #2 has 0", "RESET/1 APP"]


# limits


def test_a_limit_may_be_lower_by_another_way_and_resending_stops_there_at_the_end_of_a_frame(
    scene: OpenerScene,
) -> None:
    stream = scene.opened()
    scene.write_chunk(stream, 5 * 16384)
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.hear(1)
    scene.say(1, answer(F.RESUMED, 1, 2, 16384, limit=3 * 16384 + 5000))
    assert scene.hear(1) == ["DATA/1 16384:32768", "DATA/1 32768:49152"]
    assert not stream.send.room
    scene.say(1, frames.encode_credit(1, 16384, 5 * 16384 + 100))
    assert scene.hear(1) == ["DATA/1 49152:65536", "DATA/1 65536:81920"]
    assert stream.room == 100


def test_a_limit_that_goes_back_on_one_way_is_a_lie(scene: OpenerScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.attempt(stream, 1)
    scene.say(1, answer(F.RESUMED, 1, 2, limit=70_000))
    scene.say(1, frames.encode_credit(1, 0, 69_999))
    assert stream.end is not None
    assert stream.end.code == ResetCode.PROTOCOL
