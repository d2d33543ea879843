"""Settings from environment variables: declared once, read with all errors at once, described for operators.

A settings class is a frozen attrs class whose fields are made by `variable`. Defaults are written as an operator
would write them and go through the same converter as a value from the environment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from connect_trio.logs import printable

Convert = Callable[[str], Any]
T = TypeVar("T")

_METADATA: Final = "connect_trio.variable"
_SECRET = "***"  # noqa: S105 - what is shown instead of one
_LONGEST_SHOWN = 80
_LONGEST_FILE = 64 * 1024  # characters of a file with a secret
_BEFORE_AT = re.compile(r".*@", re.DOTALL)

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
    meaning: one sentence. blank: whether it says something when it is set and empty.
    """

    name: str
    convert: Convert
    default: str | None
    required: bool
    secret: bool
    addition: bool
    meaning: str
    blank: bool = False


def variable(
    name: str,
    convert: Convert,
    *,
    default: str | None = None,
    required: bool = False,
    secret: bool = False,
    addition: bool = False,
    meaning: str,
    blank: bool = False,
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
        blank=blank,
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


@attrs.frozen(kw_only=True)
class Row:
    """A variable as it stands.

    source: "environment", "default", "file" (that of a secret whose text a file holds) or "-", which is nowhere.

    value: as it was written, on one line, secrets masked; empty if there is none. wrong: whether an error names it.
    """

    name: str
    value: str
    source: str
    wrong: bool


@attrs.frozen(kw_only=True)
class Found:
    """What an environment says about one settings class.

    values: by field. texts: by variable, of those that are set. files: by variable, the paths of files that hold
    secrets. errors: lines, as in ConfigError.
    """

    values: dict[str, object]
    texts: dict[str, str]
    files: dict[str, str]
    errors: list[str]

    def rows(self, cls: type[Any]) -> list[Row]:
        """Of each variable, in the order of the fields."""
        named = {line.split()[0] for line in self.errors}
        rows = []
        for _, spec in variables(cls):
            text = self.texts.get(spec.name, spec.default) or ""
            shown = _SECRET if spec.secret and text else printable(text, _LONGEST_SHOWN)
            if spec.name in self.files:
                shown += f" ({printable(self.files[spec.name], _LONGEST_SHOWN)})"
            wrong = spec.name in named or file_of(cls, spec) in named
            rows.append(Row(name=spec.name, value=shown, source=self._source(spec), wrong=wrong))
        return rows

    def _source(self, spec: Variable) -> str:
        if spec.name in self.files:
            return "file"
        return "environment" if spec.name in self.texts else "default" if spec.default else "-"


def file_of(cls: type[Any], spec: Variable) -> str | None:
    """The variable that may name a file with the value of `spec`: every secret has one. None: there is none, or it is
    a variable of its own, with rules of its own."""
    name = f"{spec.name}_FILE"
    return name if spec.secret and all(other.name != name for _, other in variables(cls)) else None


def names(cls: type[Any]) -> Iterator[str]:
    """Every variable that is read for a settings class."""
    for _, spec in variables(cls):
        yield spec.name
        file = file_of(cls, spec)
        if file is not None:
            yield file


def look(cls: type[Any], environ: Mapping[str, str]) -> Found:
    """Read the variables of a settings class, with all that is wrong about them.

    A variable that is empty counts as not set, unless it is `blank`. A static method `problems(given)` of the class, if
    there is one, answers with further error lines, each beginning with a variable; `given` are the names of those that
    are set. So does one `conflicts(values, given)`; `values` are those that are right, by field.
    """
    found = Found(values={}, texts={}, files={}, errors=[])
    for field, spec in variables(cls):
        file = file_of(cls, spec)
        try:
            _take(spec, file, environ, found)
        except ValueError as exc:
            found.errors.append(str(exc))
            continue
        text = found.texts.get(spec.name, spec.default)
        if text is not None:
            try:
                found.values[field] = spec.convert(text)
            except ValueError as exc:
                found.errors.append(_error_line(spec, text, exc))
        elif spec.required:
            found.errors.append(f"{spec.name} is not set; set it: {spec.meaning}")
    problems = getattr(cls, "problems", None)
    if problems is not None:
        found.errors.extend(problems(set(found.texts)))
    conflicts = getattr(cls, "conflicts", None)
    if conflicts is not None:
        found.errors.extend(conflicts(found.values, set(found.texts)))
    return found


def _take(spec: Variable, file: str | None, environ: Mapping[str, str], found: Found) -> None:
    """Raises ValueError with a line."""
    text = environ.get(spec.name, "").strip()
    path = environ.get(file, "").strip() if file is not None else ""
    if text and path:
        raise ValueError(f"{spec.name} and {file} are both set; set only one of them")
    if path:
        found.files[spec.name] = path
        text = _content(path, f'{file} is "{printable(path, _LONGEST_SHOWN)}"')
    if text or (spec.blank and spec.name in environ):
        found.texts[spec.name] = text


def _content(path: str, what: str) -> str:
    """The text of a file, spaces around it left out. Raises ValueError."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE + 1).strip()
    except OSError as exc:
        raise ValueError(f"{what}: it cannot be read ({exc.strerror}); name a file that this process may read") from exc
    except ValueError as exc:
        raise ValueError(f"{what}: it is not text; name a file that holds nothing but the value") from exc
    if not text or len(text) > _LONGEST_FILE:
        raise ValueError(
            f"{what}: it is {'too long' if text else 'empty'}; name a file that holds nothing but the value"
        )
    return text


def load(cls: type[T], environ: Mapping[str, str], **fields: object) -> T:
    """Make settings of `environ`; `fields` are those that come from elsewhere (the command line).

    Raises ConfigError with all errors.
    """
    found = look(cls, environ)
    if found.errors:
        raise ConfigError(found.errors)
    return cls(**{**fields, **found.values})


def secret_texts(cls: type[Any], environ: Mapping[str, str]) -> Iterator[str]:
    """The secrets that an environment holds for a settings class, wherever they come from; of a list each one too."""
    texts = look(cls, environ).texts
    for _, spec in variables(cls):
        if spec.secret and spec.name in texts:
            yield texts[spec.name]
            yield from filter(None, re.split(r"[\s,]+", texts[spec.name]))


def _error_line(spec: Variable, text: str, exc: ValueError) -> str:
    """A secret is not shown, not even one that stands where none belongs: in front of the "@" of an address."""
    if spec.secret:
        return f"{spec.name} is (a secret): {str(exc).replace(text, _SECRET)}"
    shown = printable(_BEFORE_AT.sub(f"{_SECRET}@", text), _LONGEST_SHOWN)
    line = f'{spec.name} is "{shown}": {exc}'
    if _SERVICE_LINK_VALUE.match(text):
        line += " (Kubernetes set it for a service of that name; set enableServiceLinks: false in the pod)"
    return line


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
