"""Matches the columns of a source with their names in the lake and with what control files call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from platform_core.errors import Place, SchemaError
from platform_core.specs.column_names import normalised


@dataclass(frozen=True)
class ColumnNames:
    """The columns of one source, in its order, by both of their names.

    Args:
        sources: as the source calls them.
        lake: as the lake does.
    """

    sources: tuple[str, ...]
    lake: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], *, of: str) -> ColumnNames:
        """Names of all columns of a source.

        Args:
            of: the table, for messages.

        Raises:
            SchemaError: two columns would have one name in the lake, or one has no name there.
        """
        found: dict[str, str] = {}
        for name in names:
            try:
                kept = normalised(name)
            except ValueError as error:
                raise SchemaError(
                    f"{of}: the source's column '{name}' {error}\n  columns: {', '.join(names)}\n"
                    "  name it at the source, for example in a view, or leave it out with 'select'"
                ) from None
            if kept in found:
                raise SchemaError(
                    f"{of}: the source's columns '{found[kept]}' and '{name}' would both be '{kept}' in the lake\n"
                    "  rename one at the source, for example in a view, or leave it out with 'select'"
                )
            found[kept] = name
        return cls(tuple(found.values()), tuple(found))

    def source_of(self, declared: str) -> str | None:
        """The source's name of a column that is declared by either name; None where there is no such column."""
        return source_name(declared, self.sources)

    def require(self, declared: Iterable[str], *, of: str, place: Place | None = None) -> None:
        """Refuse declared columns that are not there.

        Args:
            of: the table and its object at the source, for messages.
            place: of the declaration.

        Raises:
            SchemaError: it names every column that is missing.
        """
        source_names(declared, self.sources, of=of, place=place)


def source_name(declared: str, given: Sequence[str]) -> str | None:
    """Which of a source's columns a declared name means: that of the same name, else that of the same lake name.

    None where there is none.
    """
    if declared in given:
        return declared
    wanted = _lake_name(declared)
    return None if wanted is None else next((name for name in given if _lake_name(name) == wanted), None)


def source_names(
    declared: Iterable[str], given: Sequence[str], *, of: str, place: Place | None = None
) -> dict[str, str]:
    """The source's name of each declared column.

    Args:
        of: the table and its object at the source, for messages.
        place: of the declaration.

    Raises:
        SchemaError: a column is not there; every one that is missing is named.
    """
    found = {name: source_name(name, given) for name in declared}
    if missing := sorted(name for name, source in found.items() if source is None):
        known = dict.fromkeys((*given, *filter(None, map(_lake_name, given))))
        close = [get_close_matches(name, known, n=1) for name in missing]
        raise SchemaError(
            f"{of} has no column {', '.join(missing)}\n  columns: {', '.join(given)}"
            + "".join(f"\n  did you mean '{match[0]}'?" for match in close if match)
            + (f"\n  declared at {place}" if place else "")
        )
    return {name: source for name, source in found.items() if source is not None}


def _lake_name(name: str) -> str | None:
    try:
        return normalised(name)
    except ValueError:
        return None
