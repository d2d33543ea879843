"""What a lease looks like in Redis."""

from __future__ import annotations

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.routing.redis import _lease, _parse_lease_untrusted
from connect_trio.routing.registry import MAX_ISSUED, Route, epoch_of

ROUTES = st.builds(
    Route,
    session=st.text("0123456789abcdef", min_size=8, max_size=8),
    slot=st.integers(0, 3),
    address=st.text(),
    connector=st.text("0123456789abcdef"),
    epoch=st.builds(epoch_of, st.integers(0, MAX_ISSUED), st.integers(0, 2**64 - 1)),
    since=st.floats(0, 1e12),
    instance=st.text("0123456789abcdef"),
)


@given(ROUTES)
def test_a_lease_is_the_json_of_its_route_as_json_itself_writes_it(route: Route) -> None:
    """Byte for byte: servers of two releases, one of which writes it another way, would write each lease anew."""
    text = _lease(route)[3]
    assert text == json.dumps(attrs.asdict(route), separators=(",", ":"))
    assert _parse_lease_untrusted(text.encode(), session=route.session, slot=route.slot) == route
