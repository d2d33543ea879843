"""What the ends of a session channel say to each other, as objects, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

MAX_DATA = 65536  # bytes of a DATA or STDERR frame
MAX_COMMAND = 65536
MAX_VALUE = 4096  # bytes of the value of an environment variable
MAX_NAME = 64  # of an environment variable, a terminal, a subsystem, a signal
MAX_PATH = 512
MAX_TEXT = 512  # characters of a reason or message, up to four bytes each
MAX_WINDOW = 1 << 24  # bytes that may be granted and not yet sent


class ChannelError(Exception):
    """The other end breaks the protocol; one line says how. The stream is reset."""


def one_line(text: str) -> str:
    """A text as it may travel: printable, and cut where it is too long."""
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_TEXT]


@attrs.frozen
class Size:
    """Of a terminal, in characters, and in pixels where these are known (else 0)."""

    columns: int = 80
    rows: int = 24
    width: int = 0
    height: int = 0


@attrs.frozen
class Pty:
    """Proxy: the session is to have a terminal. modes: opcode -> value, as in RFC 4254, section 8."""

    term: str
    size: Size
    modes: Mapping[int, int] = attrs.field(factory=dict)


@attrs.frozen
class Env:
    """Proxy: an environment variable. What the agent does not allow it leaves out, without a word."""

    name: str
    value: bytes


@attrs.frozen
class AgentSocket:
    """Proxy: the forwarded SSH agent is the listener at this path, one of the network "agent"; docs/control.md."""

    path: str


@attrs.frozen
class Shell:
    """Proxy: start a login shell."""


@attrs.frozen
class Exec:
    """Proxy: start a command, by the user's shell."""

    command: bytes


@attrs.frozen
class Subsystem:
    """Proxy: start a subsystem, such as "sftp"."""

    name: str


@attrs.frozen
class Resize:
    """Proxy: the terminal has another size."""

    size: Size


@attrs.frozen
class Signal:
    """Proxy: a signal for the process. name: without "SIG", as in RFC 4254, section 6.10."""

    name: str


@attrs.frozen
class Data:
    """Bytes of stdin (proxy) or stdout (agent), 1 to MAX_DATA; counted by the window."""

    data: bytes


@attrs.frozen
class Stderr:
    """Agent: bytes of stderr, 1 to MAX_DATA; counted by the same window as stdout."""

    data: bytes


@attrs.frozen
class Eof:
    """No more DATA (nor STDERR) comes from this end."""


@attrs.frozen
class Window:
    """The other end may send so many bytes of DATA and STDERR in addition."""

    count: int


@attrs.frozen
class Started:
    """Agent: the process runs."""


@attrs.frozen
class Failed:
    """Agent: it cannot be started. Nothing follows."""

    reason: str = attrs.field(converter=one_line)


@attrs.frozen
class Exit:
    """Agent: the process has ended, with this status (0 to 255). Nothing follows."""

    status: int


@attrs.frozen
class ExitSignal:
    """Agent: a signal has ended the process. name: without "SIG". Nothing follows."""

    name: str
    core_dumped: bool = False
    message: str = attrs.field(default="", converter=one_line)


Frame = (
    Pty
    | Env
    | AgentSocket
    | Shell
    | Exec
    | Subsystem
    | Resize
    | Signal
    | Data
    | Stderr
    | Eof
    | Window
    | Started
    | Failed
    | Exit
    | ExitSignal
)
