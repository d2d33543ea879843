"""Host headers are judged exactly; labels, sessions and URLs fit together."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio.routing.names import (
    HostNames,
    InvalidHost,
    OwnHost,
    StudioHost,
    UnknownHost,
    join_address,
    label_of,
    normalise_host,
    session_of,
    split_address,
)

NAMES = HostNames("http://connect.localhost:8080")
SESSIONS = st.text("0123456789abcdef", min_size=8, max_size=8)


@pytest.mark.parametrize(
    "header", ["connect.localhost", "connect.localhost:8080", "CONNECT.LocalHost", "connect.localhost:1"]
)
def test_own_host_is_known_in_any_case_and_with_any_port(header: str) -> None:
    assert NAMES.classify(header) == OwnHost()


def test_a_studio_host_gives_label_and_session() -> None:
    expected = StudioHost(label="a23ce7967", session="23ce7967")
    assert NAMES.classify("a23ce7967.connect.localhost:8080") == expected
    assert NAMES.classify("A23CE7967.connect.localhost") == expected


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "example.org",
        "127.0.0.1:8080",
        "[::1]:8080",
        "b23ce7967.connect.localhost",
        "23ce7967.connect.localhost",
        "a23ce796.connect.localhost",
        "a23ce79677.connect.localhost",
        "a23ce796g.connect.localhost",
        "x.a23ce7967.connect.localhost",
        "a23ce7967.connect.localhost.example.org",
        "a23ce7967connect.localhost",
        "xconnect.localhost",
        "a23ce7967.evil-connect.localhost",
        "a23ce7967.localhost",
        "a23ce7967",
        "a_b.connect.localhost",
    ],
)
def test_other_hosts_are_unknown(header: str) -> None:
    with pytest.raises(UnknownHost):
        NAMES.classify(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ".",
        ":8080",
        "connect.localhost.",
        "a23ce7967.connect.localhost.",
        ".connect.localhost",
        "a23ce7967..connect.localhost",
        "connect.localhost:",
        "connect.localhost:0",
        "connect.localhost:65536",
        "connect.localhost:8080:8080",
        "connect.localhost:+80",
        "connect.localhost:８０",
        "user@connect.localhost",
        "user:pw@connect.localhost",
        "connect.localhost/",
        "connect.localhost?x",
        "connect.localhost#x",
        "connect.localhost\\x",
        "connect%2elocalhost",
        "connect.localhost\x00",
        "connect.localhost\n",
        " connect.localhost",
        "connect.localhost ",
        "connect.local\thost",
        "connect.localhost,evil.example",
        "cönnect.localhost",
        "ａ23ce7967.connect.localhost",
        "a23ce7967。connect.localhost",
        "-.connect.localhost",
        "-a.connect.localhost",
        "a" * 64 + ".connect.localhost",
        "a." * 130 + "connect.localhost",
        "[::1",
        "::1",
        "[connect.localhost]",
        "[]",
        "[::1]x",
    ],
)
def test_malformed_hosts_are_invalid(header: str) -> None:
    with pytest.raises(InvalidHost):
        NAMES.classify(header)


@given(st.text())
@example("connect.localhost\n")
def test_any_text_is_ours_only_if_it_spells_our_host(header: str) -> None:
    try:
        found = NAMES.classify(header)
    except (InvalidHost, UnknownHost):
        return
    host = header.lower().partition(":")[0]
    own = isinstance(found, OwnHost)
    assert host == ("connect.localhost" if own else f"{getattr(found, 'label', '')}.connect.localhost")


def test_letters_that_only_look_like_ascii_in_lower_case_are_refused() -> None:
    kelvin = "\N{KELVIN SIGN}"
    assert kelvin.lower() == "k"
    with pytest.raises(InvalidHost):
        HostNames("http://k.example").classify(f"{kelvin}.example")


@given(st.text(string.ascii_letters + string.digits + ".:-_[]@/%\x00 ", max_size=40))
def test_a_normalised_host_stays_itself(header: str) -> None:
    try:
        host = normalise_host(header)
    except InvalidHost:
        return
    assert normalise_host(host) == host
    assert not set(host) & set("@/% \x00")


@given(SESSIONS)
def test_session_label_and_url_go_round(session: str) -> None:
    label = label_of(session)
    assert session_of(label) == session
    assert NAMES.classify(f"{label}.connect.localhost:8080") == StudioHost(label=label, session=session)
    assert NAMES.studio_origin(label) == f"http://{label}.connect.localhost:8080"


@pytest.mark.parametrize("bad", ["", "23CE7967", "23ce796", "23ce79677", "23ce7967\n", "g3ce7967", "２3ce7967"])
def test_what_is_no_session_has_no_label(bad: str) -> None:
    with pytest.raises(ValueError, match="session id"):
        label_of(bad)
    with pytest.raises(ValueError, match="label"):
        session_of("a" + bad)


@pytest.mark.parametrize(
    ("url", "origin", "studio"),
    [
        ("http://connect.localhost:8080", "http://connect.localhost:8080", "http://a23ce7967.connect.localhost:8080"),
        ("https://Connect.Example.ORG/", "https://connect.example.org", "https://a23ce7967.connect.example.org"),
        ("https://c.example:443", "https://c.example", "https://a23ce7967.c.example"),
        ("http://c.example:443", "http://c.example:443", "http://a23ce7967.c.example:443"),
    ],
)
def test_origins_leave_default_ports_out(url: str, origin: str, studio: str) -> None:
    names = HostNames(url)
    assert names.own_origin == origin
    assert names.studio_origin("a23ce7967") == studio
    assert names.secure == url.startswith("https")


def test_studio_url_takes_only_absolute_paths() -> None:
    assert NAMES.studio_url("a23ce7967", "/lab?x=1") == "http://a23ce7967.connect.localhost:8080/lab?x=1"
    assert NAMES.studio_url("a23ce7967") == "http://a23ce7967.connect.localhost:8080/"
    for path in ["", "lab", "@evil.example/", ".evil.example/", "/a b", "/\n", "/ä"]:
        with pytest.raises(ValueError, match="absolute path"):
            NAMES.studio_url("a23ce7967", path)
    with pytest.raises(ValueError, match="label"):
        NAMES.studio_url("evil", "/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "connect.localhost:8080",
        "ftp://connect.localhost",
        "http://",
        "http://:8080",
        "http://user@connect.localhost",
        "http://@connect.localhost",
        "http://connect.localhost/path",
        "http://connect.localhost?x=1",
        "http://connect.localhost#x",
        "http://connect.localhost:0",
        "http://connect.localhost:99999",
        "http://connect.localhost.",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://[::1",
        "http://cönnect.localhost",
        "http://connect localhost",
        "http://" + "a." * 122 + "example",
    ],
)
def test_a_proxy_url_without_room_for_studios_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HostNames(url)


@given(st.sampled_from(["redis", "10.0.0.1", "::1", "connect-server-0.connect"]), st.integers(1, 65535))
def test_addresses_go_round(host: str, port: int) -> None:
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "bad", ["", "redis", "redis:", ":6379", "redis:0", "redis:65536", "::1:6379", "a b:1", "h:1\n"]
)
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="write"):
        split_address(bad)
