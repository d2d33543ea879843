"""What counts as a root domain, and when Platform and Connect are warned of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.config.domains import apart, root_domain


@pytest.mark.parametrize(
    ("host", "root"),
    [
        ("example.org", "example.org"),
        ("Connect.Studios.Example.org.", "example.org"),
        ("connect.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("connect.co.example", "co.example"),
        ("platform", "platform"),
        ("platform.corp", "platform.corp"),
        ("localhost", None),
        ("connect.localhost", None),
        ("10.0.0.1", None),
        ("::1", None),
        ("[::1]", None),
    ],
)
def test_the_root_domain_is_what_browsers_take_for_it(host: str, root: str | None) -> None:
    assert root_domain(host) == root


@pytest.mark.parametrize(
    ("platform", "connect"),
    [
        ("https://platform.example.org", "https://connect.example.org"),
        ("https://platform.example.org", "https://connect.platform.example.org"),
        ("https://example.org:8443/path", "http://connect.EXAMPLE.org"),
        ("http://localhost:8081", "http://connect.localhost:8080"),
        ("http://10.0.0.7", "https://connect.example.org"),
        ("http://localhost:8081", "https://connect.example.org"),
    ],
)
def test_what_is_under_one_domain_or_in_development_is_fine(platform: str, connect: str) -> None:
    assert apart(platform, connect) == []


@pytest.mark.parametrize(
    ("platform", "connect"),
    [
        ("https://platform.example.org", "https://connect.example.com"),
        ("https://a.co.uk", "https://b.co.uk"),
        ("http://platform", "http://connect"),
        ("http://platform.corp", "http://connect.corp"),
        ("https://notexample.org", "https://connect.example.org"),
    ],
)
def test_what_browsers_keep_apart_is_warned_of_in_one_line(platform: str, connect: str) -> None:
    (line,) = apart(platform, connect)
    assert line.isprintable()
    assert "share no root domain" in line


def test_the_studios_domain_is_looked_at_too() -> None:
    platform, connect = "https://platform.example.org", "https://connect.example.org"
    assert apart(platform, connect, "studios.example.org") == []
    (line,) = apart(platform, connect, "studios.example.net")
    assert line.startswith("PLATFORM_URL (example.org) and CONNECT_STUDIO_DOMAIN (example.net) share no root domain")
    assert len(apart(platform, "https://connect.example.net", "studios.example.net")) == 2
    assert apart(platform, connect, "studios.localhost") == []


LABEL = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=5), LABEL)
def test_a_sub_domain_has_the_root_of_its_parent_or_is_one(labels: list[str], child: str) -> None:
    parent = ".".join(labels)
    root = root_domain(parent)
    below = root_domain(f"{child}.{parent}")
    if root is None:
        assert below is None
    else:
        assert f".{parent}".endswith(f".{root}")
        # A name that is but a suffix, such as "org" or "co.uk", is nobody's, and each name under it a root.
        assert below in (root, f"{child}.{parent}")
