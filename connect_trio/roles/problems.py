"""What a role could not do, as lines for whoever started it. Imported only when something has gone wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator

from connect_trio.agent.client import TunnelRefused
from connect_trio.children import CannotStart
from connect_trio.config import ConfigError
from connect_trio.devplatform.server import CannotServe
from connect_trio.roles.dev_plan import CannotRun
from connect_trio.roles.listeners import CannotListen
from connect_trio.roles.proxy import StorageUnusable
from connect_trio.roles.trust import TlsUnusable
from connect_trio.routing.registry import RegistryUnavailable
from connect_trio.routing.shared_key import KeyUnusable
from connect_trio.ssh.hostkeys import HostKeyUnusable, HostKeyWrong

CANNOT_RUN, WRONG = 1, 2

EXPECTED = (
    CannotListen,
    CannotRun,
    CannotServe,
    CannotStart,
    ConfigError,
    HostKeyUnusable,
    KeyUnusable,
    RegistryUnavailable,
    StorageUnusable,
    TlsUnusable,
    TunnelRefused,
    OSError,
)
"""Errors that whoever runs us can mend; their text is all there is to say."""


def explain(error: BaseException) -> tuple[int, list[str]]:
    """The exit code, and a line for each error, groups taken apart. Anything unexpected is raised again, whole."""
    leaves = list(leaves_of(error))
    if not all(isinstance(leaf, EXPECTED) for leaf in leaves):
        raise error
    lines: dict[str, None] = {}  # each line once, in order
    for leaf in leaves:
        lines |= dict.fromkeys(leaf.lines if isinstance(leaf, ConfigError) else [text_of(leaf)])
    return WRONG if any(isinstance(leaf, ConfigError | HostKeyWrong) for leaf in leaves) else CANNOT_RUN, list(lines)


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error


def text_of(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        about = f"{error.filename}: " if error.filename else ""
        return f"{about}{error.strerror or os.strerror(error.errno)}"
    return str(error) or type(error).__name__
