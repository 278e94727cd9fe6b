"""A driver ``oracledb`` whose server is a stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import duckdb
import oracledb
import pyarrow as pa
from sqlglot import exp

from tests.sources.stand_in import StandIn

_TYPES = {
    "BIGINT": ("DB_TYPE_NUMBER", 18, 0),
    "INTEGER": ("DB_TYPE_NUMBER", 9, 0),
    "BOOLEAN": ("DB_TYPE_BOOLEAN", None, None),
    "HUGEINT": ("DB_TYPE_NUMBER", None, None),
    "DOUBLE": ("DB_TYPE_BINARY_DOUBLE", None, None),
    "FLOAT": ("DB_TYPE_BINARY_FLOAT", None, None),
    "VARCHAR": ("DB_TYPE_VARCHAR", None, None),
    "BLOB": ("DB_TYPE_BLOB", None, None),
    "DATE": ("DB_TYPE_DATE", None, None),
    "TIMESTAMP": ("DB_TYPE_TIMESTAMP", None, 6),
    "TIMESTAMP WITH TIME ZONE": ("DB_TYPE_TIMESTAMP_TZ", None, 6),
    "UUID": ("DB_TYPE_JSON", None, None),
}


def _rewritten(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.ToChar):
        return exp.cast(node.this.transform(_rewritten), "text")
    if isinstance(node, (exp.StrToTime, exp.StrToDate)):
        return exp.cast(node.this, "timestamp")
    if isinstance(node, exp.Anonymous) and node.name == "TO_TIMESTAMP_TZ":
        return exp.cast(node.expressions[0], "timestamptz")
    if isinstance(node, exp.Anonymous) and node.name == "SYS_EXTRACT_UTC":
        return exp.cast(node.expressions[0], "timestamp")
    return node


def _failed(error: Exception) -> Exception:
    missing = isinstance(error, duckdb.CatalogException)
    return oracledb.DatabaseError(
        SimpleNamespace(full_code="ORA-00942" if missing else "ORA-01722", message=str(error))
    )


@dataclass
class Oracle:
    """What ``oracledb.connect`` reaches.

    Args:
        connected: the values of every connection that was made.
        open: connections that are not closed.
    """

    connected: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0

    def __post_init__(self) -> None:
        self.behind = StandIn("READER", "oracle", _rewritten, _failed)

    def connect(self, **values: Any) -> _Connection:
        self.connected.append(values)
        if values["password"].startswith("wrong"):
            raise oracledb.DatabaseError(SimpleNamespace(full_code="ORA-01017", message=f"denied: {values}"))
        self.open += 1
        return _Connection(self)


class _Connection:
    def __init__(self, server: Oracle) -> None:
        self.server = server
        self.call_timeout = 0
        self._closed = False

    def cursor(self) -> _Cursor:
        return _Cursor(self.server)

    def fetch_df_batches(
        self, statement: str, parameters: Any, *, size: int, fetch_decimals: bool
    ) -> Iterator[pa.Table]:
        assert fetch_decimals, "numbers are not to become doubles"
        reader = self.server.behind.rows(statement, parameters, batch_rows=size)
        while (batch := self.server.behind.next(reader)) is not None:
            yield pa.Table.from_batches([batch])

    def cancel(self) -> None:
        if self._closed:
            raise oracledb.InterfaceError(SimpleNamespace(full_code="DPY-1001", message="not connected"))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.server.open -= 1


class _Cursor:
    def __init__(self, server: Oracle) -> None:
        self._server = server
        self.description: list[Any] = []

    def parse(self, statement: str) -> None:
        try:
            found = self._server.behind.described(statement)
        except duckdb.Error as error:
            raise _failed(error) from None
        self.description = [_announced(name, type_) for name, type_ in found]

    def execute(self, statement: str) -> None:
        self._server.behind.sent.append((statement, None))

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [row for row in self._server.behind.tables() if row[0] == "READER"]

    def close(self) -> None:
        self.description = []


def _announced(name: str, type_: str) -> Any:
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", type_):
        kind, precision, scale = "DB_TYPE_NUMBER", int(found[1]), int(found[2])
    else:
        kind, precision, scale = _TYPES[type_]
    return SimpleNamespace(name=name, type_code=getattr(oracledb, kind), precision=precision, scale=scale)
