"""Paths of Studios on Connect's own host: the literal spelling leads to one, whatever resembles it leads nowhere."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connect_trio.edge.studio_paths import SlashMissing, StudioPath, studio_path

LABEL = "a23ce7967"
BASE = f"/_studio/{LABEL}"
SIBLING = "/_studio/a00000001"


@pytest.mark.parametrize(
    "rest",
    [
        *(
            "/",
            "/lab",
            "/lab?reset",
            "//",
            "//x//y",
            "/?next=/../../_connect",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/...",
        ),
        *("/a%2Fb", "/a%2f..%2fb", "/%5Ca", "/a;b=c/d", "/_connect/logout", "/%zz", "/ä".encode().decode("latin-1")),
        f"{SIBLING}/lab",
    ],
)
def test_what_is_below_a_studio_is_passed_as_it_is(rest: str) -> None:
    place = studio_path(f"{BASE}{rest}".encode("latin-1"))
    assert place == StudioPath(LABEL, BASE, rest.encode("latin-1"))
    assert place.session == LABEL[1:]


@pytest.mark.parametrize(
    ("target", "location"),
    [(BASE, f"{BASE}/"), (f"{BASE}?", f"{BASE}/?"), (f"{BASE}?a=//b/..", f"{BASE}/?a=//b/..")],
)
def test_a_missing_slash_is_added(target: str, location: str) -> None:
    assert studio_path(target.encode()) == SlashMissing(location)


@pytest.mark.parametrize(
    "target",
    [
        *("*", "/", "", "/_studio", "/_studio/", "/_studio//", "/_studio?", f"/_studio//{LABEL}/", "/_connect/tunnel"),
        *(f"/_studio/{LABEL}x/", f"/_studio/{LABEL[:-1]}/", f"/_studio/{LABEL.upper()}/", "/_studio/b23ce7967/"),
        *(f"/_STUDIO/{LABEL}/", f"//_studio/{LABEL}/", f"/./_studio/{LABEL}/", f"/x/../_studio/{LABEL}/"),
        *(f"/%5fstudio/{LABEL}/", f"/_studio%2f{LABEL}/", f"/_studio/%61{LABEL[1:]}/", f"/_studio\\{LABEL}\\"),
        *(f"/_studio/{LABEL}%2flab", f"/_studio/{LABEL};x/lab", f"/_studio;x/{LABEL}/", f"/_studio/{LABEL}#/"),
        *(f"/_studio/{LABEL}%3fx", f"/_studio/{LABEL}%00/", f"/_studio/{LABEL}\t/", f"/x{BASE}/", f"_studio/{LABEL}/"),
    ],
)
def test_another_spelling_leads_nowhere(target: str) -> None:
    assert studio_path(target.encode()) is None


@pytest.mark.parametrize(
    "rest",
    [
        *("/..", "/../", "/../a00000001/x", "/a/../../b", "/./..", "//..", "/.././x", "/a//../../b"),
        *("/%2e%2e/x", "/%2E./x", "/.%2e/x", "/..%2fx", "/..%2Fx", "/%2e%2e%2fx", "/a%2f..%2f..%2fx"),
        *("/..\\x", "/..%5cx", "/a\\..\\..\\x", "/..;/x", "/..;a=b/x", "/%2e%2e;/x"),
        *("/%252e%252e/x", "/..%252fx", "/%25252e%25252e/x"),
        *("/a%2fb/../..", "/a\\b/../..", "/a%5cb/../.."),  # two folders to some, one to others
    ],
)
def test_what_some_reader_takes_for_a_path_outside_leads_nowhere(rest: str) -> None:
    assert studio_path(f"{BASE}{rest}".encode()) is None


PIECES = [
    *(b"..", b".", b"/", b"//", b"\\", b"%2e", b"%2E", b"%2f", b"%5c", b"%25", b";", b";x", b"a", b"_connect", b"?"),
    *(b"_studio", b"a00000001", LABEL.encode()),
]


def readings(path: bytes) -> list[bytes]:
    """How servers and browsers read a path, each in its own way."""
    found = [path]
    for _ in range(3):
        found.append(unquote_to_bytes(found[-1]))
    found += [path.replace(b"%2e", b".").replace(b"%2E", b".") for path in found]
    found += [path.replace(b"\\", b"/") for path in found]
    found += [b"/".join(segment.partition(b";")[0] for segment in path.split(b"/")) for path in found]
    return found


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@example([b"a", b"%2f", b"a", b"/", b"..", b"/", b".."])
@example([b"..", b";x", b"/", b"a00000001"])
@example([b"%25", b"2e", b"%25", b"2e", b"/", b"a00000001"])
@example([b"..", b"%25", b"2f", b"a00000001"])
@example([b"..", b"%5c", b"a00000001"])
def test_no_reader_finds_a_path_outside_of_the_studio(pieces: list[bytes]) -> None:
    target = f"{BASE}/".encode() + b"".join(pieces)
    if not isinstance(studio_path(target), StudioPath):
        return
    for reading in readings(target.partition(b"?")[0]):
        normal = posixpath.normpath(reading)
        assert normal == BASE.encode() or normal.startswith(f"{BASE}/".encode()), reading


@given(st.lists(st.sampled_from([*PIECES, b"/_studio/", f"/_studio/{LABEL}/".encode()]), max_size=12))
def test_a_target_is_for_a_studio_only_letter_by_letter(pieces: list[bytes]) -> None:
    target = b"/" + b"".join(pieces)
    place = studio_path(target)
    if isinstance(place, StudioPath):
        assert target == place.base.encode() + place.rest
        assert place.base == f"/_studio/{place.label}"
        assert place.rest.startswith(b"/")
    elif isinstance(place, SlashMissing):
        path, _, query = place.location.partition("?")
        assert target.decode() == path.removesuffix("/") + place.location[len(path) :] or query == ""
