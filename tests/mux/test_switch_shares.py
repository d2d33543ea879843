"""What a switch promises each circuit: less where there are many, and never so that a sender stands still."""

from __future__ import annotations

import pytest

from connect_trio.mux import frames, switch
from connect_trio.mux.frames import INITIAL, FrameType
from connect_trio.mux.halves import FRAME
from connect_trio.mux.switch import PROMISED, SWITCH_WINDOW
from tests.support.switching import LIMIT, Bench, data_run


def promised(bench: Bench) -> int:
    """What the opener of a new circuit is told that it may send."""
    sid, frame = bench.ask()
    bench.say("link", frame)
    far = bench.hear("a")[-1].sid
    answer = frames.Answer(attempt=1, received=0, limit=LIMIT)
    bench.say("a", frames.encode_answer(FrameType.ACCEPT, far, answer))
    said = bench.hear("link")[-1]
    assert said.sid == sid
    return frames.decode_answer_untrusted(memoryview(said.payload)).limit


def test_sixty_thousand_circuits_have_the_initial_credit_each() -> None:
    assert PROMISED // (2 * 1024) == SWITCH_WINDOW
    assert PROMISED // (2 * 60_000) < INITIAL


def test_the_more_circuits_the_less_each_new_one_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "PROMISED", 4 * SWITCH_WINDOW)
    bench = Bench()
    assert [promised(bench) for _ in range(4)] == [1 << 20, 1 << 20, (1 << 21) // 3, 1 << 19]
    for _ in range(60):
        least = promised(bench)
    assert least == INITIAL


def test_those_that_are_left_get_more_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "PROMISED", 4 * SWITCH_WINDOW)
    bench = Bench()
    circuits = [bench.circuit() for _ in range(40)]
    sid, _ = circuits.pop()
    for other, _ in circuits:
        bench.say("link", frames.encode_detach(other, 1))
    bench.hear("link")
    bench.say("link", data_run(sid, 0, INITIAL))
    bench.hear("a")
    (credit,) = bench.hear("link")
    assert (credit.kind, credit.sid) == (FrameType.CREDIT, sid)
    assert frames.CREDIT.unpack(credit.payload)[1] > SWITCH_WINDOW


def test_a_sender_for_whose_next_frame_too_little_is_left_is_told_of_little_room_too() -> None:
    bench = Bench()
    sid, _ = bench.circuit(limit=SWITCH_WINDOW + 1000)
    bench.say("link", data_run(sid, 0, SWITCH_WINDOW - FRAME))
    bench.hear("a")
    assert bench.hear("link") == []
    bench.say("link", data_run(sid, SWITCH_WINDOW - FRAME, 1))
    bench.hear("a")
    (credit,) = bench.hear("link")
    assert frames.CREDIT.unpack(credit.payload) == (0, SWITCH_WINDOW + 1000)
