"""Asks the shown tables for what a page needs, aggregated before it is handed over."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.dashboards.page_options import MOST_POINTS, ChartOptions, FigureOptions, TableOptions
from platform_core.errors import RefreshError, redacted
from platform_core.plugins.interfaces import TableReader

X, Y, SERIES = "x", "y", "series"
"""Columns of the points of a chart."""

_ROWS = "shown"
_AGGREGATES = {"sum": "sum", "mean": "avg", "median": "median", "min": "min", "max": "max", "count": "count"}


@dataclass(frozen=True)
class Points:
    """What a chart draws.

    Args:
        rows: columns x, y (double) and series (text), in the order they are drawn.
        without_x: rows of the table left out because x is null.
    """

    rows: pa.Table
    without_x: int


class PageQuery:
    """The shown tables, open for questions."""

    def __init__(self, tables: Mapping[str, TableReader]) -> None:
        self._tables = tables

    def figure(self, options: FigureOptions) -> object:
        """The value of one headline figure; None where the table has no value.

        Raises:
            RefreshError: the table, its columns or their types do not fit the options.
        """
        where = f"figure '{options.title}'"
        reader = self._reader(options.table, where=where)
        order_by = self._order_of_last(reader, options, where=where) if options.aggregate == "last" else None
        columns = tuple(dict.fromkeys(filter(None, (options.column, order_by))))
        schema = self._schema(reader, columns, options.table, where=where)
        value: exp.Expression = exp.Star() if options.column is None else _column(options.column)
        if options.aggregate in ("sum", "mean"):
            _check_number(schema.field(options.column).type, options.column or "", options.aggregate, where=where)
        if order_by is not None:
            # arg_max passes over rows where either is null, so that an unfinished newest row hides no value.
            value = exp.Anonymous(this="arg_max", expressions=[value, _column(order_by)])
        else:
            value = exp.Anonymous(this=_AGGREGATES[options.aggregate], expressions=[value])
        query = exp.select(exp.alias_(value, Y)).from_(_ROWS)
        return _run(query, reader, columns or schema.names[:1], where=where).column(0)[0].as_py()

    def points(self, options: ChartOptions) -> Points:
        """The points of one chart.

        Raises:
            RefreshError: the table, its columns or their types do not fit the options, or there are too many points.
        """
        where = f"chart '{options.title}'"
        reader = self._reader(options.table, where=where)
        schema = self._schema(reader, options.columns, options.table, where=where)
        for column in options.y or ():
            if options.aggregate != "count":
                _check_number(schema.field(column).type, column, "a chart's y", where=where)
        rows = _folded(_run(_points_query(options), reader, options.columns, where=where), options)
        if rows.num_rows > MOST_POINTS:
            raise RefreshError(
                f"{where}: more than {MOST_POINTS:,} points\n  aggregate the table {options.table} in gold, "
                "set 'aggregate', or set 'limit'"
            )
        if options.aggregate is None and options.mark != "point":
            _check_one_row_per_point(rows, options, where=where)
        without = exp.select(exp.Count(this=exp.Star())).from_(_ROWS).where(_column(options.x).is_(exp.null()))
        left_out = _run(without, reader, (options.x,), where=where).column(0)[0].as_py()
        return Points(rows.select([X, Y, SERIES]), left_out)

    def rows(self, options: TableOptions) -> pa.Table:
        """The rows of one table, in order.

        Raises:
            RefreshError: the table or its columns do not fit the options.
        """
        where = f"table '{options.title}'"
        reader = self._reader(options.table, where=where)
        shown = options.columns or tuple(reader.schema.names)
        order = options.order_by or shown[:1]
        named = tuple(dict.fromkeys((*shown, *(column.removeprefix("-") for column in order))))
        self._schema(reader, named, options.table, where=where)
        query = (
            exp.select(*(_column(column) for column in shown))
            .from_(_ROWS)
            .order_by(*(_ordered(_column(column.removeprefix("-")), column) for column in order))
            .limit(options.limit)
        )
        return _run(query, reader, named, where=where)

    def _reader(self, table: str, *, where: str) -> TableReader:
        if table not in self._tables:
            raise RefreshError(
                f"{where}: table '{table}' is not among those the dashboard shows"
                + _known(table, tuple(self._tables), "tables in 'shows'")
            )
        return self._tables[table]

    def _schema(self, reader: TableReader, columns: tuple[str, ...], table: str, *, where: str) -> pa.Schema:
        schema = reader.schema
        for column in columns:
            if column not in schema.names:
                raise RefreshError(
                    f"{where}: table {table} has no column '{column}'" + _known(column, tuple(schema.names), "columns")
                )
        return schema

    def _order_of_last(self, reader: TableReader, options: FigureOptions, *, where: str) -> str:
        if options.order_by is not None:
            return options.order_by
        times: list[str] = [field.name for field in reader.schema if pa.types.is_temporal(field.type)]
        if len(times) != 1:
            raise RefreshError(
                f"{where}: aggregate: last needs 'order_by', for table {options.table} has {len(times)} date or time "
                "columns" + (f"\n  they are: {', '.join(times)}" if times else "")
            )
        return times[0]


def _points_query(options: ChartOptions) -> exp.Select:
    """One row for each x (and colour): x, series, and a column for each y. The table is read once."""
    x, color = _column(options.x), _column(options.color) if options.color else None
    values: list[exp.Expression] = [_column(column) for column in options.y or ()] or [exp.Star()]
    if options.aggregate is not None:
        values = [exp.Anonymous(this=_AGGREGATES[options.aggregate], expressions=[value]) for value in values]
    series = exp.cast(color, "text") if color else exp.Literal.string("")
    query = (
        exp.select(exp.alias_(x, X, quoted=True), exp.alias_(series, SERIES, quoted=True))
        .select(*(exp.alias_(exp.cast(value, "double"), f"{Y}{at}", quoted=True) for at, value in enumerate(values)))
        .from_(_ROWS)
        .where(exp.Not(this=x.copy().is_(exp.null())))
    )
    if options.aggregate is not None:
        query = query.group_by(x.copy(), *((color.copy(),) if color else ()))
    # By position: a name could mean the column of the table as well as that of the result.
    first = 3 if options.sort.endswith("y") else 1
    order = [_ordered(exp.Literal.number(first), options.sort)]
    order += [_ordered(exp.Literal.number(at), "") for at in (1, 2) if at != first]
    wanted = options.limit or MOST_POINTS + 1
    return query.order_by(*order).limit(-(-wanted // len(values)))


def _folded(wide: pa.Table, options: ChartOptions) -> pa.Table:
    """One row for each point, from one row for each x: the y columns become series."""
    names = options.y or ("",)
    if len(names) == 1:
        return wide.rename_columns([X, SERIES, Y]).slice(0, options.limit)
    at = [row for row in range(wide.num_rows) for _ in names]
    columns = [wide.column(f"{Y}{position}").to_pylist() for position in range(len(names))]
    values = [value for row in zip(*columns, strict=True) for value in row]
    folded = {X: wide.column(X).take(at), Y: pa.array(values, pa.float64()), SERIES: list(names) * wide.num_rows}
    return pa.table(folded).slice(0, options.limit)


def _check_one_row_per_point(rows: pa.Table, options: ChartOptions, *, where: str) -> None:
    distinct = rows.group_by([X, SERIES]).aggregate([]).num_rows
    if distinct < rows.num_rows:
        of_series = f" and {options.color}" if options.color else ""
        raise RefreshError(
            f"{where}: table {options.table} has several rows of the same {options.x}{of_series}, "
            f"which a {options.mark} cannot show\n  set 'aggregate' (sum, mean, …), or 'color' to tell the rows apart"
        )


def _check_number(type_: pa.DataType, column: str, use: str, *, where: str) -> None:
    types = pa.types
    if not (types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)):
        raise RefreshError(f"{where}: {use} needs a number, but column '{column}' is {type_}")


def _known(name: str, known: tuple[str, ...], what: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"\n  {what}: {', '.join(known)}" + (f"\n  did you mean '{close[0]}'?" if close else "")


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True))


def _ordered(column: exp.Expression, direction: str) -> exp.Ordered:
    return exp.Ordered(this=column, desc=direction.startswith("-"), nulls_first=False)


@contextmanager
def _sandbox() -> Iterator[Any]:
    import duckdb

    settings = {
        "enable_external_access": "false",
        "lock_configuration": "true",
        "memory_limit": "1GB",
        # Rows are not written to any disk.
        "temp_directory": "",
        "threads": "1",
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        yield connection
    finally:
        connection.close()


def _run(query: exp.Expression, reader: TableReader, columns: tuple[str, ...] | list[str], *, where: str) -> pa.Table:
    """The result of one query over the rows of a table, as an Arrow table."""
    import duckdb

    failure = ""
    with _sandbox() as connection:
        try:
            connection.register(_ROWS, reader.read(columns=tuple(columns)))
            return connection.sql(query.sql(dialect="duckdb")).to_arrow_table()
        except duckdb.Error as error:
            failure = redacted(error)
    raise RefreshError(f"{where}: the query over its table failed\n  {failure}")
