"""The acceptor's side of resumption, frame by frame: each token is served once, whatever comes late or again."""

from __future__ import annotations

import pytest

from connect_trio.mux import frames
from connect_trio.mux.acceptor import waits
from connect_trio.mux.codes import RejectCode, ResetCode
from connect_trio.mux.endpoint import LINGER
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import FrameType
from connect_trio.mux.tombstones import SHORT_LINGER
from tests.support.scene import LIMIT, AcceptorScene, ask, data, detach, done, reset

F = FrameType


@pytest.fixture
def scene() -> AcceptorScene:
    return AcceptorScene()


@pytest.fixture
def asked() -> AcceptorScene:
    """Its application takes its time."""
    return AcceptorScene(serves=False)


def credit(sid: int, received: int) -> bytes:
    return frames.encode_credit(sid, received, LIMIT)


def nothing_remembered(scene: AcceptorScene) -> bool:
    acceptor = scene.acceptor
    return not (acceptor.streams or acceptor.tombstones or acceptor.timers or acceptor.asked or acceptor.detached)


def test_normal_life(scene: AcceptorScene) -> None:
    scene.say(0, ask(F.OPEN, 1, 1), data(1, 0, 9))
    (stream,) = scene.streams
    assert scene.hear(0) == ["ACCEPT/1 #1 has 0"]
    scene.say(0, frames.encode_fin(1, 9))
    stream.write(b"bye.")
    stream.finish()
    assert scene.hear(0) == ["CREDIT/1 has 10", "DATA/1 0:4", "FIN/1 4"]
    scene.say(0, credit(1, 5))
    assert scene.hear(0) == ["DONE/1"]
    scene.say(0, done(1))
    assert nothing_remembered(scene)
    assert not scene.wires[0].ports


def test_a_stream_comes_back_by_another_wire_and_goes_on_from_what_the_opener_holds(scene: AcceptorScene) -> None:
    stream = scene.opened()
    for _ in range(3):
        stream.write(bytes(500))
    scene.say(0, data(1, 0, 1200))
    scene.hear(0)
    scene.lose(0)
    assert stream.detached == 0.0
    scene.say(1, ask(F.RESUME, 1, 2, 1000))
    assert scene.hear(1) == ["RESUMED/1 #2 has 1200", "DATA/1 1000:1500"]
    assert stream.detached is None


