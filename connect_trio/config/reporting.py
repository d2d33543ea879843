"""What holds for a role: every variable with its value and where it comes from, and all that is wrong, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from connect_trio.config.environment import Row, look

_HEADS = ("variable", "source", "value")


@attrs.frozen(kw_only=True)
class Report:
    """rows: in the order of docs/configuration.md. errors, warnings: lines; without errors the role starts."""

    rows: list[Row]
    errors: list[str]
    warnings: list[str]

    def table(self) -> list[str]:
        """Lines in aligned columns: variable, source, value. No secret is in them."""
        cells = [_HEADS, *((row.name, row.source, _value(row)) for row in self.rows)]
        first, second = (max(len(line[column]) for line in cells) for column in (0, 1))
        return [f"{name:{first}}  {source:{second}}  {value}" for name, source, value in cells]


def report_on(cls: type[Any], environ: Mapping[str, str]) -> Report:
    """The report on one settings class."""
    found = look(cls, environ)
    warnings = [] if found.errors else settings_warnings(cls(**found.values))
    return Report(rows=found.rows(cls), errors=found.errors, warnings=warnings)


def settings_warnings(settings: object) -> list[str]:
    """What a role should tell of its settings, though it can run with them: the answers of their `warnings()`."""
    warnings = getattr(settings, "warnings", None)
    return [] if warnings is None else list(warnings())


def _value(row: Row) -> str:
    if row.wrong:
        return "(wrong)"
    return row.value or "(not set)"
