"""Where the host key comes from."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from connect_trio.ssh.bridge_keys import make_host_key, read_host_key, read_public_keys
from connect_trio.ssh.hostkeys import FILE, HostKeyUnusable, host_key_from
from tests.support.ssh import client, keygen, run

FORMATS = [
    ("ed25519", ()),
    ("ecdsa", ("-b", "256")),
    ("ecdsa", ("-b", "384", "-m", "PEM")),
    ("ecdsa", ("-b", "521", "-m", "PKCS8")),
    ("rsa", ("-b", "3072")),
    ("rsa", ("-b", "2048", "-m", "PEM")),
    ("rsa", ("-b", "2048", "-m", "PKCS8")),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS)
async def test_keys_of_all_kinds_and_formats(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    path = keygen(tmp_path / "key", kind, *options)
    key = host_key_from(path, None, tmp_path / "unused")
    shown = await run([client("ssh-keygen"), "-lf", str(path)], folder=tmp_path)
    assert key.fingerprint == shown.out.decode().split()[1]
    assert host_key_from(None, path.read_bytes(), tmp_path / "unused").fingerprint == key.fingerprint


def test_the_file_wins_over_the_value(tmp_path: Path) -> None:
    path = keygen(tmp_path / "key")
    assert host_key_from(path, b"nonsense", tmp_path).line == " ".join((tmp_path / "key.pub").read_text().split()[:2])


def test_one_of_our_own_is_kept_for_this_user_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = tmp_path / "new" / "storage"
    first = host_key_from(None, None, storage)
    assert "all proxies must have the same one" in caplog.text
    caplog.clear()
    assert host_key_from(None, None, storage).fingerprint == first.fingerprint
    assert not caplog.records
    assert stat.S_IMODE((storage / FILE).stat().st_mode) == 0o600
    assert [path.name for path in storage.iterdir()] == [FILE]


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"\xff" * 100])
def test_what_is_no_key_is_told_in_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)
    for given_path, value, names in (
        (path, None, f"CONNECT_SSH_KEY_PATH={path}: not a private key"),
        (None, text, "CONNECT_SSH_KEY_VALUE_BASE64: not a private key"),
    ):
        with pytest.raises(HostKeyUnusable) as caught:
            host_key_from(given_path, value, tmp_path)
        assert names in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_public_key_is_no_host_key(tmp_path: Path) -> None:
    keygen(tmp_path / "key")
    with pytest.raises(HostKeyUnusable, match="not a private key"):
        host_key_from(tmp_path / "key.pub", None, tmp_path)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = keygen(tmp_path / "key", "ed25519")
    subprocess.run([client("ssh-keygen"), "-q", "-p", "-N", "secret", "-f", path], check=True, capture_output=True)
    with pytest.raises(HostKeyUnusable, match="has a passphrase; write it without one"):
        host_key_from(path, None, tmp_path)


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    path = keygen(tmp_path / "key", "rsa", "-b", "1024")
    with pytest.raises(HostKeyUnusable, match="an RSA key of 1024 bits is too short"):
        host_key_from(path, None, tmp_path)


def test_a_storage_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    storage = tmp_path / "file"
    storage.write_text("")
    with pytest.raises(HostKeyUnusable, match="let this process write there, or set CONNECT_SSH_KEY_PATH"):
        host_key_from(None, None, storage)


def test_a_key_that_was_made_can_be_read_and_shows_nothing_of_itself() -> None:
    key, text = make_host_key()
    assert read_host_key(text).fingerprint == key.fingerprint
    assert "PRIVATE" not in repr(key)
    assert str(key.key) not in repr(key)


def test_public_keys_of_files(tmp_path: Path) -> None:
    keygen(tmp_path / "one")
    keygen(tmp_path / "two", "ecdsa")
    lines = (tmp_path / "one.pub").read_text() + "# comment\n\nnonsense\n" + (tmp_path / "two.pub").read_text()
    assert [key.algorithm for key in read_public_keys(lines)] == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
