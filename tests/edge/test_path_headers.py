"""What a tool below a path may answer: cookies for that path only, and addresses that lead there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.edge.headers import response_lines
from connect_trio.edge.path_headers import PathMode

BASE = b"/_studio/a23ce7967"
MODE = PathMode(BASE, b"Connect.example.org")
TEXT = BASE.decode()


@pytest.mark.parametrize(
    ("location", "becomes"),
    [
        *(("/lab", f"{TEXT}/lab"), ("/", f"{TEXT}/"), ("/_studiox", f"{TEXT}/_studiox"), ("/?x=1", f"{TEXT}/?x=1")),
        ("https://connect.example.org/lab", f"https://connect.example.org{TEXT}/lab"),
        ("http://CONNECT.example.org:443/lab", f"http://CONNECT.example.org:443{TEXT}/lab"),
        ("https://connect.example.org", f"https://connect.example.org{TEXT}/"),
        ("https://connect.example.org?x", f"https://connect.example.org{TEXT}/?x"),
        ("//connect.example.org/lab", f"//connect.example.org{TEXT}/lab"),
    ],
)
def test_an_address_without_the_prefix_gets_it(location: str, becomes: str) -> None:
    assert MODE.location(location.encode()) == becomes.encode()


@pytest.mark.parametrize(
    "location",
    [
        *(
            "lab",
            "./lab",
            "../lab",
            "?x",
            "#x",
            "",
            f"{TEXT}/lab",
            TEXT,
            f"{TEXT}?x",
            f"https://connect.example.org{TEXT}/",
        ),
        *("/_connect/logout", "/_studio/a00000001/", "https://elsewhere.example/lab", "//elsewhere.example/lab"),
        *("/\\elsewhere.example", "mailto:alice@example.org", "https://connect.example.org:8443/lab"),
        "https://connect.example.org.elsewhere.example/lab",
    ],
)
def test_other_addresses_stay_as_they_are(location: str) -> None:
    assert MODE.location(location.encode()) == location.encode()


@pytest.mark.parametrize(
    ("cookie", "becomes"),
    [
        ("x=1", f"x=1; Path={TEXT}/"),
        ("x=1; Path=/", f"x=1; Path={TEXT}/"),
        ("x=1; path=/; HttpOnly", f"x=1; HttpOnly; Path={TEXT}/"),
        ("x=1;PATH = / ;Path=", f"x=1; Path={TEXT}/"),
        ("x=1; Path=/_studio", f"x=1; Path={TEXT}/"),
        ("x=1; Path=/_studio/", f"x=1; Path={TEXT}/"),
        ("x=1; Path=/lab", f"x=1; Path={TEXT}/lab"),
        ("x=1; Path=/_studio/a00000001/", f"x=1; Path={TEXT}/_studio/a00000001/"),
        (f"x=1; Path={TEXT}", f"x=1; Path={TEXT}"),
        (f"x=1; Path={TEXT}/api", f"x=1; Path={TEXT}/api"),
        (f"x=1; Path={TEXT}x", f"x=1; Path={TEXT}{TEXT}x"),
        (f"x=1; Path={TEXT}/; Path=/", f"x=1; Path={TEXT}/"),
        ('x=1; Path="/"', f"x=1; Path={TEXT}/"),
        (f"x=1; Path=/{'y' * 1000}", f"x=1; Path={TEXT}/"),
        ("__Secure-x=1; Secure; Path=/", f"__Secure-x=1; Secure; Path={TEXT}/"),
    ],
)
def test_a_cookie_is_for_the_studios_path(cookie: str, becomes: str) -> None:
    assert MODE.set_cookie(cookie.encode()) == becomes.encode()


@pytest.mark.parametrize("cookie", ["__Host-x=1; Path=/; Secure", "__host-x=1", " __HOST-Http-x=1; Path=/"])
def test_a_cookie_that_has_to_be_for_the_whole_host_is_not_set(cookie: str) -> None:
    assert MODE.set_cookie(cookie.encode()) is None


def browsers_path(line: bytes) -> bytes:
    """The path of a cookie as RFC 6265bis, section 5.6, finds it."""
    path = b""
    for attribute in line.split(b";")[1:]:
        name, _, value = attribute.partition(b"=")
        if name.strip(b" \t").lower() == b"path" and len(value.strip(b" \t")) <= 1024:
            path = value.strip(b" \t")
    return path


ATTRIBUTES = st.sampled_from(
    [
        *(
            b"Path=/",
            b"path=",
            b" PATH =\t/ ",
            b"\x0bPath=/",
            b"Path\x0c=/",
            b"Path=/_studio",
            b"Path",
            b"Path=//",
            b"=",
        ),
        *(b"Path=" + BASE, b"Path=" + BASE + b"/..", b"Domain=connect.example.org", b"Secure", b"Path=/" + b"y" * 1020),
    ]
)


@given(st.lists(ATTRIBUTES, max_size=6))
def test_in_a_browsers_reading_too_a_cookie_is_below_the_path(attributes: list[bytes]) -> None:
    (line,) = response_lines(
        [(b"Set-Cookie", b"set-cookie", b";".join((b"x=1", *attributes)))], length=False, paths=MODE
    )
    path = browsers_path(line.removeprefix(b"Set-Cookie: ").removesuffix(b"\r\n"))
    assert path == BASE or path.startswith(BASE + b"/")
    assert b"domain" not in line.lower()


def test_a_service_worker_may_not_reach_further_below_a_path_only() -> None:
    items = [(b"Service-Worker-Allowed", b"service-worker-allowed", b"/")]
    assert response_lines(items, length=False, paths=MODE) == []
    assert response_lines(items, length=False) == [b"Service-Worker-Allowed: /\r\n"]


def test_on_a_host_of_its_own_nothing_is_changed() -> None:
    items = [(b"Location", b"location", b"/lab"), (b"Set-Cookie", b"set-cookie", b"__Host-x=1; Path=/")]
    assert response_lines(items, length=False) == [b"Location: /lab\r\n", b"Set-Cookie: __Host-x=1; Path=/\r\n"]
