"""Processes of SSH users: in a session of their own, on a terminal or on pipes.

Processes are not reaped before we are done with them, so that the number of their group can belong to nobody else. They
are started from this thread, in one go: whoever is cancelled has either none or one that is known.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import Signals

import attrs
import trio

from connect_trio.agent.shell.descriptors import Descriptor
from connect_trio.agent.shell.programs import CannotRun
from connect_trio.agent.shell.terminal import Terminal, set_size
from connect_trio.channels.messages import Exit, ExitSignal, Size
from connect_trio.children import OPEN_FILES

HANGUP_GRACE = 2.0  # seconds from SIGHUP to SIGTERM
TERM_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
KILL_GRACE = 5.0  # seconds after SIGKILL
POLL = 0.05  # where the kernel cannot tell of an end

logger = logging.getLogger(__name__)

# RFC 4254, section 6.10.
_SENDABLE = ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
SIGNALS = {name: Signals[f"SIG{name}"] for name in _SENDABLE}
_NAMES = {int(number): name for name, number in SIGNALS.items()}

_JOBS = (Signals.SIGTSTP, Signals.SIGTTIN, Signals.SIGTTOU, Signals.SIGCONT)
_INHERITED = (Signals.SIGHUP, Signals.SIGINT, Signals.SIGQUIT, Signals.SIGTERM, Signals.SIGCHLD, *_JOBS)

# A program that closes every file that it could have open must not pay for our high limit; see children.py. With a
# terminal, the session's leader opens it itself: that makes it the controlling one.
_PIPES = 'ulimit -Sn "$1" 2>/dev/null; shift; exec "$@"'
_TERMINAL = 'ulimit -Sn "$1" 2>/dev/null; t=$2; shift 2; exec <>"$t" >&0 2>&0; exec "$@"'


@attrs.define(eq=False)
class Process:
    """A running process; `end` must be called. stdin and stdout are the same where it has a terminal."""

    _popen: subprocess.Popen[bytes]
    stdin: Descriptor
    stdout: Descriptor
    stderr: Descriptor | None
    _exited: bool = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def terminal(self) -> bool:
        return self.stdin is self.stdout

    @property
    def exited(self) -> bool:
        if not self._exited:
            self._exited = self._look() is not None
        return self._exited

    def _look(self) -> os.waitid_result | None:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)

    async def wait(self) -> Exit | ExitSignal:
        """How it ended, once it has."""
        await self._wait()
        found = self._look()
        assert found is not None
        if found.si_code == os.CLD_EXITED:
            return Exit(found.si_status)
        name = _NAMES.get(found.si_status)
        if name is None:  # SSH has no name for it
            return Exit(128 + found.si_status)
        return ExitSignal(name, core_dumped=found.si_code == os.CLD_DUMPED)

    async def _wait(self) -> None:
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, an old one, or out of files
            descriptor = -1
        try:
            while not self.exited:
                if descriptor < 0:
                    await trio.sleep(POLL)
                else:
                    await trio.lowlevel.wait_readable(descriptor)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def signal(self, name: str) -> None:
        """To the foreground of its terminal, or to its group. Unknown names are none of ours, and left out."""
        number = SIGNALS.get(name)
        if number is not None and self._popen.returncode is None:
            self._signal_group(number, self._foreground())

    def resize(self, size: Size) -> None:
        if self.terminal and self.stdin.fileno() >= 0:
            with contextlib.suppress(OSError):
                set_size(self.stdin.fileno(), size)

    async def end(self) -> None:
        """See that it ends, by SIGHUP, SIGTERM and SIGKILL for its group. Does its work when cancelled, too.

        What has left the group goes on, and so does what ignores SIGHUP when the process itself ends by it.
        """
        with trio.CancelScope(shield=True):
            running = not self.exited
            self._close()
            for number, grace in ((Signals.SIGHUP, HANGUP_GRACE), (Signals.SIGTERM, TERM_GRACE)):
                if not running:
                    break
                # The kernel hangs up a terminal that is closed. A second hang-up would end a shell before it has told
                # its jobs of the first.
                if number is not Signals.SIGHUP or not self.terminal:
                    self._signal_group(number)
                    self._signal_group(Signals.SIGCONT)  # what is stopped would not see it
                with trio.move_on_after(grace):
                    await self._wait()
                running = not self.exited
            if running:
                self._signal_group(Signals.SIGKILL)
                with trio.move_on_after(KILL_GRACE):
                    await self._wait()
            if self.exited:
                self._popen.wait()
            else:  # stuck in the kernel, in front of a dead network disk perhaps
                logger.warning("a process cannot be killed", extra={"pid": self.pid})

    def _foreground(self) -> int | None:
        """The group in the foreground of its terminal, if it has one."""
        if not self.terminal:
            return None
        try:
            return os.tcgetpgrp(self.stdin.fileno()) or None
        except OSError:
            return None

    def _signal_group(self, number: Signals, group: int | None = None) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group or self.pid, number)

    def _close(self) -> None:
        """Close our ends of its pipes or of its terminal, which hangs that up."""
        for descriptor in (self.stdin, self.stdout, self.stderr):
            if descriptor is not None:
                descriptor.close()


def start_process(
    program: Sequence[str | bytes], *, env: Mapping[bytes, bytes], folder: Path, terminal: Terminal | None = None
) -> Process:
    """Start a program in a session of its own, on a terminal or on three pipes. Raises CannotRun.

    terminal: its sides are used up, whatever happens.
    """
    try:
        if terminal is not None:
            return _start_on_terminal(program, env, folder, terminal)
        return _start_on_pipes(program, env, folder)
    except (OSError, subprocess.SubprocessError) as exc:
        raise CannotRun(_reason(exc, folder)) from exc


def _start_on_terminal(
    program: Sequence[str | bytes], env: Mapping[bytes, bytes], folder: Path, terminal: Terminal
) -> Process:
    master = Descriptor(terminal.master)
    try:
        wrapper = ("/bin/sh", "-c", _TERMINAL, "sh", str(OPEN_FILES), terminal.path)
        popen = _popen((*wrapper, *program), env, folder, subprocess.DEVNULL, terminal.slave, terminal.slave)
    except BaseException:
        master.close()
        raise
    finally:
        os.close(terminal.slave)
    return Process(popen, master, master, None)


def _start_on_pipes(program: Sequence[str | bytes], env: Mapping[bytes, bytes], folder: Path) -> Process:
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

        def pipe(*, writing: bool) -> tuple[Descriptor, int]:
            """Our end of a new pipe, and the process's."""
            ends = os.pipe()
            mine, other = ends[::-1] if writing else ends
            theirs.callback(os.close, other)
            descriptor = Descriptor(mine)
            ours.callback(descriptor.close)
            return descriptor, other

        stdin, child_stdin = pipe(writing=True)
        stdout, child_stdout = pipe(writing=False)
        stderr, child_stderr = pipe(writing=False)
        wrapper = ("/bin/sh", "-c", _PIPES, "sh", str(OPEN_FILES))
        popen = _popen((*wrapper, *program), env, folder, child_stdin, child_stdout, child_stderr)
        ours.pop_all()
        return Process(popen, stdin, stdout, stderr)


def _popen(
    command: Sequence[str | bytes], env: Mapping[bytes, bytes], folder: Path, stdin: int, stdout: int, stderr: int
) -> subprocess.Popen[bytes]:
    with _nothing_ignored():
        return subprocess.Popen(  # noqa: S603 - what runs is the user's own business
            command, env=env, cwd=folder, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )


@contextlib.contextmanager
def _nothing_ignored() -> Iterator[None]:
    """For what is started: it would inherit what is ignored here, and whoever starts us in the background has SIGINT
    ignored. What is handled is not inherited."""
    ignored = [number for number in _INHERITED if signal.getsignal(number) is signal.SIG_IGN]
    try:
        for number in ignored:
            signal.signal(number, lambda *_: None)
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _reason(exc: Exception, folder: Path) -> str:
    if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
        return "the Studio's agent has too many files open; try again later"
    if isinstance(exc, OSError) and exc.errno in (errno.EAGAIN, errno.ENOMEM):
        return "the Studio's container has no room for another process; try again later"
    if not folder.is_dir():
        return f"the Studio's folder {folder} is not there"
    return f"the process cannot be started: {exc}"
