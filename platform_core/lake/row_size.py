"""How many rows a writer may hold, told by the size of the first ones: a row of a wide table takes many times more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from platform_core.lake.parquet_sql import MOST_GROUP_ROWS, parquet, render

_SAMPLED_ROWS = 2_048
_GROUP_BYTES = 16 * 1024 * 1024
"""Most bytes of one row group; a writer takes about ten times as much for each of its threads."""


def group_rows(connection: Any, relation: exp.Select | None = None, **parameters: Any) -> int:
    """Rows of a row group for rows like the first of a relation.

    Args:
        relation: rows to look at; None: those of the files ``$files``.
        parameters: those of the query.
    """
    rows = exp.select("*").from_(parquet("files")) if relation is None else relation
    found = _sampled(connection, render(rows.limit(_SAMPLED_ROWS)), parameters)
    if not found.num_rows:
        return MOST_GROUP_ROWS
    fitting = int(_GROUP_BYTES * found.num_rows / max(found.nbytes, 1))
    return min(max(fitting // _SAMPLED_ROWS, 1) * _SAMPLED_ROWS, MOST_GROUP_ROWS)


def _sampled(connection: Any, statement: str, parameters: Mapping[str, Any]) -> Any:
    return connection.sql(statement, params=dict(parameters) or None).to_arrow_table()
