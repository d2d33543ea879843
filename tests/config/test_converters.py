"""Every converter takes what it documents, and says what is wrong and how to mend it otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.config import converters as to


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("2m", 120),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("30s", 30),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("1h1m1s1ms", 3661.001),
    ],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert to.duration(text) == pytest.approx(seconds)


@given(st.integers(0, 100), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, minutes: int, seconds: int, ms: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + ms / 1000
    assert to.duration(f"{hours}h{minutes}m{seconds}s{ms}ms") == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "2", "m", "2 m", "2m ", "-2m", "+2m", "2M", "2d", "1m30", "1e3s", "٣s", "2m\n", "9" * 12 + "h"]
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        to.duration(text)


def test_a_positive_duration_is_not_zero() -> None:
    assert to.positive_duration("1ms") == 0.001
    with pytest.raises(ValueError, match="longer"):
        to.positive_duration("0s")


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_true_is_spelled_as_in_go(text: str) -> None:
    assert to.boolean(text) is True
    assert to.boolean({"1": "0", "t": "f", "T": "F", "TRUE": "FALSE", "true": "false", "True": "False"}[text]) is False


CASES: list[tuple[Callable[[str], Any], dict[str, Any], list[str]]] = [
    (to.boolean, {}, ["", "yes", "on", "tRUE", "2", "true "]),
    (to.port, {"1": 1, "8080": 8080, "65535": 65535}, ["0", "65536", "-1", "+80", "80.0", "http", "８０", "1" * 30]),
    (to.listen_port, {"0": 0, "80": 80}, ["65536", "tcp://10.0.0.1:80"]),
    (to.database, {"0": 0, "15": 15}, ["-1", "x"]),
    (to.tunnels, {"1": 1, "4": 4}, ["0", "5", "-1", "two"]),
    (
        to.address,
        {"redis:6379": "redis:6379", "[::1]:1": "[::1]:1"},
        ["redis", "redis:", ":1", "redis:0", "redis://r:1"],
    ),
    (
        to.addresses,
        {"a:1": ("a:1",), "a:1,b:2": ("a:1", "b:2"), "a:1, b:2": ("a:1", "b:2")},
        ["a:1,", ",", "a", "http://a:1"],
    ),
    (to.host, {"0.0.0.0": "0.0.0.0", "::1": "::1", "a.b": "a.b"}, ["a b", "a:b", "http://a", "-a", "a/b"]),
    (to.domain, {"svc": "svc", ".a.svc.": "a.svc"}, ["", ".", "a b", "::1", "a:1", "-a"]),
    (
        to.size,
        {"1MiB": 1 << 20, "256MiB": 256 << 20, "256Mi": 256 << 20, "1.5GiB": 3 << 29, "1048576": 1 << 20},
        ["", "0", "1", "1023KiB", "1025GiB", "1MB", "1 MiB", "-1MiB", "1mib", "MiB", "1.MiB", "٣MiB", "1e9", "9" * 40],
    ),
    (to.resume_timeout, {"1s": 1.0, "10m": 600.0, "1h": 3600.0}, ["0", "999ms", "1h1ns", "10", "10 m"]),
    (
        to.base_url,
        {
            "http://localhost:8081": "http://localhost:8081",
            "https://Platform.Example.org/": "https://platform.example.org",
            "https://example.org/platform/": "https://example.org/platform",
            "http://[::1]:80": "http://[::1]:80",
        },
        ["localhost:8081", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://u@a", "http://u:p@a", "//a"],
    ),
    (to.base_url, {}, ["http://a?x", "http://a#", "http://a b", "http://ä", "http://[::1", "http://a\n", "http://a:b"]),
    (
        to.proxy_url,
        {"http://Connect.localhost:8080/": "http://connect.localhost:8080", "https://c.org:443": "https://c.org"},
        ["connect.localhost", "http://127.0.0.1:8080", "http://c.org/path", "http://u@c.org"],
    ),
    (to.log_level, {"info": "INFO", "Warning": "WARN", "ERROR": "ERROR"}, ["", "TRACE", "3"]),
    (
        to.networks,
        {
            "10.0.0.0/8 ::1/128": (ip_network("10.0.0.0/8"), ip_network("::1/128")),
            "127.0.0.1": (ip_network("127.0.0.1"),),
        },
        ["10.0.0.1/8", "10.0.0.0/33", "a", "10.0.0.0/8,::1"],
    ),
    (to.program, {"/bin/sh": Path("/bin/sh")}, ["sh", "/bin", "/nonexistent", __file__, "../../../bin/sh"]),
    (to.variable_names, {"LANG LC_*": ("LANG", "LC_*"), "": ()}, ["A=1", "*", "A-B", "A*B", "LANG,LC_*"]),
    (to.path_prefix, {"": "", "/": "", "/a/b/": "/a/b", "/_studio/a2": "/_studio/a2"}, ["a", "//a", "/a/../b", "/a b"]),
    (to.choice("a", "b"), {"a": "a"}, ["c", ""]),
    (to.short_name, {"files": "files"}, ["", "Files", "a b", "-a"]),
    (to.key_prefix, {"connect:session": "connect:session", "p:": "p"}, ["", ":", "a b", "a\n", "k" * 201]),
    (to.token, {"abc.def-_=": "abc.def-_="}, ["", "a b", "a\n", "ä"]),
    (to.text, {"a name": "a name"}, ["a\nb", "a\x1b[0m"]),
]


@pytest.mark.parametrize(
    ("convert", "text", "value"), [(convert, text, value) for convert, good, _ in CASES for text, value in good.items()]
)
def test_good_values_are_converted(convert: Callable[[str], Any], text: str, value: Any) -> None:
    assert convert(text) == value


@given(st.integers(1, 1 << 20), st.sampled_from([("Ki", 10), ("Mi", 20), ("Gi", 30)]), st.sampled_from(["", "B"]))
def test_sizes_are_counted_in_binary_units(number: int, unit: tuple[str, int], byte: str) -> None:
    name, shift = unit
    if 1 << 20 <= number << shift <= 1 << 40:
        assert to.size(f"{number}{name}{byte}") == to.size(str(number << shift)) == number << shift
    else:
        with pytest.raises(ValueError, match="out of range"):
            to.size(f"{number}{name}{byte}")


@given(st.sampled_from([convert for convert, _, _ in CASES]), st.text() | st.text("0123456789.smhKMGiB:/@[]-_ak"))
def test_any_text_is_converted_or_refused_as_a_value(convert: Callable[[str], Any], text: str) -> None:
    with contextlib.suppress(ValueError):
        convert(text)


@pytest.mark.parametrize(("convert", "text"), [(convert, text) for convert, _, bad in CASES for text in bad])
def test_bad_values_are_refused_in_one_line(convert: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        convert(text)
    assert str(caught.value).isprintable()


def test_files_and_folders_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert to.readable_file(str(file)) == file
    assert to.existing_folder(str(tmp_path)) == tmp_path
    for convert, wrong in [
        (to.readable_file, tmp_path),
        (to.existing_folder, file),
        (to.readable_file, tmp_path / "no"),
    ]:
        with pytest.raises(ValueError, match="no such"):
            convert(str(wrong))
    with pytest.raises(ValueError, match="zero byte"):
        to.path("a\0b")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":2222", ("::", 2222)),
        ("0.0.0.0:2222", ("0.0.0.0", 2222)),
        ("[::]:2222", ("::", 2222)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:22", ("localhost", 22)),
    ],
)
def test_addresses_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert to.listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["2222", "", ":", "::1:22", "[::1]", "[::1:22", "a b:22", ":70000", ":-1", "[host]:22"]
)
def test_other_ones_are_told_how_they_are_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"write for example :2222|write a number from 0 to 65535"):
        to.listen_address(text)


def test_base64_may_be_wrapped() -> None:
    assert to.base64_text("aGVs\nbG8=\n") == b"hello"
    for wrong in ("a", "_-_-", "aGVsbG8"):
        with pytest.raises(ValueError, match="not base64; write what `base64 -w0 FILE` prints"):
            to.base64_text(wrong)
