"""Tables of a small lake, and the engine over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.lake.delta import DeltaTableReader, write
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

Put = Callable[..., DeltaTableReader]


@dataclass(frozen=True)
class RowsInMemory(TableReader):
    """A table that is no Delta table: the fake at the engine's gate."""

    rows: pa.Table

    @property
    def version(self) -> int:
        return 0

    @property
    def schema(self) -> pa.Schema:
        return self.rows.schema

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        return self.rows.select(list(columns or self.rows.column_names)).to_reader()


@pytest.fixture
def engine(tmp_path: Path) -> LocalEngine:
    return LocalEngine(LocalOptions(memory_limit="200MB", threads=2, spill=str(tmp_path / "spill")))


@pytest.fixture
def put(tmp_path: Path) -> Iterator[Put]:
    """Write rows as a Delta table and open it."""

    def write_rows(name: str, rows: pa.Table, mode: WriteMode = WriteMode.OVERWRITE) -> DeltaTableReader:
        uri = str(tmp_path / "lake" / name)
        ref = TableRef("m", "silver", name)
        write(rows.to_reader(), table=ref, uri=uri, storage_options={}, mode=mode)
        reader = DeltaTableReader.open(uri, storage_options={})
        assert reader is not None
        return reader

    return write_rows


@pytest.fixture
def in_memory() -> type[RowsInMemory]:
    return RowsInMemory
