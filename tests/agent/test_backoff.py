"""Delays grow, stay within their bounds, and begin anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.agent.backoff import CAP, Backoff


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff()
    delays = [backoff.delay(0.0) for _ in range(10)]
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0])


def test_chance_takes_up_to_half_away() -> None:
    backoff = Backoff()
    assert [backoff.delay(1.0) for _ in range(9)][-1] == pytest.approx(CAP / 2)


@pytest.mark.parametrize(
    ("tries", "lasted", "anew"), [(1, 1.7, True), (1, 1.5, False), (9, 9.9, False), (9, 10.1, True)]
)
def test_after_a_good_connection_it_begins_anew(tries: int, lasted: float, anew: bool) -> None:
    backoff = Backoff()
    for _ in range(tries):
        backoff.delay(0.5)
    backoff.held(lasted)
    assert (backoff.delay(0.0) == pytest.approx(0.2)) is anew


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_any_chance_keeps_the_bounds(chances: list[float]) -> None:
    backoff = Backoff()
    delays = [backoff.delay(chance) for chance in chances]
    assert 0.1 <= delays[0] <= 0.2
    assert all(0.1 <= delay <= CAP for delay in delays)
    assert all(delay >= CAP / 2 for delay in delays[8:])
