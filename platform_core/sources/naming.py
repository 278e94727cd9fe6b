"""Names of tables, columns and files at a source: checked, quoted, and suggested when one is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from sqlglot import exp

from platform_core.errors import SourceError

_LISTED = 20
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def known(what: str, name: str, names: Iterable[str]) -> str:
    """Lines for a message that say which names there are, and which one may have been meant."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_LISTED]) or "none"
    more = f", and {len(ordered) - _LISTED:,} more" if len(ordered) > _LISTED else ""
    lines = [f"  known {what}: {shown}{more}"]
    folded = {candidate.casefold(): candidate for candidate in ordered}
    if close := difflib.get_close_matches(name.casefold(), folded, n=1):
        lines.append(f"  did you mean '{folded[close[0]]}'?")
    return "\n".join(lines)


def check_columns(wanted: Iterable[str], names: Sequence[str], *, where: str) -> None:
    """Raise SourceError for the first wanted column that is not among the source's names."""
    for column in wanted:
        if column not in names:
            raise SourceError(f"{where} has no column '{column}'\n{known('columns', column, names)}")


def split_object(text: str, *, where: str) -> tuple[str | None, str]:
    """Schema and table of ``table``, ``schema.table`` or ``"a quoted name"."another"``.

    Raises:
        SourceError: the text is neither.
    """
    parts: list[str] = []
    position = 0
    while match := _PART.match(text, position):
        parts.append(match[1].replace('""', '"') if match[1] else match[2])
        position = match.end() + 1
        if match.end() == len(text):
            break
        if text[match.end()] != ".":
            parts.clear()
            break
    if position != len(text) + 1 or len(parts) not in (1, 2) or "\0" in text:
        raise SourceError(
            f"{where}: the object must be written table or schema.table\n"
            '  a part that holds a dot or a quote stands in double quotes: "odd.name"'
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def identifier(name: str) -> exp.Identifier:
    """A name for SQL, always quoted and never folded."""
    return exp.Identifier(this=name, quoted=True)


def column(name: str) -> exp.Column:
    """A column for SQL."""
    return exp.Column(this=identifier(name))


def table(schema: str | None, name: str) -> exp.Table:
    """A table for SQL."""
    return exp.Table(this=identifier(name), db=identifier(schema) if schema else None)
