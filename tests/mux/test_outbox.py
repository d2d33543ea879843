"""The output of a wire: whatever the transport takes, and when, whole frames leave in the promised order."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connect_trio.mux import frames
from connect_trio.mux.buffers import Buffer
from connect_trio.mux.frames import FrameType
from connect_trio.mux.outbox import GATHER, MAX_CONTROL, MAX_PARTS, QUANTUM, Lane, Outbox, boundary
from tests.support.core import CountingPool, drain, parse
from tests.support.examples import examples

LANES = 4


@attrs.define(eq=False)
class NotedLane(Lane):
    """A lane that notes what it is told."""

    marks: list[int] = attrs.field(factory=list)
    drains: int = 0

    def sent(self, mark: int) -> None:
        self.marks.append(mark)

    def drained(self) -> None:
        assert not self.queue
        self.drains += 1


def lane(outbox: Outbox, sid: int) -> NotedLane:
    made = NotedLane.__new__(NotedLane)
    Lane.__init__(made, outbox, sid)
    made.marks, made.drains = [], 0
    return made


def run_of(sid: int, offset: int, sizes: list[int]) -> bytes:
    out = b""
    for size in sizes:
        out += frames.encode_data(sid, offset, bytes([sid & 255]) * size)
        offset += size
    return out


@given(st.lists(st.integers(1, 50), min_size=1, max_size=10), st.data())
def test_boundary_is_the_end_of_the_frame_that_holds_a_byte(sizes: list[int], data: st.DataObject) -> None:
    run = run_of(1, 0, sizes)
    at = data.draw(st.integers(0, len(run) - 1))
    end = boundary(run, at)
    whole = parse(run[:end])
    assert at < end
    assert at >= end - 16 - len(whole[-1].payload) + 8


def test_control_goes_first_then_streams_in_turn() -> None:
    outbox = Outbox()
    lanes = [lane(outbox, sid) for sid in (1, 3)]
    for each in lanes:
        for at in range(2):
            each.push(run_of(each.sid, at, [1]))
    outbox.credit(1, 1, 10)
    outbox.say(frames.encode(FrameType.DONE, 5))
    outbox.credit(1, 2, 20)
    outbox.credit(3, 0, 7)
    out = parse(drain(outbox))
    assert [(FrameType(each.kind).name, each.sid) for each in out] == [
        ("DONE", 5),
        ("CREDIT", 1),
        ("CREDIT", 3),
        ("DATA", 1),
        ("DATA", 3),
        ("DATA", 1),
        ("DATA", 3),
    ]
    assert frames.CREDIT.unpack(out[1].payload) == (2, 20)
    assert outbox.idle


def test_a_turn_is_bounded_while_streams_compete_and_only_then() -> None:
    outbox = Outbox()
    bulk, other = lane(outbox, 1), lane(outbox, 3)
    run = run_of(1, 0, [16384] * 16)
    bulk.push(run)
    other.push(run_of(3, 0, [16384] * 16))
    parts = outbox.gather()
    assert all(QUANTUM <= len(part) < QUANTUM + 16400 for part in parts[:4])
    assert [parse(bytes(part))[0].sid for part in parts[:4]] == [1, 3, 1, 3]
    assert all(parse(bytes(part)) for part in parts), "a turn ends with a whole frame"
    outbox.sent(sum(map(len, parts)))
    drain(outbox)
    bulk.push(run)
    assert list(map(len, outbox.gather())) == [len(run)]


def test_one_call_gathers_a_bounded_amount() -> None:
    outbox = Outbox()
    for sid in range(1, 1200, 2):
        lane(outbox, sid).push(run_of(sid, 0, [10]))
    assert len(outbox.gather()) == MAX_PARTS
    outbox.sent(0)
    for sid in range(1, 100, 2):
        lane(outbox, sid).push(run_of(sid, 0, [60000]))
    while parts := outbox.gather():
        assert sum(map(len, parts)) < GATHER + 65552
        outbox.sent(sum(map(len, parts)))


def test_a_terminal_frame_overtakes_what_waits_but_not_the_frame_that_was_begun() -> None:
    pool = CountingPool()
    outbox = Outbox()
    stream = lane(outbox, 1)
    buffer = pool.take()
    run = run_of(1, 0, [10, 10])
    buffer.view[: len(run)] = run
    stream.push(buffer.view[: len(run)], buffer)
    stream.push(run_of(1, 20, [5]))
    outbox.credit(1, 5, 50)
    first = b"".join(outbox.gather())[:24]  # CREDIT was there first
    outbox.sent(24)
    first += b"".join(outbox.gather())[:20]
    outbox.sent(20)
    outbox.credit(1, 6, 60)
    outbox.terminate(stream, frames.encode_say(FrameType.RESET, 1, 1))
    out = parse(first + drain(outbox))
    assert [FrameType(each.kind).name for each in out] == ["CREDIT", "DATA", "RESET"]
    assert not pool.in_use


@pytest.mark.parametrize("taken", [0, 1, 25, 30])
def test_a_transport_that_fails_between_gather_and_sent_leaves_no_buffer_behind(taken: int) -> None:
    pool = CountingPool()
    outbox = Outbox()
    stream = lane(outbox, 1)
    for at in range(3):
        buffer = pool.take()
        run = run_of(1, at * 20, [10, 10])
        buffer.view[: len(run)] = run
        stream.push(buffer.view[: len(run)], buffer)
    outbox.gather()
    outbox.sent(taken)
    outbox.gather()  # the transport raises here ...
    outbox.gather()  # ... and somebody flushes once more before the wire is closed
    outbox.close()
    assert not pool.in_use
    assert outbox.idle


def test_too_many_control_frames_are_noticed() -> None:
    outbox = Outbox()
    frame = frames.encode_say(FrameType.RESET, 1, 1, "x" * 500)
    while not outbox.overflow:
        outbox.say(frame)
    assert outbox.control_size <= MAX_CONTROL + len(frame)


def test_a_frame_begun_by_the_short_cut_is_finished_first() -> None:
    pool = CountingPool()
    outbox = Outbox()
    stream = lane(outbox, 1)
    buffer = pool.take()
    run = run_of(1, 0, [10])
    buffer.view[: len(run)] = run
    outbox.begin_head(buffer.view[7 : len(run)], buffer, 10, stream)
    outbox.say(frames.encode(FrameType.DONE, 5))
    for count, rest in ((3, run[10:]), (0, run[10:]), (4, run[14:])):  # a head that meets a full transport stays it
        outbox.gather()
        outbox.sent(count)
        assert outbox.head is not None
        assert outbox.head[0] == rest
    assert drain(outbox) == run[14:] + frames.encode(FrameType.DONE, 5)
    assert stream.marks == [10]
    assert not pool.in_use


class OutboxMachine(RuleBasedStateMachine):
    """Any pushes, control frames and partial sends; the bytes that left are looked at as they leave."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = CountingPool()
        self.outbox = Outbox()
        self.lanes = [lane(self.outbox, 2 * at + 1) for at in range(LANES)]
        self.left = bytearray()
        self.offsets = [0] * LANES
        self.marks: list[list[int]] = [[] for _ in range(LANES)]
        self.said: list[int] = []
        self.dropped = [False] * LANES

    @rule(
        which=st.integers(0, LANES - 1), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), own=st.booleans()
    )
    def push(self, which: int, sizes: list[int], own: bool) -> None:
        if self.dropped[which]:
            return
        target = self.lanes[which]
        run = run_of(target.sid, self.offsets[which], sizes)
        self.offsets[which] += sum(sizes)
        self.marks[which].append(self.offsets[which])
        buffer: Buffer | None = None
        data: bytes | memoryview = run
        if own:
            buffer = self.pool.take()
            buffer.view[: len(run)] = run
            data = buffer.view[: len(run)]
        target.push(data, buffer, self.offsets[which])

    @rule(which=st.integers(0, LANES - 1))
    def push_a_lot(self, which: int) -> None:
        """More than a turn: it is cut while others wait."""
        if not self.dropped[which]:
            target = self.lanes[which]
            run = run_of(target.sid, self.offsets[which], [16384] * 6)
            buffer = self.pool.take()
            buffer.view[: len(run)] = run
            target.push(buffer.view[: len(run)], buffer, 0)
            self.offsets[which] += 6 * 16384

    @rule(size=st.integers(0, 20))
    def say(self, size: int) -> None:
        self.said.append(len(self.said))
        self.outbox.say(frames.encode_say(FrameType.RESET, 101, self.said[-1], "x" * size))

    @rule(which=st.integers(0, LANES - 1), limit=st.integers(0, 1000))
    def credit(self, which: int, limit: int) -> None:
        if not self.dropped[which]:
            self.outbox.credit(self.lanes[which].sid, 0, limit)

    @rule(which=st.integers(0, LANES - 1))
    def terminate(self, which: int) -> None:
        if not self.dropped[which]:
            self.dropped[which] = True
            self.outbox.terminate(self.lanes[which], frames.encode(FrameType.DONE, self.lanes[which].sid))

    @rule(share=st.floats(0, 1), exact=st.booleans())
    def send(self, share: float, exact: bool) -> None:
        """The transport takes any number of bytes from none to all."""
        data = b"".join(self.outbox.gather())
        count = len(data) if exact else int(len(data) * share)
        assert self.outbox.sent(count) == (count == len(data))
        self.left += data[:count]

    @rule(count=st.integers(0, 40))
    def send_a_little(self, count: int) -> None:
        data = b"".join(self.outbox.gather())
        self.outbox.sent(min(count, len(data)))
        self.left += data[:count]

    @invariant()
    def one_queue_entry_for_each_lane(self) -> None:
        assert len(set(map(id, self.outbox.ready))) == len(self.outbox.ready)
        assert all(each.queued for each in self.outbox.ready)
        assert all(each.queued for each in self.lanes if each.queue)

    def teardown(self) -> None:
        whole = bytes(self.left) + drain(self.outbox)
        offsets = [0] * LANES
        resets = []
        ended: set[int] = set()
        for frame in parse(whole):
            assert frame.sid not in ended, "a frame after the last one of its id"
            if frame.kind == FrameType.RESET:
                resets.append(frames.decode_say_untrusted(memoryview(frame.payload))[0])
            elif frame.kind == FrameType.DONE:
                ended.add(frame.sid)
            elif frame.kind == FrameType.DATA:
                which = frame.sid // 2
                assert frames.OFFSET.unpack_from(frame.payload)[0] == offsets[which]
                assert set(frame.payload[8:]) == {frame.sid}
                offsets[which] += len(frame.payload) - 8
        assert resets == self.said
        for which, target in enumerate(self.lanes):
            assert (target.sid in ended) == self.dropped[which]
            if not self.dropped[which]:
                assert offsets[which] == self.offsets[which]
                assert target.marks == self.marks[which]
        assert not self.pool.in_use
        self.outbox.close()


OutboxMachine.TestCase.settings = examples(60, steps=40)
TestAnyOutput = OutboxMachine.TestCase


class ClosedOutboxMachine(OutboxMachine):
    """The wire ends in the middle: every buffer comes back."""

    def teardown(self) -> None:
        self.outbox.close()
        assert not self.pool.in_use
        assert self.outbox.idle
        assert not any(each.queue or each.queued for each in self.lanes)


ClosedOutboxMachine.TestCase.settings = examples(30, steps=30)
TestAnyOutputThatIsCut = ClosedOutboxMachine.TestCase
