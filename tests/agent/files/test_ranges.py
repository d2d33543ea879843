"""Ranges against the plain meaning of RFC 9110 section 14, in sets of positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.agent.files.ranges import MAX_RANGES, UnsatisfiableRange, select_range

number = st.integers(0, 30)
specs = st.one_of(
    st.tuples(number, number).map(lambda pair: (min(pair), max(pair))),
    st.tuples(number, st.none()),
    st.tuples(st.none(), number),
)


def positions(first: int | None, last: int | None, size: int) -> set[int]:
    if first is None:
        assert last is not None
        return set(range(size)[size - min(last, size) :])
    return {position for position in range(size) if first <= position <= (size if last is None else last)}


@given(asked=st.lists(specs, min_size=1, max_size=4), size=st.integers(1, 25), space=st.sampled_from(["", " ", "\t"]))
def test_the_part_is_the_union_of_the_ranges_or_the_whole(
    asked: list[tuple[int | None, int | None]], size: int, space: str
) -> None:
    header = "bytes=" + f",{space}".join(
        f"{'' if first is None else first}-{'' if last is None else last}" for first, last in asked
    )
    union = set().union(*(positions(first, last, size) for first, last in asked))
    if not union:
        with pytest.raises(UnsatisfiableRange):
            select_range(header, size)
        return
    part = select_range(header, size)
    contiguous = union == set(range(min(union), max(union) + 1))
    assert part == ((min(union), max(union) + 1) if contiguous else None)


@given(header=st.text(max_size=40), size=st.integers(0, 100))
def test_any_header_gives_a_part_inside_the_file(header: str, size: int) -> None:
    for text in (header, "bytes=" + header):
        try:
            part = select_range(text, size)
        except UnsatisfiableRange:
            continue
        assert part is None or 0 <= part[0] < part[1] <= size


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=5-3",
        "bytes=a-b",
        "items=0-1",
        "bytes=0-1,x",
        "bytes=1-2-3",
        "bytes=" + "0-1," * (MAX_RANGES + 1),
        "bytes=" + "9" * 5000 + "-",
        "bytes=+1-2",
        "bytes=١-٢",
    ],
)
def test_what_is_malformed_is_ignored(header: str) -> None:
    assert select_range(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=-0", "bytes=10-20,30-", "bytes=999999999999999999-"])
def test_what_is_beyond_the_end_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableRange):
        select_range(header, 10)


def test_the_unit_ignores_case_and_empty_elements_are_tolerated() -> None:
    assert select_range("Bytes=,2-4, ,", 10) == (2, 5)


def test_an_empty_file_has_no_parts() -> None:
    assert select_range("bytes=0-", 0) is None
