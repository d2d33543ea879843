"""The switch: frames pass with another id, memory is bounded, and nobody's fault costs anybody else."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import frames
from connect_trio.mux.codes import DetachCode, GoawayCode, Peer, RejectCode
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import Answer, Ask, FrameType
from connect_trio.mux.switch import ENDING, SWITCH_WINDOW, Switch
from connect_trio.mux.wire import Limits
from tests.support.core import Feed, hello
from tests.support.switching import LIMIT, Bench, data_run

F = FrameType
RESET = b"\0\1"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def detach_code(payload: bytes) -> int:
    return int.from_bytes(payload, "big")


def credit(sid: int, received: int, limit: int = LIMIT) -> bytes:
    return frames.encode_credit(sid, received, limit)


# circuits


def test_frames_pass_with_the_other_id_and_lowered_limits(bench: Bench) -> None:
    bench.circuit()
    sid, frame = bench.ask()
    bench.say("link", frame, frames.encode_data(sid, 0, b"early"))
    opened, data = bench.hear("a")
    ask = frames.decode_ask_untrusted(memoryview(opened.payload))
    assert (opened.kind, opened.sid) == (F.OPEN, 4)
    assert ask == attrs.evolve(frames.decode_ask_untrusted(memoryview(frame)[8:]), limit=SWITCH_WINDOW)
    assert (data.kind, data.sid, data.payload) == (F.DATA, 4, bytes(8) + b"early")
    bench.say("a", frames.encode_answer(F.ACCEPT, 4, Answer(attempt=1, received=5, limit=LIMIT, patience=7)))
    (answer,) = bench.hear("link")
    assert answer.sid == sid
    assert frames.decode_answer_untrusted(memoryview(answer.payload)) == Answer(
        attempt=1, received=5, limit=5 + SWITCH_WINDOW, patience=7
    )
    bench.say("a", frames.encode_fin(4, 0), credit(4, 5))
    assert bench.kinds("link") == [(F.CREDIT, sid), (F.FIN, sid)]


def test_a_session_without_tunnel_has_no_route(bench: Bench) -> None:
    sid, frame = bench.ask("nobody")
    bench.say("link", frame, frames.encode_data(sid, 0, b"early"), frames.encode_detach(sid, DetachCode.LOST))
    (answer,) = bench.hear("link")
    assert (answer.kind, answer.sid, detach_code(answer.payload)) == (F.DETACH, sid, DetachCode.NO_ROUTE)
    assert not bench.circuits["link"]


def test_a_tunnel_that_is_gone_is_no_route(bench: Bench) -> None:
    bench.wires["a"].lost(0.0)
    sid, frame = bench.ask()
    bench.say("link", frame)
    assert bench.kinds("link") == [(F.DETACH, sid)]


def test_a_tunnel_that_takes_no_more_streams_is_overloaded(bench: Bench) -> None:
    bench.wires["a"].peer = hello(Peer.ACCEPTOR, streams=1)
    bench.circuit()
    sid, frame = bench.ask()
    bench.say("link", frame)
    (answer,) = bench.hear("link")
    assert (answer.kind, answer.sid) == (F.REJECT, sid)
    assert frames.decode_say_untrusted(memoryview(answer.payload))[0] == RejectCode.OVERLOADED
    assert bench.circuits["link"] == 1


def test_only_openers_may_open(bench: Bench) -> None:
    """An agent could otherwise open a stream to another session, past the proxy that decides who may."""
    ask = Ask(token=bytes(16), attempt=1, limit=0, session="b")
    for kind in (F.OPEN, F.RESUME):
        with pytest.raises(WireError, match="only an opener"):
            bench.say("a", frames.encode_ask(kind, 1, ask))
    assert bench.kinds("b") == []


def test_a_reject_frees_the_circuit_and_late_frames_are_ignored(bench: Bench) -> None:
    sid, frame = bench.ask()
    bench.say("link", frame)
    far = bench.hear("a")[0].sid
    bench.say("link", frames.encode_data(sid, 0, b"waits for the tunnel"))
    bench.say("a", frames.encode_say(F.REJECT, far, RejectCode.REFUSED, "no"))
    assert bench.kinds("a") == []
    assert bench.kinds("link") == [(F.REJECT, sid)]
    assert not bench.circuits["link"] + bench.circuits["a"]
    for name, each in (("link", sid), ("a", far)):
        bench.say(name, frames.encode_data(each, 0, b"late"), frames.encode_fin(each, 4), credit(each, 0))
        bench.say(name, frames.encode(F.RESET, each, RESET), frames.encode(F.DONE, each))
        bench.say(name, frames.encode_detach(each, 1))
    assert bench.kinds("a") + bench.kinds("link") == []


@pytest.mark.parametrize("kind", [F.RESET, F.DONE])
def test_a_circuit_is_free_when_both_sides_have_said_their_last(bench: Bench, kind: FrameType) -> None:
    sid, far = bench.circuit()
    last = RESET if kind == F.RESET else b""
    bench.say("a", frames.encode_data(far, 0, b"x"), frames.encode(kind, far, last))
    assert bench.kinds("link") == [(kind, sid)], "RESET and DONE overtake what waits"
    assert bench.circuits["link"] == 1
    bench.say("link", frames.encode(kind, sid, last))
    assert bench.kinds("a") == [(kind, far)]
    assert not bench.circuits["link"] + bench.circuits["a"]
    assert not bench.switch._ending


def test_a_circuit_whose_other_side_never_says_its_last_is_freed_in_the_end(bench: Bench) -> None:
    """Or an agent that answers nothing would use up the ids of a link that all sessions share."""
    sid, far = bench.circuit()
    other = bench.circuit("b")
    bench.say("link", frames.encode(F.RESET, sid, RESET))
    bench.now = 50.0
    for feed in bench.feeds.values():
        feed.wire._heard = feed.wire._busy_since = 50.0
    bench.say("b", credit(other[1], 0))
    assert bench.circuits == {"link": 2, "a": 1, "b": 1}
    bench.now = ENDING
    for feed in bench.feeds.values():
        feed.wire._heard = feed.wire._busy_since = ENDING
    bench.say("b", credit(other[1], 0))
    assert bench.circuits == {"link": 1, "a": 0, "b": 1}
    assert bench.kinds("a") == [(F.RESET, far), (F.DETACH, far)]


def test_a_detach_frees_at_once_and_is_answered(bench: Bench) -> None:
    sid, far = bench.circuit()
    bench.say("a", frames.encode_detach(far, DetachCode.STALE))
    (passed,) = bench.hear("link")
    assert (passed.kind, passed.sid, detach_code(passed.payload)) == (F.DETACH, sid, DetachCode.STALE)
    assert bench.kinds("a") == [(F.DETACH, far)]
    assert not bench.circuits["link"] + bench.circuits["a"]


@pytest.mark.parametrize(("name", "code"), [("a", DetachCode.LOST), ("link", DetachCode.LINK_LOST)])
def test_the_loss_of_a_wire_is_told_before_anything_else(bench: Bench, name: str, code: DetachCode) -> None:
    sid, far = bench.circuit()
    bench.circuit("b")
    bench.say("a", data_run(far, 0, 1000))
    bench.say("link", data_run(sid, 0, 1000))
    bench.wires[name].lost(0.0)
    survivor, its_id = ("a", far) if name == "link" else ("link", sid)
    out = bench.hear(survivor)
    assert [(frame.kind, frame.sid) for frame in out] == [(F.DETACH, its_id)]
    assert detach_code(out[0].payload) == code
    assert bench.circuits["b"] == (name == "a")


def test_a_link_that_is_silent_is_not_told_as_one_that_has_ended(bench: Bench) -> None:
    """Its proxy may be cut off, or stopped for a while: acceptors wait for it as for any other."""
    _, far = bench.circuit()
    with pytest.raises(WireError, match="nothing was heard"):
        bench.wires["link"].tick(5.1)
    bench.wires["link"].lost(5.1)
    (detach,) = (frame for frame in bench.hear("a") if frame.kind == F.DETACH)
    assert (detach.sid, detach_code(detach.payload)) == (far, DetachCode.LOST)


def test_a_displaced_tunnel_loses_its_circuits_and_is_told(bench: Bench) -> None:
    sid, far = bench.circuit()
    bench.switch.displace(bench.wires["a"])
    assert bench.kinds("link") == [(F.DETACH, sid)]
    detach, goaway = bench.hear("a")
    assert (detach.kind, detach.sid) == (F.DETACH, far)
    assert frames.decode_goaway_untrusted(memoryview(goaway.payload)).code == GoawayCode.DISPLACED
    bench.wires["a"].lost(0.0)
    assert not bench.circuits["link"]


def test_an_id_that_was_never_used_ends_the_wire(bench: Bench) -> None:
    for name, sid in (("link", 99), ("link", 2), ("a", 2), ("a", 1)):
        with pytest.raises(WireError, match="never opened"):
            bench.say(name, frames.encode_data(sid, 0, b"x"))


def test_greetings_are_passed_to_the_owner(bench: Bench) -> None:
    seen = []
    bench.switch.greeted = lambda wire, said: seen.append((wire, said.peer))
    bench.add("c", Peer.ACCEPTOR)
    assert seen == [(bench.wires["c"], Peer.ACCEPTOR)]


def test_a_switch_must_hold_the_initial_credit() -> None:
    with pytest.raises(ValueError, match="at least 65536 bytes"):
        Switch(lambda session, link: None, window=65535)


# what a sender may not do


@pytest.mark.parametrize("name", ["link", "a"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda sid: data_run(sid, SWITCH_WINDOW, 1),
        lambda sid: data_run(sid, 0, 10) + data_run(sid, 9, 2),
        lambda sid: data_run(sid, 0, 10) + data_run(sid, 0, 10),
        lambda sid: frames.encode_fin(sid, 3) + frames.encode_fin(sid, 3),
        lambda sid: frames.encode_fin(sid, 3) + data_run(sid, 3, 1),
        lambda sid: frames.encode_fin(sid, SWITCH_WINDOW + 1),
        lambda sid: frames.encode(F.RESET, sid, RESET) + data_run(sid, 0, 1),
        lambda sid: frames.encode_ask(F.OPEN, sid, Ask(token=bytes(16), attempt=1, limit=0)),
        lambda sid: frames.encode_answer(F.ACCEPT, sid, Answer(attempt=1, received=0, limit=0)) * 2,
    ],
    ids=["beyond", "overlap", "again", "two ends", "after the end", "end beyond", "after reset", "open", "two answers"],
)
def test_what_a_circuit_does_not_allow_cuts_it_both_ways(bench: Bench, name: str, wrong: object) -> None:
    sid, far = bench.circuit()
    bench.circuit("b")
    assert callable(wrong)
    bench.say(name, wrong(sid if name == "link" else far))
    for wire, its_id in (("link", sid), ("a", far)):
        last = bench.hear(wire)[-1]
        assert (last.kind, last.sid, detach_code(last.payload)) == (F.DETACH, its_id, DetachCode.CONGESTED)
    assert bench.circuits == {"link": 1, "a": 0, "b": 1}


def test_a_wire_that_breaks_circuits_again_and_again_ends() -> None:
    bench = Bench(limits=Limits(lies=2))
    for _ in range(2):
        bench.say("a", data_run(bench.circuit()[1], SWITCH_WINDOW, 1))
    circuit = bench.circuit()
    with pytest.raises(WireError, match="more than 2 streams broke the rules"):
        bench.say("a", data_run(circuit[1], SWITCH_WINDOW, 1))
    assert bench.circuits["link"] == 0


def test_an_agent_cannot_fill_a_link_with_answers(bench: Bench) -> None:
    _, far = bench.circuit()
    answer = frames.encode_answer(F.ACCEPT, far, Answer(attempt=1, received=0, limit=LIMIT))
    bench.say("a", answer * 5000)
    assert bench.outbox("link").control_size < 100


# memory


def test_only_a_first_open_brings_the_initial_credit(bench: Bench) -> None:
    sid, frame = bench.ask(attempt=2)
    bench.say("link", frame)
    far = bench.hear("a")[0].sid
    bench.say("link", frames.encode_data(sid, 0, b"x"))
    assert bench.kinds("a") == [(F.DETACH, far)]


def test_limits_never_go_back_and_grow_when_the_wire_drains(bench: Bench) -> None:
    sid, far = bench.circuit()
    half = SWITCH_WINDOW // 2
    bench.say("link", data_run(sid, 0, SWITCH_WINDOW))
    assert bench.kinds("link") == []
    assert bench.held("a") > SWITCH_WINDOW
    while not (said := bench.hear("link")):
        parts = bench.outbox("a").gather()
        bench.outbox("a").sent(sum(map(len, parts)))
    received, limit = frames.CREDIT.unpack(said[0].payload)
    assert (said[0].kind, said[0].sid, received) == (F.CREDIT, sid, 0)
    assert half <= limit - SWITCH_WINDOW <= half + 65536
    bench.say("a", credit(far, 10, 20))  # an end that takes back what it said: not through this circuit
    assert frames.CREDIT.unpack(bench.hear("link")[0].payload) == (10, limit)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40000), st.integers(0, 80000)), max_size=30))
def test_nobody_is_told_less_than_before_and_no_more_than_fits(steps: list[tuple[int, int, int]]) -> None:
    """An honest sender and receiver, and a wire that takes any number of bytes."""
    bench = Bench(window=65536)
    sid, far = bench.circuit(limit=100_000)
    told, sent, arrived, taken = 65536, 0, 0, 0
    for what, size, room in steps:
        if what == 0 and (count := min(size, told - sent)):
            bench.say("link", data_run(sid, sent, count, frame=5000))
            sent += count
        elif what == 1:
            data = b"".join(bench.outbox("a").gather())
            bench.outbox("a").sent(min(room, len(data)))
            arrived = max(arrived, min(sent, arrived + room * 5000 // 5016 - 5016))  # at least this much
        elif what == 2:
            taken = min(arrived, taken + size)
            bench.say("a", credit(far, arrived, max(100_000, taken + 100_000)))
        for frame in bench.hear("link"):
            _, limit = frames.CREDIT.unpack(frame.payload)
            assert told <= limit <= taken + 100_000
            told = limit
        assert bench.held("a") <= 65536 * 5016 // 5000 + 5016


def test_the_word_of_a_lying_receiver_does_not_make_the_switch_hold_more(bench: Bench) -> None:
    """An agent that acknowledges what it does not read could otherwise have any number of bytes kept for it."""
    sid, far = bench.circuit()
    at = 0
    for _ in range(20):
        bench.say("link", data_run(sid, at, SWITCH_WINDOW))
        at += SWITCH_WINDOW
        bench.say("a", credit(far, at))
        assert bench.held("a") <= 1.01 * SWITCH_WINDOW
        assert bench.pool.in_use <= 40
    assert frames.CREDIT.unpack(bench.hear("link")[-1].payload) == (at, at + SWITCH_WINDOW)


def test_single_bytes_for_a_stalled_wire_do_not_cost_an_object_each(bench: Bench) -> None:
    _, far = bench.circuit()
    for at in range(0, 200_000, 4000):
        bench.say("a", data_run(far, at, 4000, frame=1))
    assert sum(len(lane.queue) for lane in bench.outbox("link").ready) < 2000
    out = [frame for frame in bench.hear("link") if frame.kind == F.DATA]
    assert [frames.OFFSET.unpack_from(frame.payload)[0] for frame in out] == list(range(200_000))


def test_a_stalled_tunnel_does_not_stop_another_one(bench: Bench) -> None:
    stalled, _ = bench.circuit("a")
    moving, far = bench.circuit("b")
    bench.say("link", data_run(stalled, 0, SWITCH_WINDOW))
    at = 0
    for _ in range(100):
        bench.say("link", data_run(moving, at, SWITCH_WINDOW // 2))
        at += SWITCH_WINDOW // 2
        bench.hear("b")
        bench.say("b", credit(far, at))
        assert [frame.sid for frame in bench.hear("link")] == [moving]
    assert bench.held("a") < 1.01 * SWITCH_WINDOW


@pytest.mark.parametrize("takes", [0, 1, 20, 30_000, 1 << 30])
def test_runs_go_straight_through_as_far_as_the_wire_takes_them(bench: Bench, takes: int) -> None:
    sid, _ = bench.circuit()
    other, _ = bench.circuit()
    got = bytearray()
    kicked = []

    def direct(view: memoryview) -> int:
        count = min(takes, len(view))
        got.extend(view[:count])
        return count

    outbox = bench.outbox("a")
    outbox.direct = direct
    outbox.kick = lambda: kicked.append(True)
    run = data_run(sid, 0, 40_000) + data_run(other, 0, 5000) + data_run(sid, 40_000, 100)
    bench.say("link", run)
    assert bool(kicked) == (takes < len(run))
    while parts := outbox.gather():
        data = b"".join(parts)
        got += data
        outbox.sent(len(data))
    at = {2: 0, 4: 0}
    while got:
        word, far, offset = frames.DATA_HEADER.unpack_from(got)
        assert offset == at[far]
        at[far] += (word & 0xFFFFFF) - 8
        del got[: 8 + (word & 0xFFFFFF)]
    assert at == {2: 40_100, 4: 5000}
    for feed in bench.feeds.values():
        assert isinstance(feed, Feed)
        feed.close()
    assert not bench.pool.in_use
