from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.plugins.interfaces import RefreshRequest, TableReader
from tests.dashboards.powerbi_server import PowerBIServer, powerbi_server


class FakeReader(TableReader):
    """A table in memory."""

    def __init__(self, table: pa.Table, version: int = 3) -> None:
        self.table = table
        self._version = version

    @property
    def version(self) -> int:
        return self._version

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        table = self.table if columns is None else self.table.select(columns)
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))


class Requests:
    """Makes refresh requests, and keeps what they logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def __call__(self, tables: dict[str, pa.Table] | None = None, **changes: Any) -> RefreshRequest:
        values: dict[str, Any] = {
            "name": "mobility.dashboard.ridership",
            "title": "Ridership",
            "tables": {name: FakeReader(table) for name, table in (tables or {}).items()},
            "folder": str(self.folder),
            "as_of": dt.datetime(2026, 11, 21, 6, 30, tzinfo=dt.UTC),
            "log": self.lines.append,
        }
        return RefreshRequest(**(values | changes))


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    return Requests(tmp_path / "dashboard")


@pytest.fixture
def service() -> Iterator[PowerBIServer]:
    with powerbi_server() as server:
        yield server
