"""Keys: the host's private one, and users' public ones as files have them."""

from __future__ import annotations

import logging
from typing import Final

import asyncssh
import attrs

from connect_trio.ssh.client import Key

KINDS: Final = ("ed25519", "ecdsa", "rsa")
_RSA: Final = 2048  # bits at least
_ALGORITHMS: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")

logger = logging.getLogger(__name__)


@attrs.frozen
class HostKey:
    """The key by which clients know this host again."""

    key: asyncssh.SSHKey = attrs.field(repr=False)

    @property
    def public(self) -> Key:
        return Key(self.key.public_data)

    @property
    def fingerprint(self) -> str:
        return self.public.fingerprint

    @property
    def line(self) -> str:
        """ "ssh-ed25519 AAAA..."."""
        return " ".join(self.key.export_public_key().decode().split()[:2])


def read_host_key(text: bytes) -> HostKey:
    """A private key in PEM (PKCS#1, SEC1, PKCS#8) or OpenSSH's format. Raises ValueError: what is wrong with it."""
    try:
        key = asyncssh.import_private_key(text)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError, TypeError) as exc:
        if "passphrase" in str(exc).lower():
            raise ValueError("the key has a passphrase; write it without one") from None
        raise ValueError(f"not a private key; give one of {', '.join(KINDS)}, in PEM or OpenSSH's format") from None
    algorithm = key.get_algorithm()
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"a key of the kind {algorithm} is of no use here; give one of {', '.join(KINDS)}")
    if algorithm == "ssh-rsa" and _bits(key) < _RSA:
        raise ValueError(f"an RSA key of {_bits(key)} bits is too short; give one of {_RSA} bits at least, or ed25519")
    return HostKey(key)


def _bits(key: asyncssh.SSHKey) -> int:
    """Of an RSA key; its public part ends with the modulus."""
    blob = Key(key.public_data).blob
    at, numbers = 0, list[bytes]()
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4])
        numbers.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return int.from_bytes(numbers[-1]).bit_length()


def make_host_key() -> tuple[HostKey, bytes]:
    """A new key, and its text for `read_host_key`."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="connect")
    return HostKey(key), key.export_private_key()


def read_public_keys(text: str) -> list[Key]:
    """The keys of a file like authorized_keys or id_ed25519.pub. Lines with options or other things are left out."""
    keys = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(Key(asyncssh.import_public_key(line.strip()).public_data))
        except (asyncssh.KeyImportError, ValueError) as exc:
            logger.debug("a line is no public key: %s", exc)
    return keys
