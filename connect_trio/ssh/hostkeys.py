"""Where the host key comes from: a file, a value, or one of our own that is kept."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Final

from connect_trio.ssh.bridge_keys import HostKey, make_host_key, read_host_key

FILE: Final = "ssh_host_ed25519_key"
_LONGEST: Final = 64 * 1024

logger = logging.getLogger(__name__)


class HostKeyUnusable(Exception):
    """The SSH host key cannot be used; the text says which, and how to mend it."""


class HostKeyWrong(HostKeyUnusable):
    """The settings name what is no host key."""


def host_key_from(path: Path | None, value: bytes | None, storage: Path) -> HostKey:
    """The key of a file, else of a value, else the one kept in `storage`, which is made if need be.

    Raises HostKeyUnusable, and HostKeyWrong for what the settings say, which name the variable that each comes from.
    """
    if path is not None:
        try:
            return _read(path, f"CONNECT_SSH_KEY_PATH={path}")
        except HostKeyUnusable as exc:
            raise HostKeyWrong(str(exc)) from exc
    if value is not None:
        try:
            return read_host_key(value)
        except ValueError as exc:
            raise HostKeyWrong(f"CONNECT_SSH_KEY_VALUE_BASE64: {exc}") from exc
    return kept_key(storage)


def kept_key(storage: Path) -> HostKey:
    """The key in this folder, made if it is not there yet. Raises HostKeyUnusable."""
    path = storage / FILE
    if not path.exists():
        _make(path)
        logger.warning(
            "an SSH host key was made; all proxies must have the same one, or clients refuse to connect: "
            "set CONNECT_SSH_KEY_PATH or CONNECT_SSH_KEY_VALUE_BASE64 where there are several",
            extra={"file": str(path)},
        )
    return _read(path, f"the SSH host key {path}")


def _read(path: Path, what: str) -> HostKey:
    try:
        with path.open("rb") as file:
            return read_host_key(file.read(_LONGEST))
    except OSError as exc:
        raise HostKeyUnusable(f"{what} cannot be read ({exc.strerror}): let this process read it") from exc
    except ValueError as exc:
        raise HostKeyUnusable(f"{what}: {exc}") from exc


def _make(path: Path) -> None:
    """Write a new key as a whole, or leave the one that somebody else has written meanwhile."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make_host_key()[1])
                file.flush()
                os.fsync(descriptor)
            try:
                os.link(draft, path)
            except FileExistsError:
                logger.debug("another process has made the SSH host key")
        finally:
            draft.unlink(missing_ok=True)
    except OSError as exc:
        raise HostKeyUnusable(
            f"no SSH host key can be kept at {path} ({exc.strerror}): let this process write there, or set "
            "CONNECT_SSH_KEY_PATH"
        ) from exc
