"""Rows as the files that a source reads, and the suites that hold for files wherever they lie."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import Place, Placed, SourceSuite
from platform_core.sources.files import FilesSource
from platform_core.sources.types import type_name

Put = Callable[[str, bytes], None]
"""Puts a file of a name and a content below the root."""


def csv_text(rows: pa.Table) -> str:
    """The rows as CSV: null is nothing, an empty text is a quoted nothing."""
    lines = [",".join(rows.column_names)]
    for row in rows.to_pylist():
        cells = ['"' + str(value).replace('"', '""') + '"' if value is not None else "" for value in row.values()]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def json_rows(rows: pa.Table) -> list[str]:
    """Each row as the text of a JSON object, numbers as numbers."""

    def plain(value: object) -> object:
        return value if isinstance(value, (int, float, str, type(None))) else str(value)

    return [
        json.dumps({name: plain(value) for name, value in row.items()}, ensure_ascii=False) for row in rows.to_pylist()
    ]


def parquet_bytes(rows: pa.Table) -> bytes:
    """The rows as a Parquet file."""
    out = io.BytesIO()
    pyarrow.parquet.write_table(rows, out)
    return out.getvalue()


def declared(rows: pa.Table) -> dict[str, str]:
    """The types of the columns, as a team declares them."""
    return {field.name: type_name(field.type) for field in rows.schema}


def halves(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The rows in two parts, numbered."""
    half = rows.num_rows // 2
    return enumerate([rows.slice(0, half), rows.slice(half)])


def read(source: FilesSource, pattern: str, *, options: dict[str, Any] | None = None, **request: Any) -> pa.Table:
    """All rows that a source gives for a pattern; its schema is checked against theirs."""
    asked = ReadRequest(object=pattern, options=FilesSource.ObjectOptions(**(options or {})), **request)
    with closing(source):
        table = source.read(asked).read_all()
        assert table.schema == source.schema(asked)
        return table


class CsvSuite(SourceSuite):
    """CSV files, wherever the fixtures ``source`` and ``put`` have them."""

    left_out = frozenset({"data"})

    @pytest.fixture
    def place(self, source: FilesSource, put: Put) -> Place:
        def placed(rows: pa.Table) -> Placed:
            for number, part in halves(rows):
                put(f"rows-{number}.csv", csv_text(part).encode())
            options = FilesSource.ObjectOptions(columns=declared(rows), format="csv")
            return source, ReadRequest(object="rows-*.csv", options=options)

        return placed

    @pytest.fixture
    def place_more(self, put: Put) -> Callable[[pa.Table], None]:
        return lambda rows: put("rows-more.csv", csv_text(rows).encode())

    @pytest.fixture
    def place_broken(self, source: FilesSource, put: Put) -> Callable[[str], Placed]:
        def placed(text: str) -> Placed:
            put("rows.csv", ("id,v\n" + "1,x\n" * 1000 + f"2,{text},3\n").encode())
            return source, ReadRequest(object="rows.csv")

        return placed


class ParquetSuite(SourceSuite):
    """Parquet files, wherever the fixtures ``source`` and ``put`` have them."""

    @pytest.fixture
    def place(self, source: FilesSource, put: Put) -> Place:
        def placed(rows: pa.Table) -> Placed:
            for number, part in halves(rows):
                put(f"rows-{number}.parquet", parquet_bytes(part))
            return source, ReadRequest(object="rows-*.parquet")

        return placed

    @pytest.fixture
    def place_more(self, put: Put) -> Callable[[pa.Table], None]:
        return lambda rows: put("rows-more.parquet", parquet_bytes(rows))

    @pytest.fixture
    def place_broken(self, source: FilesSource, put: Put) -> Callable[[str], Placed]:
        def placed(text: str) -> Placed:
            put("rows.parquet", parquet_bytes(pa.table({"v": ["1"] * 10 + [text]})))
            options = FilesSource.ObjectOptions(columns={"v": "integer"})
            return source, ReadRequest(object="rows.parquet", options=options, batch_rows=2)

        return placed
