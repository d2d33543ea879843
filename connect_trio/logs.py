"""Logs: one line per record on stderr, `time level role logger: message key=value ...`.

Modules log through the standard library and give facts as `extra={"session": ..., "reason": ...}`; these become the
key=value tail, after the connection id of the task (`connect_trio.context`). Peers choose some of what is logged, so
every part is escaped to one printable line and bounded, and what looks like a secret is masked.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TextIO

from connect_trio.context import connection_id

MESSAGE_LIMIT: Final = 2000
"""Characters of a message; of a value a tenth; of a traceback four times as many."""

MASK: Final = "***"

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_NAMES = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "ERROR"}

# coredis logs each failed attempt with a traceback; who called it says the same in one line.
_QUIET = {
    "coredis": logging.CRITICAL + 1,
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,
    "hypercorn": logging.WARNING,
}

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_KEY = re.compile(r"token|secret|password|authorization|cookie|credential|(?:^|_)(?:key|code|state)$", re.I)
_SECRET_TEXT = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(\b(?:token|secret|password|code|state|id_token_hint)=)[^\s&;,\"']+"),
    re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+(?=@)"),
    re.compile(r"()\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),  # a JWT
)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")  # of a public key, as OpenSSH prints it
_PLAIN = re.compile(r"[^\s\"'=]+")
_SHORTEST_SECRET = 6


def configure(level: str, *, role: str, secrets: Iterable[str | None] = (), stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr) in our format; replaces what was configured before.

    level: DEBUG, INFO, WARN or ERROR. secrets: values of the configuration that must never be seen; None and values of
    fewer than six characters are passed over. Raises ValueError for another level.
    """
    if level not in _LEVELS:
        raise ValueError(f"not a log level: {level!r}; one of {', '.join(_LEVELS)}")
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter(role=role, secrets=secrets))
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Change what `configure` has set. Raises ValueError for what is no level."""
    if level not in _LEVELS:
        raise ValueError(f"not a log level: {level!r}; one of {', '.join(_LEVELS)}")
    logging.getLogger().setLevel(_LEVELS[level])
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, _LEVELS[level]))


class LineFormatter(logging.Formatter):
    """Formats a record, exception included, as one printable line without secrets."""

    def __init__(self, *, role: str, secrets: Iterable[str | None] = ()) -> None:
        super().__init__()
        self._role = role
        self._secrets = sorted({s for s in secrets if s and len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        level = _NAMES.get(record.levelno, record.levelname)
        message = printable(self._masked(record.getMessage()), MESSAGE_LIMIT)
        line = f"{when} {level:5} {self._role} {record.name}: {message}"
        for key, value in self._facts(record):
            line += f" {key}={self._value(key, value)}"
        if record.exc_info:
            trace = self._masked(self.formatException(record.exc_info))
            line += f' traceback="{printable(trace, 4 * MESSAGE_LIMIT)}"'
        return line

    def _facts(self, record: logging.LogRecord) -> list[tuple[str, object]]:
        facts = [(key, value) for key, value in vars(record).items() if key not in _STANDARD and value is not None]
        connection = connection_id.get()
        if connection is not None:
            facts.insert(0, ("conn", connection))
        return facts

    def _value(self, key: str, value: object) -> str:
        if _SECRET_KEY.search(key) and not _FINGERPRINT.fullmatch(str(value)):
            return MASK
        text = printable(self._masked(str(value)), MESSAGE_LIMIT // 10)
        if _PLAIN.fullmatch(text):
            return text
        return '"' + text.replace('"', '\\"') + '"'

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for pattern in _SECRET_TEXT:
            text = pattern.sub(rf"\1{MASK}", text)
        return text


def printable(text: str, limit: int) -> str:
    """`text` on one line: control and other unprintable characters escaped, cut at `limit` characters."""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown + "…" if len(text) > limit else shown
