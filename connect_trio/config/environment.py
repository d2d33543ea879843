"""Settings from environment variables: declared once, read with all errors at once, described for operators.

A settings class is a frozen attrs class whose fields are made by `variable`. Defaults are written as an operator
would write them and go through the same converter as a value from the environment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs

from connect_trio.logs import printable

Convert = Callable[[str], Any]
T = TypeVar("T")

_METADATA: Final = "connect_trio.variable"
_SECRET = "***"  # noqa: S105 - what is shown instead of one
_LONGEST_SHOWN = 80

# Kubernetes puts the address of every service into the environment of every container; a service named
# "connect-proxy" gives names that look like ours.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP)(_(ADDR|PORT|PROTO))?$")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp)://")


class ConfigError(Exception):
    """The environment is wrong. lines: one per error, each with the variable, what is wrong and how to mend it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


@attrs.frozen(kw_only=True)
class Variable:
    """One environment variable of one role.

    default: as text; None if there is none. addition: whether it is ours rather than part of the operators' contract.
    meaning: one sentence.
    """

    name: str
    convert: Convert
    default: str | None
    required: bool
    secret: bool
    addition: bool
    meaning: str


def variable(
    name: str,
    convert: Convert,
    *,
    default: str | None = None,
    required: bool = False,
    secret: bool = False,
    addition: bool = False,
    meaning: str,
) -> Any:
    """An attrs field that is read from the variable `name`.

    convert: from text to the field's value; raises ValueError with a text that says what is wrong and how to mend it.
    """
    spec = Variable(
        name=name,
        convert=convert,
        default=default,
        required=required,
        secret=secret,
        addition=addition,
        meaning=meaning,
    )
    return attrs.field(
        default=attrs.NOTHING if required else attrs.Factory(lambda: None if default is None else convert(default)),
        repr=(lambda value: _SECRET if value else repr(value)) if secret else True,
        metadata={_METADATA: spec},
    )


def variables(cls: type[Any]) -> Iterator[tuple[str, Variable]]:
    """Field name and variable, for each field of a settings class that has one."""
    for field in attrs.fields(cls):
        if _METADATA in field.metadata:
            yield field.name, field.metadata[_METADATA]


def load(cls: type[T], environ: Mapping[str, str], **fields: object) -> T:
    """Make settings of `environ`; `fields` are those that come from elsewhere (the command line).

    A variable that is empty counts as not set. A static method `problems(given)` of the class, if there is one,
    answers with further error lines; `given` are the names of the variables that are set.
    Raises ConfigError with all errors.
    """
    values: dict[str, object] = dict(fields)
    given = {spec.name: text for _, spec in variables(cls) if (text := environ.get(spec.name, "").strip())}
    lines = []
    for field, spec in variables(cls):
        value = given.get(spec.name, spec.default)
        if value is not None:
            try:
                values[field] = spec.convert(value)
            except ValueError as exc:
                lines.append(_error_line(spec, value, exc))
        elif spec.required:
            lines.append(f"{spec.name} is not set; set it: {spec.meaning}")
    problems = getattr(cls, "problems", None)
    if problems is not None:
        lines += problems(set(given))
    if lines:
        raise ConfigError(lines)
    return cls(**values)


def _error_line(spec: Variable, text: str, exc: ValueError) -> str:
    shown = "(a secret)" if spec.secret else f'"{printable(text, _LONGEST_SHOWN)}"'
    line = f"{spec.name} is {shown}: {exc}"
    if _SERVICE_LINK_VALUE.match(text):
        line += " (Kubernetes set it for a service of that name; set enableServiceLinks: false in the pod)"
    return line


def describe(settings: object, environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(variable, value, source) of each variable; the source is "environment" or "default", secrets are masked."""
    rows = []
    for field, spec in variables(type(settings)):
        value = getattr(settings, field)
        shown = "" if value is None else _SECRET if spec.secret else _as_text(value)
        rows.append((spec.name, shown, "environment" if environ.get(spec.name, "").strip() else "default"))
    return rows


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def unknown_variables(environ: Mapping[str, str], *, known: Iterable[str], not_read: Iterable[str]) -> list[str]:
    """A warning for each variable CONNECT_* that nothing reads, with the name that was probably meant.

    known: the names that any role reads. not_read: names of the contract that this version does not read.
    """
    known, not_read = sorted(set(known)), set(not_read)
    lines = []
    for name in sorted(environ):
        if not name.startswith("CONNECT_") or name in known:
            continue
        if _SERVICE_LINK.search(name) or _SERVICE_LINK_VALUE.match(environ[name]):
            continue
        if name in not_read:
            lines.append(f"{name} is set, but this version does not read it")
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        hint = f"; did you mean {close[0]}?" if close else ""
        lines.append(f"{printable(name, _LONGEST_SHOWN)} is set, but no such variable is known{hint}")
    return lines
