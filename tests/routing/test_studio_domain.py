"""Studios under a domain of their own: who is whose host then, and which domains can be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.routing.names import HostNames, InvalidHost, OwnHost, StudioHost, UnknownHost, studio_domain

NAMES = HostNames("https://connect.example.org:8443", "Studios.Example.org")
STUDIO = StudioHost(label="a23ce7967", session="23ce7967")


@pytest.mark.parametrize("header", ["a23ce7967.studios.example.org", "A23CE7967.Studios.EXAMPLE.org:8443"])
def test_studios_are_under_the_domain(header: str) -> None:
    assert NAMES.classify(header) == STUDIO


def test_scheme_and_port_are_those_of_the_url() -> None:
    assert NAMES.classify("connect.example.org") == OwnHost()
    assert NAMES.own_origin == "https://connect.example.org:8443"
    assert NAMES.studio_host("a23ce7967") == "a23ce7967.studios.example.org"
    assert NAMES.studio_origin("a23ce7967") == "https://a23ce7967.studios.example.org:8443"
    assert NAMES.studio_url("a23ce7967", "/lab") == "https://a23ce7967.studios.example.org:8443/lab"


@pytest.mark.parametrize(
    "header",
    [
        "a23ce7967.connect.example.org",
        "studios.example.org",
        "a23ce7967.example.org",
        "x.a23ce7967.studios.example.org",
        "a23ce7967.connect.studios.example.org",
        "a23ce7967.studios.example.org.connect.example.org",
        "a23ce7967studios.example.org",
    ],
)
def test_no_other_host_is_a_studio(header: str) -> None:
    with pytest.raises(UnknownHost):
        NAMES.classify(header)


def test_the_own_host_may_be_under_the_domain_or_be_it() -> None:
    parent = HostNames("https://connect.example.org", "example.org")
    assert parent.classify("connect.example.org") == OwnHost()
    assert parent.classify("a23ce7967.example.org") == STUDIO
    same = HostNames("https://connect.example.org", "connect.example.org")
    assert same.classify("connect.example.org") == OwnHost()
    assert same.classify("a23ce7967.connect.example.org") == STUDIO


@given(st.text())
def test_any_text_is_a_studio_only_if_it_spells_its_host(header: str) -> None:
    for text in (header, f"a23ce7967{header}.studios.example.org", f"a23ce7967.{header}studios.example.org{header}"):
        try:
            found = NAMES.classify(text)
        except (InvalidHost, UnknownHost):
            continue
        host = text.lower().partition(":")[0]
        own = isinstance(found, OwnHost)
        assert host == ("connect.example.org" if own else f"{getattr(found, 'label', '')}.studios.example.org")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "https://studios.example.org",
        "//studios.example.org",
        "studios.example.org/",
        "studios.example.org\\x",
        "studios.example.org:443",
        "studios.example.org.",
        ".studios.example.org",
        "*.studios.example.org",
        "studios..example.org",
        "user@studios.example.org",
        "studios%2eexample.org",
        "studios.exam\tple.org",
        "stüdios.example.org",
        "-.example.org",
        "127.0.0.1",
        "[::1]",
        "a." * 122 + "example",
    ],
)
def test_what_is_no_host_name_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain") as caught:
        studio_domain(text)
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match=r"domain"):
        HostNames("https://connect.example.org", text)


def test_international_names_travel_in_ascii() -> None:
    assert studio_domain("xn--stdios-3ya.example.org") == "xn--stdios-3ya.example.org"
