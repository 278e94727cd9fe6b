"""The schema of an environment as migrations leave it: what is there now, and what each statement makes of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from platform_core.control.ddl_parsing import SqlFault
from platform_core.specs.table import TableRef


class Maker(StrEnum):
    """What writes a lake table, where a location declares it."""

    INGESTION = "ingestion"
    REPLACED = "replaced"
    """A step that overwrites, or a dbt model: columns are those of its newest result."""
    KEPT = "kept"
    """A step that appends or merges: its rows must have the table's columns."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A table or view.

    Args:
        columns: in order; None where they are not known: it is declared, but was not built yet.
        constraints: condition by name.
        properties: of a lake table.
        locked: why its columns cannot be changed; empty: they can.
        features: whether a lake table has features by name, which setting a property would add to.
        reads: what a view reads.
        sql: of a view.
    """

    is_view: bool = False
    columns: tuple[Any, ...] | None = ()
    partition_by: tuple[str, ...] = ()
    constraints: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    locked: str = ""
    features: bool = False
    reads: tuple[TableRef, ...] = ()
    sql: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; none where they are not known."""
        return tuple(column.name for column in self.columns or ())


class Catalog:
    """Tables and views by name, live ones looked at when they are first asked for.

    A copy is cheap, so that a migration can be tried and given up.
    """

    def __init__(
        self,
        live: Callable[[TableRef], Shape | None],
        *,
        makers: Mapping[TableRef, Maker],
        views: frozenset[TableRef] = frozenset(),
        tables: frozenset[TableRef] = frozenset(),
        shared: Callable[[TableRef], Shape | None] = lambda _: None,
    ) -> None:
        """Keep where live tables are looked at.

        Args:
            live: the table or view that is there now; None: there is none.
            makers: what writes the tables that are declared.
            views: names of views that migrations have made or will make.
            tables: names of such tables, for what is said of a name that is not known.
            shared: the table or view that is read where a person has none of the name; None: there is none.
        """
        self._live = live
        self._shared = shared
        self._seen: dict[TableRef, Shape | None] = {}
        self._now: dict[TableRef, Shape | None] = {}
        self.makers = makers
        self._views = set(views)
        self._tables = tables

    def copy(self) -> Catalog:
        """The same schema, to be changed apart."""
        twin = Catalog(
            self._live, makers=self.makers, views=frozenset(self._views), tables=self._tables, shared=self._shared
        )
        twin._seen = self._seen
        twin._now = dict(self._now)
        return twin

    def find(self, ref: TableRef) -> Shape | None:
        """A table or view; None where there is none, nor is one declared."""
        if ref in self._now:
            return self._now[ref]
        if ref not in self._seen:
            self._seen[ref] = self._live(ref)
        found = self._seen[ref]
        if found is None and ref in self.makers:
            return Shape(columns=None)
        return found

    def readable(self, ref: TableRef) -> Shape | None:
        """A table or view that a view may read: as :func:`find`, else the shared one, which no statement changes."""
        found = self.find(ref)
        if found is not None and found.columns is not None:
            return found
        # Gone by a statement of these migrations or never there: either way not the person's.
        return self._shared(ref) or found

    def table(self, ref: TableRef) -> Shape:
        """A table whose columns are known.

        Raises:
            SqlFault: there is none.
        """
        found = self.find(ref)
        if found is None:
            if self._shared(ref) is not None:
                raise SqlFault(f"table '{ref}' is a shared one, and not yours to change", "build your own first")
            raise SqlFault(f"there is no table '{ref}'", *self._known(ref), "make it in an earlier migration")
        if found.is_view:
            raise SqlFault(f"'{ref}' is a view, not a table", "use CREATE OR REPLACE VIEW to change it")
        if found.columns is None:
            how = "load it" if self.makers[ref] is Maker.INGESTION else "run what makes it"
            raise SqlFault(f"table '{ref}' is declared, but was not built yet", f"{how} first, then apply again")
        return found

    def view(self, ref: TableRef) -> Shape:
        """A view.

        Raises:
            SqlFault: there is none.
        """
        found = self.find(ref)
        if found is None:
            raise SqlFault(f"there is no view '{ref}'", *self._known(ref))
        if not found.is_view:
            raise SqlFault(f"'{ref}' is a table, not a view", "say TABLE where it says VIEW")
        return found

    def put(self, ref: TableRef, shape: Shape) -> None:
        """Make or change a table or view."""
        self._now[ref] = shape
        if shape.is_view:
            self._views.add(ref)

    def change(self, ref: TableRef, **fields: Any) -> None:
        """Change some of what is known of a table."""
        self.put(ref, replace(self.table(ref), **fields))

    def remove(self, ref: TableRef) -> None:
        """A table or view is gone."""
        self._now[ref] = None

    def readers(self, ref: TableRef) -> list[TableRef]:
        """Views that read a table or view, directly."""
        found = []
        for name in sorted(self._views):
            shape = self.find(name)
            if shape is not None and shape.is_view and ref in shape.reads:
                found.append(name)
        return found

    def _known(self, ref: TableRef) -> tuple[str, ...]:
        names = {*self._seen, *self._now, *self.makers, *self._tables, *self._views} - {ref}
        known = sorted(str(name) for name in names if name.workstream == ref.workstream and self.find(name))
        close = difflib.get_close_matches(str(ref), known, n=1)
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        return (f"known tables: {shown or 'none'}", *(f"did you mean '{match}'?" for match in close))


def column_of(shape: Shape, name: str, *, of: TableRef) -> Any:
    """A column by name; names are the same in any case.

    Raises:
        SqlFault: there is none.
    """
    for column in shape.columns or ():
        if column.name.lower() == name.lower():
            return column
    close = difflib.get_close_matches(name, shape.names, n=1)
    raise SqlFault(
        f"table '{of}' has no column '{name}'",
        f"columns: {', '.join(shape.names)}",
        *(f"did you mean '{match}'?" for match in close),
    )
