"""What is asked of a MySQL server for one read, and what is left to do here."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import secrets
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.plugins.interfaces import ReadRequest
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.mysql_types import Column
from platform_core.sources.naming import column as column_node
from platform_core.sources.statement import Range, Statement, select_statement
from platform_core.sources.streaming import Batches

DIALECT = "mysql"


class MysqlPlan:
    """The SELECTs of one read.

    A cursor column that is read as another type than the server's own is not ordered there as it is here: of such a
    one all rows are read, and these are left out here.
    """

    def __init__(
        self, request: ReadRequest, table: exp.Table | None, columns: Mapping[str, Column], *, where: str
    ) -> None:
        """Check the bounds of the request.

        Args:
            request: what is read.
            table: None: the request's query.
            columns: what is selected, by name.
            where: table or query, for messages.

        Raises:
            SourceError: a bound is of another kind than the cursor.
        """
        self.columns = columns
        self._table = table
        self._cursor = columns[request.cursor] if request.cursor else None
        self._split = columns[request.split_by] if request.split_by else None
        types = {name: column.type for name, column in columns.items()}
        self._range = CursorRange.of(request, types, where=where)
        self._asks_server = self._cursor is not None and self._cursor.ordered is not None
        since, until = (self._range.since, self._range.until) if self._asks_server else (None, None)
        self._request = dataclasses.replace(request, since=_at_server(since), until=_at_server(until))

    @property
    def split_is_nullable(self) -> bool:
        """Whether the column to split by may be null."""
        return self._split is not None and self._split.nullable

    def statement(self, connection: Any, part: Range | None) -> str:
        """The SELECT of one share of the rows; None: of all."""
        selected = [exp.alias_(column.expression, column.name, quoted=True) for column in self.columns.values()]
        marks = _Marks(connection)
        return marks.filled(
            select_statement(
                self._request,
                dialect=DIALECT,
                table=self._table,
                columns=selected,
                placeholder=marks.mark,
                cursor=self._cursor.ordered if self._cursor else None,
                part=part,
            )
        )

    def bounds(self, connection: Any) -> str:
        """The SELECT of the smallest and the largest value of the column to split by."""
        split = column_node(self._request.split_by or "")
        marks = _Marks(connection)
        return marks.filled(
            select_statement(
                # Without the filter: the ends of an index are found at once, those of some of its rows are not.
                dataclasses.replace(self._request, filter=None, since=None, until=None),
                dialect=DIALECT,
                table=self._table,
                columns=[exp.Min(this=split.copy()), exp.Max(this=split.copy())],
                placeholder=marks.mark,
            )
        )

    def within(self, batches: Batches) -> Batches:
        """The rows between the bounds, where the server was not asked for them."""
        return batches if self._asks_server else self._range.only(batches)


class _Marks:
    """Puts values into a statement as the driver writes them: the protocol of texts has no parameters.

    A value takes the place of a mark that no one could have written into a query or filter.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._name = f"edp_{secrets.token_hex(8)}_"

    def mark(self, position: int) -> exp.Expression:
        return exp.Var(this=f"{self._name}{position}_")

    def filled(self, statement: Statement) -> str:
        with self._connection.cursor() as cursor:
            values = [cursor.mogrify("%s", (value,)) for value in statement.parameters]
        return re.sub(rf"{self._name}(\d+)_", lambda found: str(values[int(found[1]) - 1]), statement.sql)


def _at_server(bound: pa.Scalar | None) -> Any:
    """A bound as the server takes it; the session's time zone is UTC."""
    value = bound.as_py() if bound is not None else None
    return value.astimezone(dt.UTC).replace(tzinfo=None) if isinstance(value, dt.datetime) and value.tzinfo else value
