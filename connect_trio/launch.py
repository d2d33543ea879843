"""Become another program, one that the kernel signals when its parent dies: `launch.py SIGNAL PARENT FILES COMMAND...`.

FILES is its soft limit of open files.

Run as a script by `connect_trio.children`, and not from between fork and exec, where hardly anything is safe. So a
parent that is killed outright leaves no orphan behind. Only Linux can do this; elsewhere it is a plain exec.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; an exec keeps it

CANNOT_RUN = 127
"""The exit code when the program cannot be run, as in a shell."""


def main(arguments: list[str]) -> int:
    """Returns only when the program cannot be run."""
    signal_number, parent, files, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        return CANNOT_RUN  # it died before we could ask for the signal
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), hard))
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell: the arguments arrive as they are
    except OSError as exc:
        print(f"cannot run {command[0]}: {exc.strerror}", file=sys.stderr)
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
