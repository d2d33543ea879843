"""What the development stack needs for SSH: a host key that stays the same, and the keys that may come in."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from connect_trio.roles.dev_plan import CannotRun, DevOptions
from connect_trio.ssh.client import Key

_LONGEST: Final = 64 * 1024
_KINDS: Final = ("ssh-", "ecdsa-", "sk-")

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class SshFiles:
    """host_key: a private key. keys: public keys of alice, a line each."""

    host_key: Path
    fingerprint: str
    keys: tuple[str, ...]


def make_ssh_files(options: DevOptions, *, work: Path, environ: Mapping[str, str]) -> SshFiles:
    """Raises CannotRun."""
    host_key = _host_key(_state_folder(environ), work)
    return SshFiles(host_key=host_key, fingerprint=_fingerprint(host_key), keys=tuple(_authorized(options, environ)))


def _state_folder(environ: Mapping[str, str]) -> Path | None:
    """Where it outlives this run, so that clients do not complain of another key each time."""
    home, state = environ.get("HOME"), environ.get("XDG_STATE_HOME")
    if state:
        return Path(state) / "connect-trio"
    return Path(home) / ".local" / "state" / "connect-trio" if home else None


def _host_key(folder: Path | None, work: Path) -> Path:
    """Of our own, made when it is not there; its public part is beside it, so that nobody else needs to compute it."""
    for place in (folder, work):
        path = None if place is None else place / "dev_ssh_host_key"
        if path is None:
            continue
        try:
            if not (path.is_file() and path.with_suffix(".pub").is_file()):
                _make(path)
        except OSError as exc:
            logger.debug("no host key can be kept in %s: %s", place, exc)
        else:
            return path
    raise CannotRun(f"no SSH host key can be made in {work}")


def _make(path: Path) -> None:
    # Imported here, since it takes a while, and is needed once only.
    from connect_trio.roles.dev_report import replace_file
    from connect_trio.ssh.bridge_keys import make_host_key

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, text = make_host_key()
    replace_file(path, text.decode())
    replace_file(path.with_suffix(".pub"), key.line + "\n")


def _fingerprint(path: Path) -> str:
    line = path.with_suffix(".pub").read_text(encoding="utf-8")
    return Key(base64.b64decode(line.split()[1])).fingerprint


def _authorized(options: DevOptions, environ: Mapping[str, str]) -> list[str]:
    """Lines of public keys: of the file that was named, or of the user's own ones. Raises CannotRun."""
    named = options.authorized_key
    if named is not None:
        try:
            lines = _keys_of(named)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise CannotRun(f"--authorized-key {named} cannot be read ({reason})") from exc
        if not lines:
            raise CannotRun(f"--authorized-key {named}: there is no public key in it; name a file like id_ed25519.pub")
        return lines
    lines = []
    home = environ.get("HOME")
    for path in sorted((Path(home) / ".ssh").glob("*.pub")) if home else ():
        try:
            lines += _keys_of(path)
        except (OSError, ValueError) as exc:
            logger.debug("%s is left out: %s", path, exc)
    return lines


def _keys_of(path: Path) -> list[str]:
    """Raises OSError, ValueError."""
    with path.open(encoding="utf-8") as file:
        lines = [line.strip() for line in file.read(_LONGEST).splitlines()]
    return [line for line in lines if line.startswith(_KINDS) and "-cert-v01@" not in line.partition(" ")[0]]
