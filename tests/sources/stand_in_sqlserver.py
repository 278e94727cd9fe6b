"""A driver ``mssql_python`` whose server is a stand-in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import duckdb
import mssql_python
import pyarrow as pa
from sqlglot import exp

from tests.sources.stand_in import StandIn

_TYPES = {
    "BOOLEAN": ("bit", 1, 0, 1),
    "SMALLINT": ("smallint", 5, 0, 2),
    "INTEGER": ("int", 10, 0, 4),
    "BIGINT": ("bigint", 19, 0, 8),
    "DOUBLE": ("float", 53, 0, 8),
    "FLOAT": ("real", 24, 0, 4),
    "VARCHAR": ("nvarchar(max)", 0, 0, -1),
    "BLOB": ("varbinary(max)", 0, 0, -1),
    "DATE": ("date", 10, 0, 3),
    "TIMESTAMP": ("datetime2(6)", 26, 6, 8),
    "TIMESTAMP WITH TIME ZONE": ("datetimeoffset(6)", 33, 6, 10),
    "UBIGINT": ("timestamp", 0, 0, 8),
}

_KINDS = {"BINARY(8)": "UBIGINT", "DATETIMEOFFSET(7)": "TIMESTAMPTZ", "DATETIME2(7)": "TIMESTAMP"}


def _rewritten(node: exp.Expression) -> exp.Expression:
    if isinstance(node, (exp.Convert, exp.TryCast)):
        to = node.args["this"] if isinstance(node, exp.Convert) else node.to
        value = node.args["expression"] if isinstance(node, exp.Convert) else node.this
        kind = {"BINARY(8)": "UBIGINT", "DATETIMEOFFSET(7)": "TIMESTAMPTZ", "DATETIME2(7)": "TIMESTAMP"}.get(
            to.sql(dialect="tsql").upper()
        )
        return exp.cast(value.transform(_rewritten), kind or to, dialect="duckdb" if kind else "tsql")
    if isinstance(node, exp.Anonymous) and node.name == "SWITCHOFFSET":
        return node.expressions[0]
    return node


@dataclass
class SqlServer:
    """What ``mssql_python.connect`` reaches.

    Args:
        snapshot: whether the database allows snapshot isolation.
        open_from: the lowest row version of an open transaction.
        connected: the values of every connection that was made.
        open: connections that are not closed.
    """

    snapshot: bool = True
    open_from: int = 1000
    connected: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0

    def __post_init__(self) -> None:
        self.behind = StandIn("dbo", "tsql", _rewritten, _failed)

    def connect(self, **values: Any) -> _Connection:
        self.connected.append(values)
        if values.get("pwd", "").startswith("wrong"):
            raise mssql_python.OperationalError("Invalid authorization specification", f"Login failed: {values}")
        self.open += 1
        return _Connection(self)


def _failed(error: Exception) -> Exception:
    return mssql_python.DataError("Invalid character value for cast specification", f"[SQL Server] {error}")


class _Connection:
    def __init__(self, server: SqlServer) -> None:
        self.server = server
        self.timeout = 0
        self.autocommit = True
        self._closed = False

    def setautocommit(self, value: bool) -> None:
        self.autocommit = value

    def cursor(self) -> _Cursor:
        return _Cursor(self)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.server.open -= 1


class _Cursor:
    def __init__(self, connection: _Connection) -> None:
        self._server = connection.server
        self._autocommit = connection.autocommit
        self._answer: list[tuple[Any, ...]] = []
        self._asked: tuple[str, Any] = ("", None)

    def execute(self, statement: str, parameters: Any = None) -> None:
        behind = self._server.behind
        if "dm_exec_describe" in statement:
            self._answer = self._described(parameters[0])
        elif "sys.objects" in statement:
            self._answer = [row for row in behind.tables() if row[0] == "dbo"]
        elif "snapshot_isolation_state" in statement:
            self._answer = [(1 if self._server.snapshot else 0,)]
        elif "MIN_ACTIVE_ROWVERSION" in statement:
            behind.sent.append((statement, parameters))
            self._answer = [(self._server.open_from,)]
        elif statement.startswith("SET TRANSACTION"):
            behind.sent.append((statement, parameters))
        else:
            assert not self._autocommit, "rows are read within a transaction"
            self._asked = (statement, parameters)

    def _described(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            found = self._server.behind.described(statement)
        except duckdb.CatalogException:
            return [(None, None, None, None, None, None, None, 208)]
        return [(name, *_described(type_), False, None) for name, type_ in found]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._answer

    def arrow_reader(self, batch_rows: int) -> _Reader:
        return _Reader(self._server.behind, *self._asked, batch_rows)

    def close(self) -> None:
        self._answer = []


class _Reader:
    def __init__(self, behind: StandIn, statement: str, parameters: Any, batch_rows: int) -> None:
        self._behind = behind
        self._reader = behind.rows(statement, parameters, batch_rows=batch_rows)
        self._closed = False

    def read_next_batch(self) -> pa.RecordBatch:
        if self._closed:
            raise pa.ArrowInvalid("Reader is closed")
        batch = self._behind.next(self._reader)
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        self._closed = True


def _described(type_: str) -> tuple[Any, ...]:
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", type_):
        return f"decimal({found[1]},{found[2]})", None, int(found[1]), int(found[2]), 17
    name, precision, scale, longest = _TYPES[type_]
    return name, None, precision, scale, longest
