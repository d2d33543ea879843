from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.agent.files.content import Version, content_disposition, decode_text, media_type, show_size


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a.png", "image/png"),
        (b"a.SVG", "image/svg+xml"),
        (b"a.webp", "image/webp"),
        (b"a.html", "text/html"),
        (b"a.txt", "text/plain; charset=utf-8"),
        (b"a.tar.gz", "application/gzip"),
        (b"a.Z", "application/octet-stream"),
        (b"a", "application/octet-stream"),
        (b"data:text/html,x", "application/octet-stream"),
        (b"\xff.png", "image/png"),
    ],
)
def test_the_type_follows_the_extension(name: bytes, kind: str) -> None:
    assert media_type(name) == kind


@given(st.binary(min_size=1))
def test_a_disposition_is_one_clean_header_that_carries_the_name(name: bytes) -> None:
    header = content_disposition("attachment", name)
    assert header.isascii()
    assert header.isprintable()
    _, plain, extended = header.split("; ", 2) if header.count("; ") == 2 else header.rsplit("; ", 2)
    assert '"' not in plain.removeprefix('filename="')[:-1]
    assert unquote_to_bytes(extended.removeprefix("filename*=UTF-8''")).decode() == name.decode("utf-8", "replace")


@given(st.text(st.characters(exclude_characters="\0\ufeff", codec="utf-8")), st.integers(0, 3))
def test_text_is_decoded_even_when_cut_within_a_character(text: str, cut: int) -> None:
    raw = text.encode()
    assert decode_text(raw, complete=True) == text
    shown = decode_text(raw[: len(raw) - cut], complete=False)
    assert shown is not None
    assert text.startswith(shown)


@pytest.mark.parametrize("raw", [b"\xff\xfe\xfd", b"a\0b", b"\x89PNG\r\n", b"caf\xe9 au lait"])
def test_what_is_not_text_is_not_shown(raw: bytes) -> None:
    assert decode_text(raw, complete=True) is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_names_the_encoding(encoding: str) -> None:
    assert decode_text("Grüße".encode(encoding), complete=True) == "Grüße"


def test_validators_change_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    old = Version.of(file.stat())
    os.utime(file, ns=(1, 1))
    new = Version.of(file.stat())
    assert old.etag != new.etag
    assert old.is_known(f'W/{old.etag}, "x"', None)
    assert old.is_known("*", None)
    assert not old.is_known(new.etag, old.last_modified)
    assert old.is_known(None, old.last_modified)
    assert not old.is_known(None, new.last_modified)
    assert not old.is_known(None, "yesterday")
    assert old.allows_range(old.etag)
    assert old.allows_range(old.last_modified)
    assert old.allows_range(None)
    assert not old.allows_range(f"W/{old.etag}")
    assert not old.allows_range(new.last_modified)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (9000 << 40, "9000.0 TiB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert show_size(size) == text
