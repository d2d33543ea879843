"""Return targets and origins, for any bytes at all."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio.edge.login_limit import LoginLimit
from connect_trio.edge.login_requests import is_from_own_page, return_path, split_target
from tests.support.login import NAMES, SHARED_HOST, SHARED_URL
from tests.support.platform import SHARED
from tests.support.visitor import visitor_request


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"/" + tail)))
@example(b"//evil.example")
@example(b"/\\evil.example")
@example(b"\\\\evil.example")
@example(b"https://evil.example/")
@example(b"/x\r\nSet-Cookie: a=b")
@example(b"")
def test_a_return_path_never_leaves_its_host(target: bytes) -> None:
    path = return_path(target)
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))
    assert path.isascii()
    assert path.isprintable()
    assert " " not in path
    url = NAMES.studio_url(f"a{SHARED}", path)
    assert urlsplit(url).netloc == f"{SHARED_HOST}:8080"


@given(st.text(max_size=60))
def test_any_query_can_be_read(query: str) -> None:
    target = "/_connect/callback?" + query.encode().decode("latin-1")
    path, values = split_target(visitor_request(NAMES, "connect.localhost:8080", target))
    assert path == "/_connect/callback"
    assert all(isinstance(value, str) for value in values.values())


def test_a_repeated_field_is_left_out() -> None:
    request = visitor_request(NAMES, "connect.localhost:8080", "/x?code=1&code=2&state=3")
    assert split_target(request) == ("/x", {"state": "3"})


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"origin": SHARED_URL}, True),
        ({"origin": SHARED_URL.upper()}, True),
        ({"origin": SHARED_URL + "1"}, False),
        ({"origin": SHARED_URL.replace(":8080", "")}, False),
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "same-site", "origin": SHARED_URL}, False),
        ({}, False),
    ],
)
def test_a_form_is_ours_if_the_browser_says_so(headers: dict[str, str], own: bool) -> None:
    request = visitor_request(NAMES, f"{SHARED_HOST}:8080", "/_connect/logout", method="POST", headers=headers)
    assert is_from_own_page(request, scheme="http") is own


def test_a_subscriber_with_many_ipv6_addresses_has_one_allowance() -> None:
    now = 0.0
    limit = LoginLimit(clock=lambda: now)
    assert sum(limit.admits(f"2001:db8::{number:x}") for number in range(500)) == 300
    assert limit.admits("2001:db8:0:1::1")
    now = 1.0
    assert sum(limit.admits("2001:db8::1") for _ in range(20)) == 5


def test_addresses_are_forgotten_where_there_are_too_many() -> None:
    limit = LoginLimit(clock=lambda: 0.0)
    for number in range(5000):
        limit.admits(f"192.0.{number // 256}.{number % 256}")
    assert len(limit._buckets) == 4096
