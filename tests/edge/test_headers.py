from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.headers import (
    _NAMES_KEPT,
    _request_rules,
    _response_rules,
    harmless_set_cookie,
    identity_lines,
    nominated,
    request_lines,
    response_lines,
    upgrade_tokens,
    without_cookies,
)

Item = tuple[bytes, bytes, bytes]


def items(*headers: str) -> list[Item]:
    parts = (header.encode("latin-1").partition(b":") for header in headers)
    return [(name, name.lower(), value.strip()) for name, _, value in parts]


def test_order_spelling_and_repetition_are_kept() -> None:
    found = request_lines(items("B: 1", "a: 2", "b: 3", "A: 4"))
    assert found == [b"B: 1\r\n", b"a: 2\r\n", b"b: 3\r\n", b"A: 4\r\n"]


@pytest.mark.parametrize("value", ["close", "keep-alive, Upgrade", "Host, Cookie, Authorization, CONTENT-LENGTH", ""])
def test_what_is_end_to_end_cannot_be_nominated(value: str) -> None:
    assert nominated(items(f"Connection: {value}")) == frozenset()


def test_nominated_names_are_found_in_every_connection_header_and_case() -> None:
    assert nominated(items("Connection: X-One, close", "CONNECTION: ,x-TWO,")) == {b"x-one", b"x-two"}


def test_expect_passes_only_where_it_may() -> None:
    assert request_lines(items("Expect: 100-continue"), expect=True)
    assert not request_lines(items("Expect: 100-continue"), expect=False)


def test_the_length_of_an_answer_passes_only_where_it_may() -> None:
    assert response_lines(items("Content-Length: 3"), length=True) == [b"Content-Length: 3\r\n"]
    assert response_lines(items("Content-Length: 3", "Transfer-Encoding: chunked"), length=False) == []


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("a=1", "a=1"),
        ("x=1; own=2; y=3", "x=1; y=3"),
        ("own=1", ""),
        ("own=1;own=2 ; own =3;;own", ""),
        ("disowned=1; own=2", "disowned=1"),
        ("a=own", "a=own"),
        ("a=own=1;OWN=1", "a=own=1; OWN=1"),
        ("\town=1; b=2", "b=2"),
        ('q="own=1; own=2"', 'q="own=1'),
    ],
)
def test_cookies_are_stripped_by_their_exact_name(value: str, left: str) -> None:
    assert without_cookies(value.encode(), [b"own"]) == left.encode()


@given(st.lists(st.sampled_from([b"own", b"a", b"=", b";", b" ", b"own=", b"1", b'"'])).map(b"".join))
def test_no_cookie_header_keeps_a_stripped_cookie(value: bytes) -> None:
    left = without_cookies(value, [b"own"])
    assert all(pair.partition(b"=")[0].strip() != b"own" for pair in left.split(b";"))


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("a=1", "a=1"),
        ("a=1; Path=/; Secure", "a=1; Path=/; Secure"),
        ("a=1; Domain=x.example; Path=/", "a=1; Path=/"),
        ("a=1;DOMAIN = x ;domain;Path=/", "a=1;Path=/"),
        ("a=domain=x; HttpOnly", "a=domain=x; HttpOnly"),
        ("connect_session=1", None),
        (" connect_session =1; Path=/x", None),
        ("__Host-connect_login=1; Secure; Path=/", None),
        ("__HOST-CONNECT_LOGIN=1", None),
        ("connect_session", None),
        ("=connect_session=1", None),
        ("", None),
    ],
)
def test_a_tools_cookies_stay_on_its_host_and_are_not_ours(value: str, left: str | None) -> None:
    assert harmless_set_cookie(value.encode()) == (None if left is None else left.encode())


@given(st.text(), st.text())
def test_identities_are_two_lines_of_ascii_whatever_they_are(subject: str, username: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in subject + username):
        return
    lines = identity_lines(subject, username).split(b"\r\n")
    assert [line.partition(b": ")[0] for line in lines] == [b"X-Connect-Sub", b"X-Connect-User", b""]
    assert all(0x20 <= byte < 0x7F for line in lines for byte in line)


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        (("Upgrade: WebSocket", "Connection: Upgrade"), (b"websocket",)),
        (("Upgrade: a/1, b", "Connection: keep-alive, upgrade"), (b"a/1", b"b")),
        (("Upgrade: websocket, h2c, HTTP/2.0, TLS/1.3, h2", "Connection: upgrade"), (b"websocket",)),
        (("Upgrade: websocket",), ()),
        (("Connection: upgrade",), ()),
    ],
)
def test_what_a_request_asks_to_switch_to(headers: tuple[str, ...], asked: tuple[bytes, ...]) -> None:
    assert upgrade_tokens(items(*headers)) == asked


def test_names_that_a_peer_invents_are_not_kept() -> None:
    """Rules are remembered by name, and a name can be as long as a head."""
    for number in range(_NAMES_KEPT + 100):
        headers = items(f"x-{number}: 1", f"x-{number % 100}-{'y' * 1000}: 1")
        assert len(request_lines(headers)) == len(response_lines(headers, length=True)) == 2
    for rules in (_request_rules, _response_rules):
        assert len(rules) <= _NAMES_KEPT
        assert max(map(len, rules), default=0) <= 64
    assert request_lines(items(f"X_Connect_{'y' * 1000}: 1")) == [], "and what is not kept is judged all the same"
