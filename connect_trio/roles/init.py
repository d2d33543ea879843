"""The first process of a container: it passes signals on, and reaps what nobody else waits for.

An image that embeds the agent mostly starts it as process 1, which inherits every daemon whose parent has ended (a
user's `nohup`, the servers that VS Code leaves behind). A process 1 that does not wait for these keeps one zombie for
each until the container has no process ids left. The agent waits for its own children only; so it gets a process of its
own, and process 1 does nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_PASSED_ON = {
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
}
_HEEDED = {signal.SIGCHLD, *_PASSED_ON}


def under_init(run: Callable[[], int]) -> int:
    """What `run` returns; in a child of ours if we are process 1."""
    return run_with_init(run) if os.getpid() == 1 else run()


def run_with_init(run: Callable[[], int]) -> int:
    """Call `run` in a child, and be its init until it ends; its exit code, or 128 and the number of its last signal.

    Must be called before there is any other thread. What else lives then is ended by the kernel, as with any process 1.
    """
    # Signals wait from before there is a child until it can be told of them: none is lost, and none interrupts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return run()
    while True:
        told = signal.sigwaitinfo(_HEEDED)
        if told.si_signo != signal.SIGCHLD:
            # What the kernel sends (Ctrl-C at the container's terminal), it has sent to the child as well.
            if told.si_code <= 0:
                os.kill(child, told.si_signo)
            continue
        code = _reap(child)
        if code is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return code


def _reap(child: int) -> int | None:
    """Take away all that has ended; the exit code of `child` if it is among that."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended
