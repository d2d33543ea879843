"""The share of a stream in the budget, and what it bounds: grants, what is kept, and how many streams there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux import budget as tiny_numbers
from connect_trio.mux.budget import BUDGET, FLOOR, FREE, FULL, OVERCOMMIT, STREAMS, Budget
from connect_trio.mux.buffers import Pool
from connect_trio.mux.codes import ResetCode
from connect_trio.mux.errors import LocalError
from connect_trio.mux.frames import INITIAL, FrameType
from connect_trio.mux.halves import ReceiveHalf
from connect_trio.mux.windows import ReceiveWindow, SendWindow
from tests.support.examples import examples
from tests.support.scene import AcceptorScene, OpenerScene, answer, ask, data, detach, reset
from tests.support.tiny import tiny

F = FrameType
LIMIT = 64 << 20


def token(number: int) -> bytes:
    return number.to_bytes(16, "big")


def filled(used: int, *, limit: int = LIMIT) -> Budget:
    budget = Budget(limit)
    budget.add(used)
    return budget


# the share


def test_half_of_the_budget_is_for_the_floors_of_as_many_streams_as_there_may_be() -> None:
    assert STREAMS > 60_000
    assert STREAMS * 2 * FLOOR <= BUDGET // 2
    assert INITIAL <= FULL


def test_the_share_is_halved_between_a_quarter_and_half_of_the_budget() -> None:
    seen = [filled(LIMIT * at // 64).share for at in range(65)]
    assert set(seen[:16]) == {FREE}
    assert seen[16] == FULL // 2
    assert set(seen[32:]) == {FLOOR}
    assert set(seen) == {FREE} | {FULL >> halvings for halvings in range(1, 10)}
    assert seen == sorted(seen, reverse=True)


def test_the_share_is_halved_when_all_windows_together_were_twice_the_budget() -> None:
    budget = Budget(LIMIT)
    seen = {}
    for count in range(1, OVERCOMMIT * LIMIT // FLOOR + 2):
        budget.begin()
        seen[count] = budget.share
    for halvings in range(9):
        most = OVERCOMMIT * LIMIT // (FULL >> halvings)
        assert seen[most] == (FULL >> halvings if halvings else FREE)
        assert seen[most + 1] == FULL >> halvings + 1
    for _ in range(len(seen)):
        budget.end()
    assert (budget.streams, budget.share) == (0, FREE)


def test_sixty_thousand_streams_have_a_whole_frame_each_while_memory_is_free() -> None:
    budget = Budget()
    for _ in range(60_000):
        budget.begin()
    assert budget.share == 16_384


def test_what_is_halved_is_doubled_again_only_well_below() -> None:
    budget = filled(LIMIT // 4)
    seen = [budget.share]
    for used in (LIMIT // 4 - 1, LIMIT * 3 // 16, LIMIT * 3 // 16 - 1):
        budget.free(budget.used - used)
        seen.append(budget.share)
    assert seen == [FULL // 2, FULL // 2, FULL // 2, FREE]


@examples(200)
@given(
    st.integers(0, 1 << 16),
    st.lists(st.tuples(st.sampled_from(["add", "free", "begin", "end"]), st.integers(0, 1 << 15)), max_size=60),
)
def test_a_share_follows_from_use_and_streams_but_for_how_it_came_there(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    """Between the share that a new budget would have with as much in use, and with a little less."""
    budget = Budget(limit)
    for what, count in steps:
        if what == "add":
            budget.add(count)
        elif what == "free":
            budget.free(min(count, budget.used))
        elif what == "begin":
            budget.begin()
        elif budget.streams:
            budget.end()
        fresh, more = (Budget(limit) for _ in range(2))
        fresh.add(budget.used)
        more.add(budget.used + limit // 16 + 2)
        for each, streams in ((fresh, budget.streams), (more, budget.streams * 8 // 7 + 2)):
            for _ in range(streams):
                each.begin()
        assert FLOOR <= more.share <= budget.share <= fresh.share


def test_the_share_is_computed_at_marks_and_not_for_each_byte() -> None:
    adaptations = []

    class Counting(Budget):
        def _adapt(self) -> None:
            adaptations.append(self.used)
            super()._adapt()

    budget = Counting(LIMIT)
    for _ in range(LIMIT // 2 // 256):
        budget.add(256)
    for _ in range(LIMIT // 2 // 256):
        budget.free(256)
    assert len(adaptations) == 1 + 9 + 9


# what it bounds


def test_a_receiver_grants_its_share_and_takes_nothing_back() -> None:
    budget = Budget(LIMIT)
    window = ReceiveWindow(granted=FULL, window=FULL, budget=budget)
    window.data(0, 60_000)
    budget.add(LIMIT)
    window.take(60_000)
    assert (window.due, window.tell()) == (False, (60_000, FULL))
    for at in range(60_000, FULL, 4096):
        window.data(at, min(4096, FULL - at))
    window.take(FULL - 60_000 - 1)
    assert (window.due, window.tell()) == (True, (FULL, FULL - 1 + FLOOR))
    budget.free(LIMIT)
    assert (window.due, window.tell()) == (True, (FULL, FULL - 1 + FULL))


def test_a_sender_keeps_its_share_whatever_the_peer_allows() -> None:
    budget = Budget(LIMIT)
    window = SendWindow(limit=FULL, allowance=FULL, budget=budget)
    window.wrote(1000)
    budget.add(LIMIT)
    assert window.room == FLOOR - 1000
    window.credit(600, FULL)
    assert window.room == FLOOR - 400
    budget.free(LIMIT)
    assert window.room == FULL - 1000


SIDES = 12
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "acknowledged", "arrive", "take", "tell"]),
        st.integers(0, SIDES - 1),
        st.integers(1, 200),
    ),
    max_size=150,
)


@examples(200)
@given(st.integers(1, 3000), STEPS)
def test_all_together_keep_no_more_than_the_budget_and_what_was_granted_before(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    """Whatever the peers do: half of the budget, one write that goes beyond it, the floors, and what was granted."""
    with tiny():
        full, floor = tiny_numbers.FULL, tiny_numbers.FLOOR
        budget = Budget(limit)
        sides = [
            (
                SendWindow(limit=1 << 30, allowance=full, budget=budget),
                ReceiveHalf(granted=0, window=full, budget=budget),
            )
            for _ in range(SIDES)
        ]
        for what, which, size in steps:
            sent, receive = sides[which]
            incoming = receive.window
            if what == "write":
                sent.wrote(min(size, sent.room))
            elif what == "acknowledged":
                sent.credit(min(sent.end, sent.base + size), sent.limit)
            elif what == "tell":
                before = incoming.granted
                assert incoming.tell()[1] == max(before, incoming.taken + min(full, budget.share))
            elif what == "take":
                receive.take_some(size)
            elif size := min(size, incoming.granted - incoming.received):
                incoming.data(incoming.received, size)
                receive.deliver([memoryview(bytes(size))], size, Pool(4096).take())
            kept = sum(each.end - each.base for each, _ in sides)
            granted = sum(each.window.granted - each.window.taken for _, each in sides)
            assert kept <= limit // 2 + full + SIDES * floor
            assert budget.used <= kept + granted
            assert all(each.room or each.end > each.base for each, _ in sides), "a sender has nothing to wait for"


def test_a_new_stream_promises_its_share() -> None:
    scene = OpenerScene(budget=filled(LIMIT))
    stream = scene.open()
    assert stream.receive.window.granted == FLOOR
    assert stream.room == FLOOR
    assert stream.home is not None
    scene.say(0, answer(F.ACCEPT, stream.home.sid, 1))
    assert stream.room == FLOOR


def test_an_acceptor_promises_no_less_than_any_opener_may_send_at_once() -> None:
    scene = AcceptorScene(budget=filled(LIMIT))
    stream = scene.opened()
    assert stream.receive.window.granted == INITIAL
    assert stream.room == FLOOR


def test_what_was_prepared_when_memory_was_free_promises_what_it_is_told_to_have() -> None:
    """The share grows between `prepare` and the question."""
    scene = OpenerScene(budget=filled(LIMIT))
    stream = scene.opener.prepare(token=token(1))
    scene.opener.budget.free(LIMIT)
    scene.attempt(stream, 0)
    assert stream.receive.window.granted == FULL
    assert stream.home is not None
    scene.say(0, answer(F.ACCEPT, stream.home.sid, 1), data(stream.home.sid, 0, 60_000))
    assert stream.end is None


def test_an_opener_that_promises_little_is_acknowledged_at_once() -> None:
    scene = AcceptorScene()
    scene.say(0, ask(F.OPEN, 1, 1, limit=FLOOR))
    scene.hear(0)
    scene.say(0, data(1, 0, FLOOR // 2 - 1))
    assert scene.hear(0) == []
    scene.say(0, data(1, FLOOR // 2 - 1, 1))
    assert scene.hear(0) == ["CREDIT/1 has 1024"]


# who waits for an acknowledgement


def acknowledged(*gaps: float) -> list[bool]:
    """A sender sends 1,000 bytes, and again after each gap since the last acknowledgement by timer; whether they are
    acknowledged at once."""
    window = ReceiveWindow(granted=FULL, window=FULL, budget=Budget())
    now, seen = 0.0, []
    for gap in (10.0, *gaps):
        now += gap
        window.data(window.received, 1000)
        window.more(now)
        seen.append(window.due)
        if not window.due:
            now += 0.5
            window.lull(now)
        window.tell()
    return seen


def test_who_goes_on_as_soon_as_the_timer_has_acknowledged_is_acknowledged_at_once_from_then_on() -> None:
    assert acknowledged(0.1, 0.1, 3.0, 0.1) == [False, True, True, True, True]


def test_who_comes_back_later_had_not_waited() -> None:
    assert acknowledged(0.3, 0.3, 3.0) == [False, False, False, False]


def test_who_sends_much_more_at_once_does_not_wait_any_more() -> None:
    window = ReceiveWindow(granted=FULL, window=FULL, budget=Budget())
    window.pace = 500
    window.data(0, 1999)
    assert window.due
    window.tell()
    window.data(1999, 2000)
    assert window.due
    window.tell()
    window.data(3999, 100_000)
    assert not window.due


# shrinking comes first


def test_windows_shrink_before_anything_is_given_up_or_refused() -> None:
    scene = AcceptorScene(budget=Budget(LIMIT))
    scene.opened(sid=1, token=token(0))
    scene.say(0, data(1, 0, 300))
    scene.say(0, detach(1))
    stream = scene.streams[0]
    budget = scene.acceptor.budget
    budget.add(LIMIT - budget.used)
    scene.opened(sid=3, token=token(1))
    assert (budget.share, stream.end, len(scene.streams)) == (FLOOR, None, 2)
    budget.add(1)
    scene.acceptor.squeeze()
    assert stream.end is not None
    assert stream.end.code == ResetCode.BUDGET
    assert scene.acceptor.counts.refused == 0


# too many


def test_an_acceptor_refuses_what_is_more_than_it_may_have() -> None:
    scene = AcceptorScene(budget=Budget(most=2))
    for at in range(2):
        scene.opened(sid=2 * at + 1, token=token(at))
    scene.say(0, ask(F.OPEN, 5, 1, token=token(2)))
    assert scene.hear(0) == ["REJECT/5 OVERLOADED"]
    assert scene.acceptor.counts.refused == 1
    scene.streams[0].reset()
    scene.say(0, ask(F.OPEN, 7, 1, token=token(3)))
    scene.hear(0)
    assert len(scene.streams) == 3


def test_an_opener_opens_no_more_than_it_may_have() -> None:
    scene = OpenerScene(budget=Budget(most=2))
    streams = [scene.opened(0, token(at)) for at in range(2)]
    with pytest.raises(LocalError, match="there are 2 streams already, as many as there may be"):
        scene.open(0, token(2))
    assert scene.opener.counts.refused == 1
    home = streams[0].home
    streams[0].reset()
    assert home is not None
    scene.say(0, reset(home.sid))
    assert scene.opener.budget.streams == 1
    scene.open(0, token(3))


def test_a_budget_for_nothing_leaves_the_floors() -> None:
    assert [Budget(limit).share for limit in (-1, 0)] == [FLOOR, FLOOR]
