"""SSH keys as users paste them, and as clients show them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_trio.devplatform.ssh_keys import SshKeys, blob_kind, decode_blob, fingerprint, parse_line


def blob(seed: int = 0, kind: bytes = b"ssh-ed25519") -> bytes:
    return len(kind).to_bytes(4) + kind + (32).to_bytes(4) + bytes([seed]) * 32


def line(seed: int = 0, comment: str = "me@laptop") -> str:
    return f"ssh-ed25519 {base64.b64encode(blob(seed)).decode()} {comment}".strip()


def test_a_line_of_openssh_is_read() -> None:
    key = parse_line("  " + line(comment="me on my laptop") + "\n")
    assert (key.kind, key.blob, key.comment) == ("ssh-ed25519", blob(), "me on my laptop")
    assert parse_line(line(comment="")).comment == ""


def test_fingerprints_are_those_of_ssh_keygen() -> None:
    # ssh-keygen -lf on the line with this key
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    assert fingerprint(decode_blob(key)) == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "one line"),
        ("ssh-ed25519", "one line"),
        (line() + "\n" + line(1), "one line"),
        ("ssh-dss AAAA", "ssh-keygen"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-keygen"),
        ("ssh-ed25519 not-base64!", "base64"),
        ("ssh-ed25519 AAAA", "too short"),
        ("ssh-rsa " + base64.b64encode(blob()).decode(), "damaged"),
        ("ssh-ed25519 " + base64.b64encode(blob() + b"x" * 5000).decode(), "too long"),
    ],
)
def test_what_is_no_key_is_refused_with_what_mends_it(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_line(text)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda b: "ssh-ed25519 " + base64.b64encode(b).decode()))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        key = parse_line(text)
    except ValueError:
        return
    assert blob_kind(key.blob) == key.kind


def test_a_key_belongs_to_whoever_added_it() -> None:
    keys = SshKeys()
    keys.add("alice", line())
    keys.add("alice", line(comment="again"))
    assert [key.comment for key in keys.of("alice")] == ["again"]
    assert keys.has("alice", blob())
    assert not keys.has("bob", blob())
    assert not keys.has("alice", blob(1))
    keys.remove("bob", fingerprint(blob()))
    assert keys.has("alice", blob())
    keys.remove("alice", fingerprint(blob()))
    assert not keys.has("alice", blob())


def test_nobody_has_more_than_twenty_keys() -> None:
    keys = SshKeys()
    for seed in range(20):
        keys.add("alice", line(seed))
    keys.add("alice", line(3))
    with pytest.raises(ValueError, match="remove one"):
        keys.add("alice", line(20))
