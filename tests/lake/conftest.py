"""A bronze table in a fresh folder, loaded from rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.lake import bronze
from platform_core.lake.delta import DeltaTableReader, batch_of, open_table
from platform_core.lake.landing import LandingWriter, batch_uri
from platform_core.lake.row_hash import HASH_FIELD, with_hash
from platform_core.lake.session import Session, open_session
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.table import TableRef

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class Bronze:
    """Lands rows and applies them, one batch id after the other."""

    root: Path
    session: Session
    key: tuple[str, ...] = ("id",)
    options: dict[str, Any] = field(default_factory=dict)
    landings: list[int] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return str(self.root / "demo" / "bronze" / "riders")

    def landed(self, rows: pa.Table, mode: str = "full", *, held: bool = False, **options: Any) -> BronzeLoad:
        """Rows as a landed batch, or as one held in memory that is landed when the engine asks for it."""
        batch_id = options.pop("batch_id", batch_of(self.table) + 1)
        uri = batch_uri(str(self.root / "demo" / "landing" / "riders"), batch_id)
        schema = rows.schema.append(HASH_FIELD)
        hashed = pa.Table.from_batches([with_hash(batch) for batch in rows.to_batches()], schema=schema)

        def land() -> tuple[str, ...]:
            self.landings.append(batch_id)
            with LandingWriter(uri, storage_options={}, schema=schema, batch_id=batch_id, mode=mode) as writer:
                for batch in hashed.to_batches():
                    writer.write(batch)
                return writer.complete().file_uris

        load = BronzeLoad(
            table=TableRef("demo", "bronze", "riders"),
            uri=self.uri,
            storage_options={},
            files=() if held else land(),
            rows=hashed if held else None,
            land=land if held else None,
            schema=schema,
            batch_id=batch_id,
            mode=LoadMode(mode),
            key=() if mode == "append" else self.key,
            sequence_by=None,
            deleted_flag=None,
            max_delete_ratio=1.0,
            modified_at=DAY + dt.timedelta(days=batch_id),
            quarantine_uri=f"{self.quarantine}/{batch_id:012d}",
        )
        return replace(load, **(self.options | options))

    def load(self, rows: pa.Table, mode: str = "full", **options: Any) -> BronzeOutcome:
        """Land and apply rows."""
        return bronze.apply(self.landed(rows, mode, **options), session=self.session)

    @property
    def table(self) -> Any:
        return open_table(self.uri, storage_options={})

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the table, without their hash, ordered by key."""
        reader = DeltaTableReader.open(self.uri, storage_options={})
        assert reader is not None
        rows = reader.read().read_all().drop_columns(["_row_hash"]).to_pylist()
        return sorted(rows, key=lambda row: [str(row[name]) for name in self.key])

    def history(self) -> list[dict[str, Any]]:
        """All versions of all rows, without their hash, ordered by key and begin."""
        reader = DeltaTableReader.open(self.options["history_uri"], storage_options={})
        assert reader is not None
        rows = reader.read().read_all().drop_columns(["_row_hash"]).to_pylist()
        return sorted(rows, key=lambda row: ([str(row[name]) for name in self.key], row["_valid_from"]))

    def quarantined(self, batch_id: int) -> list[dict[str, Any]]:
        """The rows that a load set aside, without their hash."""
        folder = self.quarantine / f"{batch_id:012d}"
        files = sorted(folder.glob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).drop_columns(["_row_hash"]).to_pylist()]

    @property
    def quarantine(self) -> Path:
        return self.root / "demo" / "quarantine" / "riders"

    def data_files(self) -> list[Path]:
        """The files of the table's newest version, oldest first."""
        reader = DeltaTableReader.open(self.uri, storage_options={})
        assert reader is not None
        assert reader.plain_files is not None
        return sorted(map(Path, reader.plain_files), key=lambda path: path.stat().st_mtime_ns)

    def files(self) -> set[str]:
        """Every file below the table's folder, the log's included."""
        return {str(path.relative_to(self.uri)) for path in Path(self.uri).rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A DuckDB instance for all tests."""
    opened = open_session(memory_limit="512MB", spill=tmp_path_factory.mktemp("spill"), threads=2)
    yield opened
    opened.close()


@pytest.fixture
def riders(tmp_path: Path, session: Session) -> Bronze:
    """An empty lake with room for one bronze table."""
    return Bronze(tmp_path / "lake one", session)
