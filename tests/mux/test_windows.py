"""Credit arithmetic, against a model that keeps every single position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.mux.budget import Budget
from connect_trio.mux.errors import StreamViolation
from connect_trio.mux.frames import MAX_OFFSET
from connect_trio.mux.windows import ReceiveWindow, SendWindow
from tests.support.examples import examples

WINDOW = 16


@examples(200)
@given(st.lists(st.tuples(st.integers(-2, 24), st.integers(0, 12), st.booleans()), max_size=40))
def test_a_receive_window_agrees_with_a_set_of_positions(steps: list[tuple[int, int, bool]]) -> None:
    """Each step sends `length` bytes at an offset near the end, or the end itself; then the application takes some."""
    window = ReceiveWindow(granted=WINDOW, window=WINDOW, budget=Budget())
    have: set[int] = set()
    fin: int | None = None
    taken = 0
    for distance, length, is_fin in steps:
        at = max(0, len(have) + distance - 12)
        if is_fin:
            good = at == len(have) and fin in (None, at)
            if good:
                assert window.fin(at) == (fin is None)
                fin = at
            else:
                with pytest.raises(StreamViolation):
                    window.fin(at)
        elif length:
            new = set(range(at, at + length)) - have
            late = fin is not None and at + length > fin
            if at > len(have) + (fin is not None) or at + length > window.granted or late:
                with pytest.raises(StreamViolation):
                    window.data(at, length)
            else:
                assert window.data(at, length) == length - len(new)
                have |= new
        assert window.received == len(have) + (fin is not None)
        assert window.buffered == len(have) - taken <= WINDOW
        taken += (part := min(length, window.buffered))
        window.take(part)
        if window.due:
            before = window.granted
            position, limit = window.tell()
            assert position == len(have) + (fin is not None)
            assert limit == max(before, taken + WINDOW)
            assert (window.due, window.unacknowledged) == (False, False)


def test_credit_is_due_after_a_quarter_of_the_window_or_at_the_end() -> None:
    window = ReceiveWindow(granted=WINDOW, window=WINDOW, budget=Budget())
    seen = []
    window.data(0, 8)
    seen.append((window.due, window.unacknowledged))  # nothing was taken: the timer acknowledges
    for count in (3, 1):
        window.take(count)
        seen.append((window.due, window.unacknowledged))
    assert seen == [(False, True), (False, True), (True, True)]
    assert window.tell() == (8, 20)
    window.fin(8)
    assert (window.due, window.tell()) == (True, (9, 20))


@given(st.integers(1, WINDOW), st.integers(0, WINDOW))
def test_only_what_is_new_of_an_overlap_counts(first: int, again: int) -> None:
    window = ReceiveWindow(granted=WINDOW, window=WINDOW, budget=Budget())
    assert window.data(0, first) == 0
    start = min(again, first)
    length = WINDOW - start
    known = first - start
    if length:
        assert window.data(start, length) == min(known, length)
    assert window.received == WINDOW


def test_the_end_may_be_repeated_but_not_moved() -> None:
    window = ReceiveWindow(granted=WINDOW, window=WINDOW, budget=Budget())
    window.data(0, 5)
    assert window.fin(5)
    assert not window.fin(5)
    for wrong in (4, 6):
        with pytest.raises(StreamViolation, match="end at"):
            window.fin(wrong)
    assert window.data(2, 3) == 3
    with pytest.raises(StreamViolation, match="after the end"):
        window.data(5, 1)


def test_the_end_needs_no_credit() -> None:
    window = ReceiveWindow(granted=4, window=4, budget=Budget())
    window.data(0, 4)
    assert window.fin(4)
    assert window.buffered == 4
    send = SendWindow(limit=4, allowance=100, budget=Budget())
    send.wrote(4)
    assert send.room == 0
    assert send.finish() == 4
    send.credit(5, 4)
    assert send.fin_acknowledged
    assert send.base == 4


@examples(200)
@given(st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12), st.integers(0, 9)), max_size=40), st.booleans())
def test_a_send_window_never_passes_its_bounds(steps: list[tuple[int, int, int]], ends: bool) -> None:
    window = SendWindow(limit=8, allowance=10, budget=Budget())
    for more_received, more_limit, size in steps:
        received, limit = max(0, window.base + more_received), window.limit + more_limit
        before = (window.base, window.end, window.limit)
        if more_limit < 0 or received > window.end:
            with pytest.raises(StreamViolation):
                window.credit(received, limit)
            assert (window.base, window.end, window.limit) == before
        else:
            window.credit(received, limit)
            assert window.limit == limit
            assert window.base == max(before[0], received)
        assert window.room == max(0, min(window.limit, window.base + 10) - window.end)
        count = min(size, window.room)
        assert window.wrote(count) == window.end - count
        assert window.base <= window.end <= window.limit
        assert window.end - window.base <= window.allowance
    if ends:
        end = window.finish()
        with pytest.raises(StreamViolation, match="acknowledges"):
            window.credit(end + 2, window.limit)
        acknowledged = []
        for received in (end, end + 1):
            window.credit(received, window.limit)
            acknowledged.append(window.fin_acknowledged)
        assert acknowledged == [False, True]
        window.credit(0, window.limit)  # told before, arrives late: nothing is taken back
        assert window.base == end


def test_lies_name_the_numbers() -> None:
    window = SendWindow(limit=8, allowance=10, budget=Budget())
    window.wrote(3)
    with pytest.raises(StreamViolation, match="limit went back from 8 to 7"):
        window.credit(0, 7)
    with pytest.raises(StreamViolation, match="acknowledges 4, but only 3 were sent"):
        window.credit(4, 8)
    with pytest.raises(StreamViolation, match="limit out of range"):
        window.credit(3, MAX_OFFSET + 1)
    receive = ReceiveWindow(granted=8, window=8, budget=Budget())
    with pytest.raises(StreamViolation, match="bytes 1 to 2, but 0 are here and the limit is 8"):
        receive.data(1, 1)
    with pytest.raises(StreamViolation, match="bytes 0 to 9, but 0 are here and the limit is 8"):
        receive.data(0, 9)
