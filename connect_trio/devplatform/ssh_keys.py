"""SSH public keys of users (RFC 4253 section 6.6): added as OpenSSH writes them, found by what a client shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import attrs

_KINDS: Final = frozenset(
    (
        *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"),
        *("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
    )
)
MAX_BLOB: Final = 4096  # bytes; an RSA key of 16,384 bits has 2,071
_MAX_KEYS = 20
_MAX_COMMENT = 100


@attrs.frozen(kw_only=True)
class SshKey:
    """blob: the key as it is on the wire. comment: for people to read."""

    kind: str
    blob: bytes
    comment: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.blob)


class SshKeys:
    """The keys of all users, at most 20 of each."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, SshKey]] = {}

    def of(self, username: str) -> list[SshKey]:
        return list(self._keys.get(username, {}).values())

    def add(self, username: str, line: str) -> SshKey:
        """Add a key of an existing user: a line of `~/.ssh/*.pub`. Raises ValueError, which says how to mend it."""
        key = parse_line(line)
        keys = self._keys.setdefault(username, {})
        if len(keys) >= _MAX_KEYS and key.fingerprint not in keys:
            raise ValueError(f"You have {_MAX_KEYS} keys already; remove one first.")
        keys[key.fingerprint] = key
        return key

    def remove(self, username: str, fingerprint: str) -> None:
        self._keys.get(username, {}).pop(fingerprint, None)

    def has(self, username: str, blob: bytes) -> bool:
        return any(key.blob == blob for key in self.of(username))


def fingerprint(blob: bytes) -> str:
    """As OpenSSH prints it: "SHA256:..."."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()


def parse_line(line: str) -> SshKey:
    """ "ssh-ed25519 AAAA... comment". Raises ValueError."""
    fields = line.strip().split(maxsplit=2)
    if len(fields) < 2 or "\n" in line.strip():
        raise ValueError("That is no public key; paste the one line of a file like ~/.ssh/id_ed25519.pub.")
    kind, encoded = fields[:2]
    comment = "".join(c for c in fields[2] if c.isprintable()) if len(fields) > 2 else ""
    if kind not in _KINDS:
        raise ValueError("Keys of this type are not accepted; make one with: ssh-keygen -t ed25519")
    blob = decode_blob(encoded)
    if blob_kind(blob) != kind:
        raise ValueError("The key is damaged; paste the whole line of the .pub file.")
    return SshKey(kind=kind, blob=blob, comment=comment[:_MAX_COMMENT])


def decode_blob(encoded: str) -> bytes:
    """The key of its base64. Raises ValueError."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("The key is not base64; paste the whole line of the .pub file.") from exc
    if not 4 < len(blob) <= MAX_BLOB:
        raise ValueError("The key is too short or too long; paste the whole line of the .pub file.")
    return blob


def blob_kind(blob: bytes) -> str:
    """The type that a key says of itself."""
    length = int.from_bytes(blob[:4])
    return blob[4 : 4 + length].decode("ascii", "replace")
