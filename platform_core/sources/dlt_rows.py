"""Items of a dlt resource as Arrow batches of one schema, which the first of them settle."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from platform_core.errors import SourceError
from platform_core.sources.dlt_values import column_of, inferred_type, table_column
from platform_core.sources.naming import known
from platform_core.sources.types import UnfitError, unfit

_BATCH_ROWS = 5000


class Rows:
    """The rows of one resource: dictionaries, Arrow tables and data frames, in any mixture."""

    def __init__(
        self,
        items: Iterator[Any],
        *,
        declared: Mapping[str, pa.DataType],
        wanted: list[str] | None,
        undeclared: str,
        sample_rows: int,
        where: str,
    ) -> None:
        """Look at the first rows.

        Args:
            items: what the resource yields.
            declared: types that are known beforehand; they come first.
            wanted: columns that are needed; None: all.
            undeclared: ``infer``, ``ignore`` or ``refuse``: what happens to other columns.
            sample_rows: rows to look at.
            where: source and object, for messages.

        Raises:
            SourceError: no column is known, or an item is no row.
        """
        self._where = where
        self._items = (_checked(item, where) for item in items)
        self._refuses = undeclared == "refuse"
        sample = list(self._looked_at(sample_rows))
        types = dict(declared)
        if undeclared == "infer":
            types |= {name: type_ for name, type_ in _types(sample, where).items() if name not in types}
        if not types:
            raise SourceError(
                f"{where}: the resource gave no row, so no columns are known\n"
                "  declare them under the table's options: columns: {id: integer, …}"
            )
        self._known = types
        self._complete = undeclared != "ignore" and (self._refuses or wanted is None)
        needed = types if wanted is None else [name for name in types if name in wanted]
        self._types = {name: types[name] for name in needed}
        self._rest = itertools.chain(sample, self._items)
        self._read = 0

    @property
    def schema(self) -> pa.Schema:
        """All columns, needed or not."""
        return pa.schema(list(self._known.items()))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, only the columns that are needed.

        Raises:
            SourceError: a value does not fit its column, or a column is new.
        """
        gathered: list[dict[str, Any]] = []
        for item in self._rest:
            if isinstance(item, dict):
                gathered.append(item)
                if len(gathered) == _BATCH_ROWS:
                    yield self._of_dictionaries(gathered)
                    gathered = []
                continue
            if gathered:
                yield self._of_dictionaries(gathered)
                gathered = []
            yield from self._of_table(item)
        if gathered:
            yield self._of_dictionaries(gathered)

    def _looked_at(self, rows: int) -> Iterator[Any]:
        for item in self._items:
            yield item
            rows -= 1 if isinstance(item, dict) else item.num_rows
            if rows <= 0:
                return

    def _of_dictionaries(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        if self._complete:
            for row in rows:
                if not row.keys() <= self._known.keys():
                    self._refuse(next(str(name) for name in row if name not in self._known))
        return self._batch(len(rows), lambda name, type_: column_of([row.get(name) for row in rows], type_))

    def _of_table(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        if self._complete:
            for name in table.schema.names:
                if name not in self._known:
                    self._refuse(name)
        for start in range(0, table.num_rows, _BATCH_ROWS):
            part = table.slice(start, _BATCH_ROWS)
            yield self._batch(part.num_rows, functools.partial(table_column, part))

    def _batch(self, rows: int, column: Callable[[str, pa.DataType], pa.Array]) -> pa.RecordBatch:
        arrays = []
        for name, type_ in self._types.items():
            try:
                arrays.append(column(name, type_))
            except UnfitError as error:
                between = (self._read + 1, self._read + rows)
                raise unfit(self._where, column=name, type_=type_, count=error.count, rows=between) from None
            except UnicodeEncodeError:
                raise SourceError(f"{self._where}: a text in column '{name}' holds half a surrogate pair") from None
        self._read += rows
        return pa.record_batch(arrays, names=list(self._types))

    def _refuse(self, name: str) -> None:
        shown = f"'{name}'" if name.isidentifier() else "whose name is withheld, for it may be data"
        raise SourceError(
            f"{self._where}: after row {self._read:,} there is a column {shown} that was not there before\n"
            f"{known('columns', name, self._known)}\n"
            "  name it under the table's options: columns, raise 'sample_rows', or set 'undeclared: ignore'"
        )


def _checked(item: Any, where: str) -> Any:
    """A dictionary or an Arrow table."""
    if isinstance(item, (dict, pa.Table)):
        return item
    if isinstance(item, pa.RecordBatch):
        return pa.Table.from_batches([item])
    module = type(item).__module__.partition(".")[0]
    if module == "pandas":
        return pa.Table.from_pandas(item, preserve_index=False)
    if module == "polars":
        return item.to_arrow()
    raise SourceError(
        f"{where}: the resource gives a {type(item).__name__}, which is no row\n"
        "  rows are dictionaries, Arrow tables or data frames"
    )


def _types(sample: list[Any], where: str) -> dict[str, pa.DataType]:
    """Types by column: those of tables as they are, those of dictionaries by their values."""
    types: dict[str, pa.DataType] = {}
    values: dict[str, list[Any]] = {}
    for item in sample:
        if isinstance(item, pa.Table):
            types = {**{field.name: _plain(field.type) for field in item.schema}, **types}
        else:
            for name, value in item.items():
                if not isinstance(name, str):
                    raise SourceError(f"{where}: the resource gives rows whose keys are not all texts")
                values.setdefault(name, []).append(value)
    return types | {name: inferred_type(found) for name, found in values.items() if name not in types}


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    return pa.string() if pa.types.is_null(type_) else type_