def test_a_stream_may_come_back_before_its_loss_was_noticed(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.say(1, ask(F.RESUME, 1, 2))
    assert scene.hear(1) == ["RESUMED/1 #2 has 0"]
    scene.say(0, data(1, 0, 5), detach(1))  # what the old way still brings is ignored
    assert not scene.hear(0)
    assert stream.receive.window.received == 0
    assert stream.attached
    scene.lose(0)
    assert stream.attached


def test_what_the_opener_did_not_get_is_sent_again_after_a_move(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.write(bytes(20))
    scene.say(0, data(1, 0, 10), credit(1, 5))
    scene.say(1, ask(F.RESUME, 1, 2, 5))
    assert scene.hear(1) == ["RESUMED/1 #2 has 10", "DATA/1 0:20"]
    scene.say(1, data(1, 4, 16))
    assert stream.receive.take_some(100) == bytes(range(20))


# late, again, out of order


def test_the_same_question_with_a_later_attempt_is_served_once(asked: AcceptorScene) -> None:
    asked.say(0, ask(F.OPEN, 1, 1), data(1, 0, 5))
    asked.say(1, ask(F.OPEN, 1, 2))
    (stream,) = asked.streams
    stream.accept()
    assert not asked.hear(0)
    assert asked.hear(1) == ["ACCEPT/1 #2 has 5"]


def test_a_question_that_comes_after_a_later_one_is_stale(scene: AcceptorScene) -> None:
    scene.say(1, ask(F.OPEN, 1, 2))
    scene.say(0, ask(F.OPEN, 1, 1), data(1, 0, 5))
    assert scene.hear(0) == ["DETACH/1 STALE"]
    assert scene.hear(1) == ["ACCEPT/1 #2 has 0"]
    assert len(scene.streams) == 1
    assert scene.streams[0].wire is scene.wires[1]


def test_what_a_stale_question_says_of_offsets_is_not_looked_at(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.write(bytes(9))
    scene.say(0, credit(1, 9))
    scene.say(1, ask(F.RESUME, 1, 3, 9))
    scene.say(2, ask(F.RESUME, 1, 2, 10**6))
    assert scene.hear(2) == ["DETACH/1 STALE"]
    assert stream.end is None
    assert stream.wire is scene.wires[1]


def test_the_answer_goes_to_the_newest_question_and_says_what_was_asked(scene: AcceptorScene) -> None:
    scene.opened()
    scene.say(1, ask(F.OPEN, 1, 2))  # ACCEPT was lost
    scene.say(2, ask(F.RESUME, 1, 3))
    assert scene.hear(1) == ["ACCEPT/1 #2 has 0"]
    assert scene.hear(2) == ["RESUMED/1 #3 has 0"]


def test_a_stream_of_an_agent_that_was_started_anew_is_unknown_and_no_late_question_opens_it(
    scene: AcceptorScene,
) -> None:
    scene.say(0, ask(F.RESUME, 1, 2))
    assert scene.hear(0) == ["RESET/1 UNKNOWN"]
    scene.say(0, reset(1))
    scene.say(1, ask(F.OPEN, 1, 1))
    assert scene.hear(1) == ["DETACH/1 STALE"]
    assert not scene.streams
    scene.tick(0)
    scene.tick(SHORT_LINGER)
    assert nothing_remembered(scene)


def test_an_id_is_used_once(scene: AcceptorScene) -> None:
    scene.opened()
    scene.say(0, detach(1))
    with pytest.raises(WireError, match="cannot be opened"):
        scene.say(0, ask(F.RESUME, 1, 2))


def test_a_question_on_an_id_in_use_is_a_lie_about_its_stream(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.say(0, ask(F.RESUME, 1, 2))
    assert scene.hear(0) == ["RESET/1 PROTOCOL"]
    assert stream.end is not None


# told less than acknowledged


def test_credit_that_went_the_old_way_comes_first_on_the_new_one(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.write(bytes(10))
    scene.hear(0)
    scene.say(0, credit(1, 10))
    scene.say(1, ask(F.RESUME, 1, 2, 4))  # it left before that CREDIT was told
    assert scene.hear(1) == ["RESUMED/1 #2 has 0"]
    scene.say(1, credit(1, 10), data(1, 0, 3))
    assert stream.end is None
    assert stream.receive.take_some(9) == bytes(range(3))


@pytest.mark.parametrize("lie", [data(1, 0, 3), frames.encode_fin(1, 0), credit(1, 9)], ids=["DATA", "FIN", "CREDIT"])
def test_an_opener_that_takes_back_what_it_acknowledged_lies(scene: AcceptorScene, lie: bytes) -> None:
    stream = scene.opened()
    stream.write(bytes(10))
    scene.say(0, credit(1, 10))
    scene.say(1, ask(F.RESUME, 1, 2, 4), lie)
    assert stream.end is not None
    assert stream.end.code == ResetCode.PROTOCOL


def test_a_question_that_claims_more_than_was_sent_is_a_lie(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.say(1, ask(F.RESUME, 1, 2, 1))
    assert scene.hear(1) == ["RESET/1 PROTOCOL"]
    assert stream.end is not None


# the end


def complete(scene: AcceptorScene) -> None:
    """A stream with both ends in place; DONE is on its way."""
    stream = scene.opened()
    stream.finish()
    scene.say(0, frames.encode_fin(1, 0), credit(1, 1))
    assert scene.hear(0)[-1] == "DONE/1"


def test_done_that_was_lost_is_said_by_what_is_remembered(scene: AcceptorScene) -> None:
    complete(scene)
    scene.lose(0)
    scene.say(1, ask(F.RESUME, 1, 2, 1))
    assert scene.hear(1) == ["DONE/1"]
    scene.say(1, done(1))
    scene.tick(0)
    assert not scene.wires[1].ports
    scene.tick(SHORT_LINGER)
    assert nothing_remembered(scene)


def test_the_end_that_was_lost_is_sent_again(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.finish()
    scene.lose(0)
    scene.say(1, ask(F.RESUME, 1, 2, 0))
    assert scene.hear(1) == ["RESUMED/1 #2 has 0", "FIN/1 0"]


def test_a_question_that_acknowledges_the_end_completes_the_stream(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.finish()
    scene.say(0, frames.encode_fin(1, 0))
    scene.lose(0)
    scene.say(1, ask(F.RESUME, 1, 2, 1))
    assert scene.hear(1) == ["RESUMED/1 #2 has 1", "DONE/1"]


def test_a_reset_while_detached_is_said_to_who_comes_back(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    stream.reset(ResetCode.REVOKED)
    scene.say(1, ask(F.RESUME, 1, 2))
    assert scene.hear(1) == ["RESET/1 REVOKED"]
    scene.say(1, reset(1))
    assert not scene.wires[1].ports


def test_a_reset_of_the_opener_right_behind_its_question_ends_the_stream(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.say(1, ask(F.RESUME, 1, 2), reset(1))
    assert scene.hear(1) == ["RESUMED/1 #2 has 0", "RESET/1 APP"]
    assert stream.end is not None
    assert stream.end.by_peer
    assert not scene.wires[1].ports


def test_a_refusal_while_detached_is_the_answer_to_the_next_question(asked: AcceptorScene) -> None:
    asked.say(0, ask(F.OPEN, 1, 1))
    asked.lose(0)
    asked.streams[0].reject(RejectCode.UNREACHABLE, "no tool")
    asked.say(1, ask(F.OPEN, 1, 2))
    assert asked.hear(1) == ["REJECT/1 UNREACHABLE"]
    assert len(asked.streams) == 1
    assert not asked.wires[1].ports


def test_an_answer_while_detached_waits_for_the_next_question(asked: AcceptorScene) -> None:
    asked.say(0, ask(F.OPEN, 1, 1))
    asked.lose(0)
    asked.streams[0].accept()
    asked.say(1, ask(F.OPEN, 1, 2))
    assert asked.hear(1) == ["ACCEPT/1 #2 has 0"]


def test_a_stream_that_nobody_comes_back_for_is_reset_and_then_forgotten(scene: AcceptorScene) -> None:
    stream = scene.opened()
    scene.lose(0)
    scene.tick(waits(600) - 1)
    assert stream.detached == 0.0
    scene.tick(1)
    assert stream.end is not None
    assert stream.end.code == ResetCode.DETACHED_TIMEOUT
    scene.tick(0)
    scene.tick(waits(3600))
    assert nothing_remembered(scene)


def test_a_closed_stream_does_not_linger_while_it_is_detached(scene: AcceptorScene) -> None:
    stream = scene.opened()
    stream.abandon(scene.now)
    scene.lose(0)
    scene.tick(LINGER + 1)
    scene.say(1, ask(F.RESUME, 1, 2))
    assert scene.hear(1) == ["RESUMED/1 #2 has 0", "FIN/1 0"]
    scene.tick(LINGER - 1)
    assert not scene.hear(1)
    scene.tick(1)
    assert scene.hear(1) == ["RESET/1 APP"]


# garbage


def test_a_wire_that_ends_on_garbage_delivers_what_came_before_it(scene: AcceptorScene) -> None:
    """It counts as received in the next answer: to forget it would lose it."""
    stream = scene.opened()
    with pytest.raises(WireError, match="unknown frame type"):
        scene.say(0, data(1, 0, 9), b"garbage!")
    scene.lose(0)
    assert stream.receive.take_some(100) == bytes(range(9))
    scene.say(1, ask(F.RESUME, 1, 2))
    assert scene.hear(1) == ["RESUMED/1 #2 has 9"]
