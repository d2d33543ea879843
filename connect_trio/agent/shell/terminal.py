"""Terminals: opening a pair, its size, and the modes that an SSH client asks for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Iterator, Mapping

import attrs

from connect_trio.channels.messages import Pty, Size

# RFC 4254, section 8: opcode -> name in termios.
_CHARACTERS = ("VINTR", "VQUIT", "VERASE", "VKILL", "VEOF", "VEOL", "VEOL2", "VSTART", "VSTOP", "VSUSP", "VDSUSP")
_INPUT = (
    "IGNPAR",
    "PARMRK",
    "INPCK",
    "ISTRIP",
    "INLCR",
    "IGNCR",
    "ICRNL",
    "IUCLC",
    "IXON",
    "IXANY",
    "IXOFF",
    "IMAXBEL",
)
_LOCAL = ("ISIG", "ICANON", "XCASE", "ECHO", "ECHOE", "ECHOK", "ECHONL", "NOFLSH", "TOSTOP", "IEXTEN", "ECHOCTL")
CHARACTERS = dict(
    enumerate((*_CHARACTERS, "VREPRINT", "VWERASE", "VLNEXT", "VFLUSH", "VSWTC", "VSTATUS", "VDISCARD"), 1)
)
INPUT = dict(enumerate((*_INPUT, "IUTF8"), 30))
LOCAL = dict(enumerate((*_LOCAL, "ECHOKE", "PENDIN"), 50))
OUTPUT = dict(enumerate(("OPOST", "OLCUC", "ONLCR", "OCRNL", "ONOCR", "ONLRET"), 70))
CONTROL = {92: "PARENB", 93: "PARODD"}
CS7, CS8 = 90, 91
INPUT_SPEED, OUTPUT_SPEED = 128, 129

IUTF8 = 0x4000  # Linux; Python 3.11 has no name for it
DISABLED = 255  # RFC 4254: this character is not used
CFLAG, CC = 2, 6  # places in what tcgetattr returns


@attrs.frozen
class Terminal:
    """A new terminal: descriptors of its two sides, and where its slave side is."""

    master: int
    slave: int
    path: str


def open_terminal(pty: Pty) -> Terminal:
    """A terminal as asked for. Raises OSError."""
    master, slave = os.openpty()
    try:
        set_modes(slave, pty.modes)
        set_size(master, pty.size)
        return Terminal(master, slave, os.ttyname(slave))
    except BaseException:
        os.close(master)
        os.close(slave)
        raise


def set_size(fd: int, size: Size) -> None:
    """Who runs in the foreground there gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, size.width, size.height))


def set_modes(fd: int, modes: Mapping[int, int]) -> None:
    """What this system does not know is left as it is."""
    attributes = termios.tcgetattr(fd)
    for place, table in enumerate((INPUT, OUTPUT, CONTROL, LOCAL)):
        for opcode in table.keys() & modes.keys():
            flag = getattr(termios, table[opcode], IUTF8 if table[opcode] == "IUTF8" else 0)
            attributes[place] = attributes[place] | flag if modes[opcode] else attributes[place] & ~flag
    if modes.get(CS8):
        attributes[CFLAG] = attributes[CFLAG] & ~termios.CSIZE | termios.CS8
    elif modes.get(CS7):
        attributes[CFLAG] = attributes[CFLAG] & ~termios.CSIZE | termios.CS7
    for place, opcode in ((4, INPUT_SPEED), (5, OUTPUT_SPEED)):
        attributes[place] = getattr(termios, f"B{modes.get(opcode, '')}", attributes[place])
    for place, value in _characters(modes):
        attributes[CC][place] = value
    with contextlib.suppress(termios.error):  # a combination that it does not take
        termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _characters(modes: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
    for opcode in CHARACTERS.keys() & modes.keys():
        place = getattr(termios, CHARACTERS[opcode], None)
        if place is not None:
            yield place, bytes((0 if modes[opcode] == DISABLED else modes[opcode] & 0xFF,))
