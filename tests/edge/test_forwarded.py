from __future__ import annotations

import pytest

from connect_trio.edge.forwarded import Forwarding, parse_address, parse_networks

Item = tuple[bytes, bytes, bytes]


def chain(*values: str) -> list[Item]:
    return [(b"X-Forwarded-For", b"x-forwarded-for", value.encode()) for value in values]


TRUSTED = parse_networks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize("text", ["10.0.0.1/8", "300.0.0.0/8", "proxy", ""])
def test_a_bad_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=rf"not a network: '{text}'"):
        parse_networks(["10.0.0.0/8", text])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" 1.2.3.4 ", "1.2.3.4"),
        ("1.2.3.4:567", "1.2.3.4"),
        ("[2001:db8::1]:567", "2001:db8::1"),
        ('"[2001:db8::1]"', "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("unknown", "None"),
        ("1.2.3", "None"),
        ("", "None"),
    ],
)
def test_addresses_are_read_in_all_their_spellings(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ((), ["10.0.0.9"]),
        (("1.2.3.4",), ["1.2.3.4", "10.0.0.9"]),
        (("6.6.6.6, 1.2.3.4",), ["1.2.3.4", "10.0.0.9"]),
        (("6.6.6.6, 1.2.3.4, 10.1.1.1",), ["1.2.3.4", "10.1.1.1", "10.0.0.9"]),
        (("6.6.6.6", "1.2.3.4", "10.1.1.1"), ["1.2.3.4", "10.1.1.1", "10.0.0.9"]),
        (("1.2.3.4, nonsense, 10.1.1.1",), ["10.1.1.1", "10.0.0.9"]),
        (("10.2.2.2, 10.1.1.1",), ["10.2.2.2", "10.1.1.1", "10.0.0.9"]),
        (("2001:db8::1, fd00::1",), ["2001:db8::1", "fd00::1", "10.0.0.9"]),
    ],
)
def test_the_visitor_is_the_last_address_that_is_not_a_trusted_proxy(values: tuple[str, ...], path: list[str]) -> None:
    assert Forwarding("http", TRUSTED).path("10.0.0.9", chain(*values)) == path


def test_nobody_is_trusted_unless_listed() -> None:
    assert Forwarding("http", TRUSTED).trusts("10.9.9.9")
    assert not Forwarding("http", TRUSTED).trusts("11.0.0.1")
    assert not Forwarding("http", TRUSTED).trusts("unknown")
    assert not Forwarding("http").trusts("127.0.0.1")


def test_what_a_trusted_proxy_says_must_make_sense() -> None:
    said = [(b"", b"x-forwarded-proto", b"gopher"), (b"", b"x-forwarded-port", b"4\xb2")]
    lines = Forwarding("https").lines(["2001:db8::1"], b"a.example", said, trusted=True)
    assert b"X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n" in lines
    assert b'Forwarded: for="[2001:db8::1]";host="a.example";proto=https\r\n' in lines


def test_the_nearest_proxy_knows_the_scheme_best() -> None:
    said = [(b"", b"x-forwarded-proto", b"http, wss")]
    assert b"X-Forwarded-Proto: https\r\n" in Forwarding("http").lines(["::1"], b"a:8080", said, trusted=True)
