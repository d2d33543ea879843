"""The headers by which tunnels keep apart: whatever a stranger writes there is ids, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.transport.avoiding import MAX_IDS, ids_value, is_id, parse_ids

ids = st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), min_size=1, max_size=MAX_IDS)


@given(ids)
def test_what_is_written_is_read(names: list[str]) -> None:
    assert parse_ids([ids_value(names)]) == tuple(names)
    assert parse_ids([name.encode() for name in names]) == tuple(names)


def test_a_header_that_is_not_there_names_nobody() -> None:
    assert parse_ids([]) == ()


@given(st.lists(st.one_of(st.binary(max_size=80), ids.map(ids_value)), max_size=12))
def test_anything_else_is_ids_within_the_bound_or_refused(values: list[bytes]) -> None:
    try:
        found = parse_ids(values)
    except ValueError:
        return
    assert len(found) <= MAX_IDS
    assert all(is_id(name.encode()) for name in found)


@pytest.mark.parametrize(
    "value",
    [b"", b",", b"ab", b"AB" * 16, b"ab" * 16 + b",", b"ab" * 17, b"ab" * 15 + b"a\n", b", ".join([b"ab" * 16] * 9)],
)
def test_what_is_no_list_of_ids_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 8 ids"):
        parse_ids([value])
