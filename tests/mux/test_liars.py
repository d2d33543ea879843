"""Peers that keep the framing and lie about everything else: they cost themselves a stream or a wire, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import frames
from connect_trio.mux.acceptor import MAX_ASKED, Acceptor
from connect_trio.mux.codes import DetachCode, GoawayCode, Peer, RejectCode, ResetCode
from connect_trio.mux.errors import WireError
from connect_trio.mux.frames import Answer, Ask, FrameType
from connect_trio.mux.opener import Opener
from connect_trio.mux.streams import CoreStream
from connect_trio.mux.wire import Wire
from tests.support.core import CountingPool, Feed, drain_frames, greeted, sid_of
from tests.support.examples import examples
from tests.support.switching import Bench

F = FrameType
IDS = st.integers(1, 12)
NUMBERS = st.one_of(st.integers(0, 20), st.sampled_from([65535, 65536, 65537, 1 << 20, 2**63 - 1, 2**63, 2**64 - 1]))
OFFSETS = NUMBERS.filter(lambda number: number < 2**63)

FRAMES = st.one_of(
    st.builds(frames.encode_data, IDS, NUMBERS, st.binary(min_size=1, max_size=30)),
    st.builds(frames.encode_fin, IDS, NUMBERS),
    st.builds(frames.encode_credit, IDS, NUMBERS, NUMBERS),
    st.builds(frames.encode_detach, IDS, st.integers(0, 9)),
    st.builds(frames.encode_say, st.sampled_from([F.RESET, F.REJECT]), IDS, st.integers(0, 9)),
    st.builds(lambda sid: frames.encode(F.DONE, sid), IDS),
    st.builds(
        lambda kind, sid, attempt, received, limit: frames.encode_answer(
            kind, sid, Answer(attempt=attempt, received=received, limit=limit)
        ),
        st.sampled_from([F.ACCEPT, F.RESUMED]),
        IDS,
        st.integers(0, 3),
        NUMBERS,
        NUMBERS,
    ),
    st.builds(
        lambda kind, sid, token, attempt, received, limit, session: frames.encode_ask(
            kind,
            sid,
            Ask(token=bytes([token]) * 16, attempt=attempt, received=received, limit=limit, session=session),
        ),
        st.sampled_from([F.OPEN, F.OPEN, F.RESUME]),
        IDS,
        st.integers(0, 3),
        st.integers(1, 3),
        OFFSETS,
        OFFSETS,
        st.sampled_from(["a", "b", "nobody"]),
    ),
)
LIES = st.lists(FRAMES, max_size=25)


def _told(feed: Feed, lies: list[bytes]) -> bool:
    """Whether the wire survived them."""
    try:
        for lie in lies:
            feed(lie, 0.0)
    except WireError:
        return False
    return True


@examples(80)
@given(LIES, st.integers(0, 6), st.booleans())
def test_an_opener_survives_any_answer(lies: list[bytes], streams: int, behind_switch: bool) -> None:
    pool = CountingPool()
    opener = Opener()
    peer = Peer.SWITCH if behind_switch else Peer.ACCEPTOR
    wire, feed = greeted(opener, Peer.OPENER, peer, dialled=True, pool=pool)
    cores = [opener.open(wire, token=bytes([at]) * 16, now=0.0) for at in range(streams)]
    for core in cores:
        core.write(b"x" * 5)
    _check_endpoint(opener, wire, feed, lies, cores, pool)


@examples(80)
@given(LIES, st.booleans())
def test_an_acceptor_survives_any_question(lies: list[bytes], answers: bool) -> None:
    pool = CountingPool()
    cores: list[CoreStream] = []

    def on_open(core: CoreStream) -> None:
        cores.append(core)
        if answers:
            core.accept()
            if core.room:
                core.write(b"y")

    acceptor = Acceptor(on_open, max_asked=3)
    wire, feed = greeted(acceptor, Peer.ACCEPTOR, Peer.SWITCH, dialled=False, pool=pool)
    _check_endpoint(acceptor, wire, feed, lies, cores, pool)
    assert not acceptor.asked
    assert not acceptor.tombstones


def _check_endpoint(
    endpoint: Opener | Acceptor, wire: Wire, feed: Feed, lies: list[bytes], cores: list[CoreStream], pool: CountingPool
) -> None:
    alive = _told(feed, lies)
    for core in cores:
        assert sum(len(data) for data, _ in core.receive.queue) <= core.receive.window.window
        assert core.send.window.end <= core.send.window.limit
    drain_frames(wire)
    for at in range(0, 100, 10):
        endpoint.tick(float(at))
    if alive:
        for core in cores:
            core.abandon(100.0)
        for at in range(100, 300, 10):
            endpoint.tick(float(at))
    wire.lost(300.0)
    for at in (300, 5000, 5000, 10_000):  # what was detached is given up, and then forgotten
        endpoint.tick(float(at))
    assert all(core.end is not None and core.home is core.trial is None for core in cores)
    for core in cores:
        core.receive.drop()
    feed.close()
    assert not wire.ports
    assert not endpoint.streams
    assert not endpoint.timers
    assert not endpoint.detached
    assert not endpoint._unacknowledged
    assert not endpoint.budget.used
    assert not pool.in_use


@examples(80)
@given(st.lists(st.tuples(st.sampled_from(["link", "a", "b"]), FRAMES), max_size=30), st.integers(0, 3))
def test_a_switch_survives_liars_on_all_sides(lies: list[tuple[str, bytes]], circuits: int) -> None:
    bench = Bench()
    for at in range(circuits):
        bench.circuit("ab"[at % 2])
    for name, lie in lies:
        if bench.wires[name].gone:
            continue
        try:
            bench.say(name, lie)
        except WireError:
            bench.wires[name].lost(0.0)
        assert bench.circuits["link"] == bench.circuits["a"] + bench.circuits["b"]
    for wire in bench.wires.values():
        drain_frames(wire)
        wire.lost(0.0)
    assert not sum(bench.circuits.values())
    assert not bench.switch._ending
    for feed in bench.feeds.values():
        feed.close()
    assert not bench.pool.in_use


def _opened(peer: Peer) -> tuple[Opener, Wire, Feed, list[CoreStream]]:
    opener = Opener()
    wire, feed = greeted(opener, Peer.OPENER, peer, dialled=True)
    cores = [opener.open(wire, token=bytes([at]) * 16, now=0.0) for at in range(30)]
    for core in cores:
        feed(frames.encode_answer(F.ACCEPT, sid_of(core), Answer(attempt=1, received=0, limit=1 << 20)), 0.0)
    drain_frames(wire)
    return opener, wire, feed, cores


def test_a_lie_costs_its_stream_and_not_the_wire() -> None:
    opener, wire, feed, cores = _opened(Peer.ACCEPTOR)
    feed(frames.encode_data(sid_of(cores[0]), 1, b"gap"), 0.0)
    end = cores[0].end
    assert end is not None
    assert (end.cause, end.code, end.by_peer) == (F.RESET, ResetCode.PROTOCOL, False)
    assert end.text == "bytes 1 to 4, but 0 are here and the limit is 1048576"
    assert [(frame.kind, frame.sid) for frame in drain_frames(wire)] == [(F.RESET, sid_of(cores[0]))]
    assert all(core.end is None for core in cores[1:])
    assert opener.violations == 1


def test_a_peer_that_lies_again_and_again_loses_its_wire() -> None:
    _, _, feed, cores = _opened(Peer.ACCEPTOR)
    for core in cores[:10]:
        feed(frames.encode_credit(sid_of(core), 99, 1 << 20), 0.0)
    with pytest.raises(WireError, match="more than 10 streams broke the rules") as caught:
        feed(frames.encode_credit(sid_of(cores[10]), 99, 1 << 20), 0.0)
    assert caught.value.code is GoawayCode.PROTOCOL


def test_a_liar_behind_a_switch_does_not_end_the_wire_of_all() -> None:
    """A link carries the streams of all sessions of a server, and the switch does not read what agents claim."""
    opener, _, feed, cores = _opened(Peer.SWITCH)
    for core in cores[1:]:
        feed(frames.encode_credit(sid_of(core), 99, 1 << 20), 0.0)
    assert opener.violations == 29
    assert cores[0].end is None


def _acceptor(*, max_asked: int = MAX_ASKED) -> tuple[Acceptor, list[CoreStream], Wire, Feed]:
    cores: list[CoreStream] = []
    acceptor = Acceptor(cores.append, max_asked=max_asked)
    wire, feed = greeted(acceptor, Peer.ACCEPTOR, Peer.OPENER, dialled=False)
    return acceptor, cores, wire, feed


def _ask(sid: int, token: int, kind: FrameType = F.OPEN) -> bytes:
    return frames.encode_ask(kind, sid, Ask(token=bytes([token]) * 16, attempt=1, limit=1 << 20))


def test_streams_that_wait_for_an_answer_are_bounded() -> None:
    acceptor, cores, wire, feed = _acceptor(max_asked=2)
    for at in range(3):
        feed(_ask(2 * at + 1, at), 0.0)
    (refusal,) = drain_frames(wire)
    assert (refusal.kind, refusal.sid) == (F.REJECT, 5)
    assert frames.decode_say_untrusted(memoryview(refusal.payload))[0] == RejectCode.OVERLOADED
    cores[0].reset()
    assert acceptor.asked == 1
    feed(_ask(7, 9), 0.0)
    assert len(cores) == 3


def test_a_question_that_lies_reaches_no_application() -> None:
    _, cores, wire, feed = _acceptor()
    feed(frames.encode_ask(F.OPEN, 1, Ask(token=bytes(16), attempt=1, received=1, limit=1 << 20)), 0.0)
    assert not cores
    assert [(frame.kind, frame.sid) for frame in drain_frames(wire)] == [(F.RESET, 1)]


def test_a_token_is_served_once_and_one_that_is_unknown_is_not_resumed() -> None:
    _, cores, wire, feed = _acceptor()
    feed(_ask(1, 1) + _ask(3, 1) + _ask(5, 2, F.RESUME), 0.0)
    out = drain_frames(wire)
    assert [(frame.kind, frame.sid) for frame in out] == [(F.DETACH, 3), (F.RESET, 5)]
    codes = [frames.decode_say_untrusted(memoryview(frame.payload))[0] for frame in out]
    assert codes == [DetachCode.STALE, ResetCode.UNKNOWN]
    assert len(cores) == 1


def test_more_than_the_initial_credit_before_the_answer_is_a_lie() -> None:
    _, cores, wire, feed = _acceptor()
    feed(
        _ask(1, 1) + frames.encode_data(1, 0, bytes(frames.INITIAL)) + frames.encode_data(1, frames.INITIAL, b"x"), 0.0
    )
    assert cores[0].end is not None
    assert cores[0].end.code == ResetCode.PROTOCOL
    assert [frame.kind for frame in drain_frames(wire)] == [F.RESET]


def test_single_bytes_that_nobody_reads_do_not_cost_an_object_each() -> None:
    _, cores, _, feed = _acceptor()
    feed(_ask(1, 1), 0.0)
    cores[0].accept()
    for at in range(20_000):
        feed(frames.encode_data(1, at, b"x"), 0.0)
    assert len(cores[0].receive.queue) < 12
    assert sum(len(cores[0].receive.take_some(1 << 20)) for _ in range(12)) == 20_000
