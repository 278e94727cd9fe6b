"""A database that stands in for one that cannot run here, behind the DB-API of its driver.

What a source sends in the other database's SQL is written anew for DuckDB and run there, so that statements, values,
streaming, threads and errors are the source's own; what a real server would answer is not proven by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp


@dataclass
class StandIn:
    """One database; its schema is named as a source would ask for it.

    Args:
        dialect: sqlglot's name of the SQL that it is sent.
        rewrite: makes of a node of that SQL what DuckDB has instead.
        fails: makes the driver's error of DuckDB's.
        sent: every statement, with its values, as it was sent.
    """

    schema: str
    dialect: str
    rewrite: Callable[[exp.Expression], exp.Expression]
    fails: Callable[[duckdb.Error], Exception]
    sent: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._database = duckdb.connect(config={"threads": 1})
        self.run(f'CREATE SCHEMA "{self.schema}"')

    def run(self, *statements: str) -> None:
        """Run statements of DuckDB's own SQL."""
        with self._database.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def put(self, name: str, rows: pa.Table) -> None:
        """Create a table with these rows."""
        with self._database.cursor() as cursor:
            cursor.register("given", rows)
            cursor.execute(f'CREATE TABLE "{self.schema}"."{name}" AS SELECT * FROM given')

    def tables(self) -> list[tuple[str, str]]:
        """Schema and name of all tables and views."""
        with self._database.cursor() as cursor:
            found = cursor.execute("SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2")
            return found.fetchall()

    def described(self, statement: str) -> list[tuple[str, str]]:
        """Name and DuckDB's type of the columns of a statement, which is not run."""
        with self._database.cursor() as cursor:
            self._settle(cursor)
            return [row[:2] for row in cursor.execute(f"DESCRIBE {self._written(statement)}").fetchall()]

    def rows(self, statement: str, parameters: Any, *, batch_rows: int) -> pa.RecordBatchReader:
        """The rows of a statement, read as they are asked for."""
        self.sent.append((statement, parameters))
        cursor = self._database.cursor()
        try:
            self._settle(cursor)
            return cursor.sql(self._written(statement), params=parameters or None).to_arrow_reader(batch_rows)
        except duckdb.Error as error:
            raise self.fails(error) from None

    def next(self, reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
        """The next batch, or the driver's error; None: there are no more."""
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except (duckdb.Error, pa.ArrowException) as error:
            raise self.fails(error) from None

    def _settle(self, cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(f"SET schema = '{self.schema}'")

    def _written(self, statement: str) -> str:
        tree = sqlglot.parse_one(statement, dialect=self.dialect)
        return tree.transform(self.rewrite).sql(dialect="duckdb")
