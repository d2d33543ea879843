"""What is started for a session, and with which environment."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import attrs

from connect_trio.channels.messages import AgentSocket, Env, Exec, Pty, Shell, Subsystem

SFTP = "sftp"
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",  # Debian, Ubuntu
    "/usr/libexec/openssh/sftp-server",  # Fedora, RHEL
    "/usr/lib/ssh/sftp-server",  # Alpine, Arch, SUSE
    "/usr/libexec/sftp-server",  # macOS, BSD
)
NO_SHELLS = ("nologin", "false")
LAST_SHELL = "/bin/sh"

ACCEPTED = ("LANG", "LC_*", "COLORTERM", "NO_COLOR", "TZ", "GIT_PROTOCOL", "GIT_AUTHOR_*", "GIT_COMMITTER_*")
"""Names of variables that a client may set, as patterns."""

# Whoever may set these chooses what code runs, or speaks for us: a client may not, whatever is configured.
NEVER = (
    *("PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "SHELL", "HOME", "USER", "LOGNAME", "PS4"),
    *("LD_*", "DYLD_*", "PYTHON*", "PERL*", "RUBY*", "NODE_*", "SSH_*", "CONNECT_*", "TERM"),
)


class CannotRun(Exception):
    """It cannot be started; the text says why, for the user."""


@attrs.frozen(kw_only=True)
class Setup:
    """What sessions of this Studio are like.

    environ: their environment, without secrets. folder: where they begin. shell, sftp_server: programs to use instead
    of those that are found. accepted: patterns of variables that clients may set.
    """

    environ: Mapping[str, str]
    folder: Path
    shell: Path | None = None
    sftp_server: Path | None = None
    accepted: tuple[str, ...] = ACCEPTED


@attrs.define
class Order:
    """What a session is asked to be, as the proxy says it."""

    pty: Pty | None = None
    env: list[Env] = attrs.field(factory=list)
    agent: AgentSocket | None = None
    start: Shell | Exec | Subsystem | None = None


def program_of(order: Order, setup: Setup) -> list[str | bytes]:
    """The program of an order and its arguments. Raises CannotRun."""
    match order.start:
        case Exec(command=command):
            return [shell_of(setup), "-c", command]
        case Subsystem(name="sftp"):
            return [sftp_server_of(setup)]
        case Subsystem(name=name):
            raise CannotRun(f"there is no subsystem {name} here, only {SFTP}")
        case _:
            return [shell_of(setup), "-l"]


def shell_of(setup: Setup) -> str:
    """The user's shell. Raises CannotRun."""
    if setup.shell is not None:
        if not _runs(setup.shell):
            raise CannotRun(f"{setup.shell}, the shell of this Studio's settings, is not there or cannot be run")
        return str(setup.shell)
    for shell in (setup.environ.get("SHELL"), _user().shell, LAST_SHELL):
        if shell and shell.startswith("/") and Path(shell).name not in NO_SHELLS and _runs(Path(shell)):
            return shell
    raise CannotRun(f"there is no shell in this Studio's container, not even {LAST_SHELL}")


def sftp_server_of(setup: Setup) -> str:
    """OpenSSH's sftp-server. Raises CannotRun."""
    places = SFTP_SERVERS if setup.sftp_server is None else (str(setup.sftp_server),)
    for place in places:
        if _runs(Path(place)):
            return place
    raise CannotRun(
        f"no sftp-server in this Studio's container ({', '.join(places)}): install OpenSSH's, which Debian packages as "
        "openssh-sftp-server; scp -O and rsync do without"
    )


def environment_of(
    order: Order, setup: Setup, *, tty: str | None = None, agent: str | None = None, client: Mapping[str, str]
) -> dict[bytes, bytes]:
    """The environment of an order's process.

    tty: its terminal's path. agent: path of the forwarded SSH agent. client: metadata of the channel.
    """
    user = _user()
    env = {name: value for name, value in setup.environ.items() if not name.startswith("SSH_")}
    env.setdefault("HOME", user.home)
    env.setdefault("PATH", os.defpath)
    env.setdefault("USER", user.name)
    env.setdefault("LOGNAME", user.name)
    env["SHELL"] = shell_of(setup)
    there, here = client.get("client", ""), client.get("server", "")
    if len(there.split()) == len(here.split()) == 2:
        env |= {"SSH_CLIENT": f"{there} {here.split()[1]}", "SSH_CONNECTION": f"{there} {here}"}
    env.pop("TERM", None)
    if tty is not None and order.pty is not None:
        env |= {"SSH_TTY": tty, "TERM": order.pty.term}
    if agent is not None:
        env["SSH_AUTH_SOCK"] = agent
    whole = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    return whole | {os.fsencode(given.name): given.value for given in accepted(order.env, setup.accepted)}


def accepted(given: Iterable[Env], patterns: Iterable[str]) -> list[Env]:
    """Those variables that a client may set."""
    patterns = tuple(patterns)
    return [one for one in given if _matches(one.name, patterns) and not _matches(one.name, NEVER)]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@attrs.frozen
class _User:
    name: str
    home: str
    shell: str


def _user() -> _User:
    """Who we are. A container may run as a user that nobody has written down."""
    try:
        found = pwd.getpwuid(os.geteuid())
    except KeyError:
        return _User(str(os.geteuid()), "/", "")
    return _User(found.pw_name, found.pw_dir, found.pw_shell)
