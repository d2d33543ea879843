"""One wire: its clocks, its ids, its HELLO, and how much a peer may ask of it. Time is a number."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import frames
from connect_trio.mux.codes import GoawayCode, Peer
from connect_trio.mux.errors import LocalError, WireError
from connect_trio.mux.frames import FrameType, Goaway, Hello
from connect_trio.mux.wire import MAX_ID, Limits, Wire
from tests.support.core import CountingPool, Feed, Recorder, drain_frames, greeted, hello

PING, PONG = FrameType.PING, FrameType.PONG
A_PONG = frames.encode(PONG, 0, bytes(8))


def up(*, dialled: bool = True, now: float = 0.0, limits: Limits | None = None) -> tuple[Wire, Feed]:
    return greeted(Recorder(), Peer.OPENER, Peer.SWITCH, dialled=dialled, now=now, limits=limits)


def kinds(wire: Wire) -> list[int]:
    return [frame.kind for frame in drain_frames(wire)]


def run_until(wire: Wire, end: float, now: float = 0.0) -> list[tuple[float, int]]:
    """Tick exactly when the wire asks for it; what it said, and when."""
    said = []
    while (now := max(now + 0.001, wire.deadline(now))) < end:
        wire.tick(now)
        said += [(round(now, 1), kind) for kind in kinds(wire)]
    return said


# liveness


def test_a_silent_peer_of_a_wire_with_streams_is_asked_after_a_second_and_dead_after_five() -> None:
    wire, _ = up()
    wire.bind(1, "port", 0.0)
    assert run_until(wire, 5.0) == [(1.0, PING)]
    with pytest.raises(WireError, match=r"nothing was heard of the peer for 5\.0 s") as caught:
        run_until(wire, 6.0, 5.0)
    assert caught.value.code is None


@pytest.mark.parametrize("dialled", [True, False])
def test_an_idle_wire_is_asked_by_the_end_that_dialled_and_dead_after_a_minute(dialled: bool) -> None:
    wire, _ = up(dialled=dialled)
    assert run_until(wire, 60.0) == ([(25.0, PING)] if dialled else [])
    with pytest.raises(WireError, match=r"6[01]"):
        run_until(wire, 61.5, 60.0)


@given(heard=st.floats(0, 1e6), moment=st.floats(0, 59))
def test_idle_wires_that_were_accepted_are_looked_at_together_and_at_most_a_second_late(
    heard: float, moment: float
) -> None:
    wire, _ = up(dialled=False, now=heard)
    due = wire.deadline(heard + moment)
    assert due == round(due), "a whole second"
    assert 0 < due - (heard + wire.liveness.idle_dead) <= 1.001


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    wire, feed = up()
    feed(frames.encode(PING, 0, b"whatever"), 1.0)
    (frame,) = drain_frames(wire)
    assert (frame.kind, frame.sid, frame.payload) == (PONG, 0, b"whatever")


@given(st.lists(st.floats(0.001, 2.9), min_size=1, max_size=20))
def test_a_peer_that_answers_lives_for_ever_and_always_has_time_to_answer(delays: list[float]) -> None:
    """The clock is looked at when the wire last asked for it, whatever was heard since: as the shell does."""
    wire, feed = up()
    wire.bind(1, "port", 0.0)
    due, answer = wire.deadline(0.0), None
    while delays:
        if answer is not None and answer <= due:
            feed(A_PONG, answer)
            answer = None
            continue
        now = due
        wire.tick(now)
        due = max(now + 0.001, wire.deadline(now))
        if PING in kinds(wire):
            assert answer is None, "one question at a time"
            answer = now + delays.pop()


def test_who_asks_is_told_what_the_answer_repeats() -> None:
    wire, feed = up(dialled=False)
    answers: list[bytes] = []
    feed(frames.encode(PONG, 0, b"too soon"), 1.0)
    wire.ponged = answers.append
    wire.ping(b"whatever")
    assert [(frame.kind, frame.payload) for frame in drain_frames(wire)] == [(PING, b"whatever")]
    feed(frames.encode(PONG, 0, b"whatever") + A_PONG, 2.0)
    assert answers == [b"whatever", bytes(8)]


def test_who_asks_is_not_asked_for_another_question_until_something_is_heard() -> None:
    wire, feed = up()
    wire.bind(1, "port", 0.0)
    wire.ping(b"whatever")
    kinds(wire)
    assert run_until(wire, 3.0) == []
    feed(A_PONG, 3.0)
    assert run_until(wire, 4.5, 3.0) == [(4.0, PING)]


def test_the_first_stream_on_an_idle_wire_starts_the_fast_clock() -> None:
    wire, _ = up(dialled=False)
    rung: list[float] = []
    wire.alarm = lambda: rung.append(wire.deadline(50.0))
    wire.bind(2, "port", 50.0)
    wire.bind(4, "port", 50.0)
    assert rung == [51.0]
    wire.tick(51.0)
    assert kinds(wire) == [PING]
    wire.tick(54.9)
    with pytest.raises(WireError):
        wire.tick(55.1)


def test_the_last_stream_stops_the_fast_clock() -> None:
    wire, _ = up(dialled=False)
    wire.bind(2, "port", 10.0)
    wire.unbind(2)
    wire.tick(59.0)
    with pytest.raises(WireError):
        wire.tick(60.1)


def test_streams_that_come_and_go_do_not_keep_a_silent_peer_alive() -> None:
    wire, _ = up(dialled=False)
    for at in range(120):
        wire.bind(2, "port", at / 2)
        wire.unbind(2)
        wire.tick(at / 2)
    with pytest.raises(WireError):
        wire.tick(60.5)


def test_the_clock_is_looked_at_before_the_bytes() -> None:
    """A process that was paused does not act on what waited for it: the peer has given this wire up."""
    recorder = Recorder()
    wire, feed = greeted(recorder, Peer.OPENER, Peer.SWITCH, dialled=True)
    wire.bind(1, "port", 0.0)
    recorder.seen.clear()
    with pytest.raises(WireError, match="nothing was heard"):
        feed(frames.encode_data(1, 0, b"late"), 5.1)
    assert recorder.seen == []


@given(st.lists(st.tuples(st.floats(0.01, 1.5), st.booleans()), max_size=40))
def test_the_deadline_never_misses_a_death(steps: list[tuple[float, bool]]) -> None:
    """Whatever was heard when, a wire that is ticked when it asks for it finds a silent peer within 5 s."""
    wire, feed = up()
    wire.bind(1, "port", 0.0)
    now = heard = 0.0
    due = wire.deadline(now)
    for pause, says in [*steps, (20.0, False)]:
        until = now + pause
        while due <= until:
            now = max(now, due)
            if now - heard > 5:
                with pytest.raises(WireError):
                    wire.tick(now)
                assert now <= heard + 5.1
                return
            wire.tick(now)
            due = max(now + 0.001, wire.deadline(now))
        now = until
        if says:
            feed(A_PONG, now)
            heard = now
    raise AssertionError("a silent peer was never found dead")


# HELLO


def test_hello_is_the_first_thing_said() -> None:
    wire = Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0)
    (frame,) = drain_frames(wire)
    assert frames.decode_hello_untrusted(memoryview(frame.payload)) == hello(Peer.OPENER)


@pytest.mark.parametrize(
    "first", [A_PONG, frames.encode_data(1, 0, b"x"), frames.encode_goaway(Goaway(code=1)), frames.encode_detach(1, 1)]
)
def test_hello_must_be_the_first_thing_heard(first: bytes) -> None:
    feed = Feed(Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0), CountingPool())
    with pytest.raises(WireError, match="HELLO must be the first frame"):
        feed(first, 0.0)


def test_hello_must_come_once() -> None:
    _, feed = up()
    with pytest.raises(WireError, match="come once"):
        feed(frames.encode_hello(hello(Peer.SWITCH)), 0.0)


@pytest.mark.parametrize("busy", [True, False])
def test_hello_must_be_whole_within_ten_seconds_however_it_trickles_in(busy: bool) -> None:
    wire = Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0)
    feed = Feed(wire, CountingPool())
    if busy:
        wire.bind(1, "port", 0.0)
    assert 10 <= wire.deadline(0.0) <= 10.1
    said = frames.encode_hello(hello(Peer.SWITCH))
    for at in range(9):
        feed(said[at : at + 1], float(at + 1))
    wire.tick(9.9)
    with pytest.raises(WireError, match="no HELLO came"):
        wire.tick(10.1)


def test_hello_starts_the_clock_of_streams_that_wait_already() -> None:
    wire = Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0)
    wire.bind(1, "port", 0.0)
    rung: list[float] = []
    wire.alarm = lambda: rung.append(wire.deadline(0.5))
    Feed(wire, CountingPool())(frames.encode_hello(hello(Peer.SWITCH)), 0.5)
    assert rung == [1.5]


def test_a_version_that_this_side_does_not_speak_is_told_apart() -> None:
    feed = Feed(Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0), CountingPool())
    with pytest.raises(WireError, match="versions 2 to 9, this side 1") as caught:
        feed(frames.encode_hello(attrs.evolve(hello(Peer.SWITCH), lowest=2, highest=9)), 0.0)
    assert caught.value.code is GoawayCode.VERSION


def test_goaway_of_the_peer_is_remembered_and_told() -> None:
    recorder = Recorder()
    wire, feed = greeted(recorder, Peer.OPENER, Peer.SWITCH, dialled=True)
    feed(frames.encode_goaway(Goaway(code=GoawayCode.DRAIN, grace=1000, text="deploy")), 0.0)
    assert wire.closing == recorder.seen[-1] == Goaway(code=1, grace=1000, text="deploy")


def test_our_goaway_tells_milliseconds() -> None:
    wire, _ = up()
    wire.goaway(GoawayCode.SHUTDOWN, "bye", grace=1.5)
    (frame,) = drain_frames(wire)
    assert frames.decode_goaway_untrusted(memoryview(frame.payload)) == Goaway(code=5, grace=1500, text="bye")


# ids


@given(st.booleans(), st.lists(st.integers(0, 40), max_size=40))
def test_ids_of_a_peer_are_new_rising_and_of_its_parity(dialled: bool, ids: list[int]) -> None:
    wire, _ = up(dialled=dialled)
    ours = 1 if dialled else 0
    highest = 0
    for sid in ids:
        if sid % 2 == ours or sid <= highest:
            with pytest.raises(WireError, match=f"stream id {sid} cannot be opened"):
                wire.admit_id_untrusted(sid)
        else:
            wire.admit_id_untrusted(sid)
            highest = sid
        for known in range(1, 45):
            assert wire.known_id(known) == (known % 2 != ours and known <= highest)


def test_own_ids_are_never_used_twice_and_run_out() -> None:
    wire, _ = up(dialled=False)
    first = [wire.new_id() for _ in range(3)]
    assert first == [2, 4, 6]
    for sid in first:
        wire.bind(sid, "port", 0.0)
        wire.unbind(sid)
    assert wire.new_id() == 8
    assert wire.known_id(8)
    assert not wire.known_id(10)
    wire._next_id = MAX_ID - 1
    assert wire.new_id() == MAX_ID - 1
    for _ in range(2):
        with pytest.raises(LocalError, match="out of stream ids"):
            wire.new_id()
    assert wire.known_id(MAX_ID - 1)
    assert not wire.known_id(MAX_ID)


def test_no_id_is_given_on_a_wire_that_is_gone_or_full() -> None:
    said: Hello = hello(Peer.SWITCH, streams=1)
    wire = Wire(Recorder(), hello(Peer.OPENER), dialled=True, now=0.0)
    Feed(wire, CountingPool())(frames.encode_hello(said), 0.0)
    wire.bind(wire.new_id(), "port", 0.0)
    with pytest.raises(LocalError, match="no more than 1 streams"):
        wire.new_id()
    wire.lost(0.0)
    with pytest.raises(LocalError, match="gone"):
        wire.new_id()


# limits


def test_a_peer_may_not_have_more_streams_than_the_limit() -> None:
    wire, _ = up(limits=Limits(streams=2))
    for sid in (2, 4):
        wire.admit_id_untrusted(sid)
        wire.bind(sid, "port", 0.0)
    with pytest.raises(WireError, match="more than 2 streams") as caught:
        wire.admit_id_untrusted(6)
    assert caught.value.code is GoawayCode.OVERLOADED
    assert wire.known_id(6)


def test_streams_may_be_opened_and_ended_in_bursts_but_not_for_ever() -> None:
    limits = Limits(rate=10, burst=20)
    _, feed = up(limits=limits)
    reset = frames.encode_say(FrameType.RESET, 1, 1)
    feed(reset * 20, 0.0)
    feed(reset * 10, 1.0)
    feed(frames.encode_credit(1, 0, 0) * 100 + frames.encode_data(1, 0, b"x") * 100, 1.0)  # cost nothing
    with pytest.raises(WireError, match="too fast") as caught:
        feed(reset, 1.0)
    assert caught.value.code is GoawayCode.OVERLOADED


def test_an_honest_loss_of_all_streams_is_within_the_burst() -> None:
    _, feed = up()
    detach = frames.encode_detach(1, 1) + frames.encode_say(FrameType.RESET, 1, 1)
    feed(detach * Limits().streams, 0.0)


def test_lies_are_counted_by_the_minute() -> None:
    wire, _ = up(limits=Limits(lies=3))
    for at in (0.0, 10.0, 20.0, 65.0, 75.0):
        wire.count_lie("lie", at)
    with pytest.raises(WireError, match="more than 3 streams broke the rules within a minute, the last: big lie"):
        wire.count_lie("big lie", 76.0)


def test_a_lost_wire_is_forgotten_once() -> None:
    recorder = Recorder()
    wire, _ = greeted(recorder, Peer.OPENER, Peer.SWITCH, dialled=True)
    wire.bind(1, "port", 0.0)
    wire.goaway(GoawayCode.SHUTDOWN)
    wire.lost(1.0)
    wire.lost(2.0)
    assert recorder.seen.count("lost") == 1
    assert not wire.ports
    assert wire.outbox.idle
    assert repr(wire) == "<Wire opener gone streams=0>"
