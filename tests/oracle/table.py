"""One table as the platform keeps it, loaded as its operations do, and read without any of its code."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from platform_core.control.loads import LoadRow
from platform_core.faults import armed
from platform_core.lake import upkeep as lake_upkeep
from platform_core.lake.delta import open_table
from platform_core.lake.landing import batch_ids, batch_uri, read_batch
from platform_core.lake.source_state import read_state
from platform_core.lake.watermark import watermark
from platform_core.operations import replay as replaying
from platform_core.operations.ingest import ingest
from platform_core.operations.load_result import LoadResult
from platform_core.operations.platform import Platform
from platform_core.operations.reload import Reload
from platform_core.operations.upkeep import keep_up
from platform_core.specs.ingestion import (
    ColumnSpec,
    DetectChanges,
    DetectDeletes,
    IngestionSpec,
    LoadMode,
    MaskingRule,
    OnBadKey,
    SchemaContract,
)
from platform_core.specs.upkeep import UpkeepSpec
from tests.oracle.model import EXTRA, Columns, Declared, Row
from tests.oracle.nursery import Nursery
from tests.oracle.source import WORKSTREAM, ModelSource, connection

TECHNICAL = {"_is_current", "_is_deleted", "_modified_at", "_batch_id", "_row_hash"}
VERSION = {"_valid_from", "_valid_to", "_is_deleted", "_batch_id", "_row_hash"}
_TYPES = {"int64": pa.int64(), "int32": pa.int32(), "string": pa.string(), "bool": pa.bool_()}
_FAR = dt.timedelta(days=400)


@dataclass
class Bench:
    """The platform of one run and what it shares.

    Args:
        key: the workstream's masking key.
        nursery: starts processes that are killed.
    """

    folder: Path
    platform: Platform
    key: bytes
    nursery: Nursery
    tables: int = 0


@dataclass(frozen=True)
class Seen:
    """A table as a stranger to the platform finds it.

    Args:
        version: -1: there is none.
        batch: the newest batch, as it stands in the Delta log.
        columns: the source's own.
        mark: the watermark; the one thing here that the platform itself reads.
    """

    version: int = -1
    batch: int = 0
    columns: Columns | None = None
    rows: tuple[Row, ...] = ()
    mark: Any = None


@dataclass
class Table:
    """One table."""

    bench: Bench
    name: str
    declared: Declared
    _whole: set[int] = field(default_factory=set)

    @property
    def spec(self) -> IngestionSpec:
        return _spec(self.name, self.declared)

    @property
    def source(self) -> str:
        return _source(self.declared)

    # What is done

    def offer(self, rows: list[Row], columns: Columns) -> pa.Table:
        """Let the source have these rows."""
        schema = pa.schema([pa.field(name, _TYPES[type_]) for name, type_ in columns.items()])
        table = pa.Table.from_pylist(rows, schema=schema)
        ModelSource.tables[self.name] = table
        return table

    def offered(self) -> list[Row]:
        """The rows that the source has."""
        rows: list[Row] = ModelSource.tables[self.name].to_pylist()
        return rows

    def load(self, *, started_at: dt.datetime, reload: Reload | None = None) -> LoadResult:
        return ingest(
            self.spec,
            connection=connection(self.source),
            platform=self.bench.platform,
            started_at=started_at,
            reload=reload,
        )

    def load_broken(self, fault: str, *, started_at: dt.datetime) -> LoadResult:
        """Load while one thing fails; ``source:<n>`` is a source that dies after so many batches."""
        point, _, number = fault.partition(":")
        if point == "source":
            ModelSource.breaks_after = int(number)
            try:
                return self.load(started_at=started_at)
            finally:
                ModelSource.breaks_after = None
        with armed(fault):
            return self.load(started_at=started_at)

    def load_killed(self, fault: str, *, started_at: dt.datetime) -> str | None:
        rows = ModelSource.tables[self.name]
        return self.bench.nursery.load(
            spec=self.spec, rows=rows, source=self.source, fault=fault, started_at=started_at
        )

    def load_twice_at_once(self, *, started_at: dt.datetime) -> list[LoadResult | Exception]:
        def one(_: int) -> LoadResult | Exception:
            try:
                return self.load(started_at=started_at)
            except Exception as error:  # noqa: BLE001 - it is compared with what the model expects
                return error

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    def approve(self, batch: int) -> LoadResult:
        return replaying.approve(self.spec, batch, platform=self.bench.platform, by="anna", why="a test")

    def replay(self, batch: int) -> LoadResult:
        return replaying.replay(self.spec, batch, platform=self.bench.platform)

    def keep_up(self, operation: str) -> None:
        """Do upkeep with all the severity there is: nothing is too young to be removed."""
        options: dict[str, Any] = {"small_files": 1} if operation == "compact" else {}
        spec = UpkeepSpec(
            workstream=WORKSTREAM,
            name="all",
            operation=operation,
            tables=(f"{WORKSTREAM}.bronze.{self.name}", f"{WORKSTREAM}.bronze.{self.name}_history"),
            **options,
        )
        keep_up(spec, platform=self.bench.platform, now=lambda: dt.datetime.now(dt.UTC) + _FAR)
        for uri in (self.uri, self.history_uri):
            if operation in ("vacuum", "orphans"):
                lake_upkeep.vacuum(uri, storage_options={}, retention=dt.timedelta(0), untracked=operation == "orphans")
            elif operation == "logs":
                lake_upkeep.truncate_log(uri, storage_options={}, retention=dt.timedelta(0))

    # What is found

    @property
    def uri(self) -> str:
        return self.bench.platform.lake.table(self.spec.ref)

    @property
    def history_uri(self) -> str:
        return self.bench.platform.lake.table(self.spec.history_ref)

    @property
    def landing(self) -> str:
        return self.bench.platform.lake.landing(self.spec.ref)

    @property
    def version(self) -> int:
        table = open_table(self.uri, storage_options={})
        return -1 if table is None else table.version()

    def look(self) -> Seen:
        table = open_table(self.uri, storage_options={})
        if table is None:
            return Seen()
        columns, rows = _read(table, TECHNICAL)
        mark = watermark(table, "seq", storage_options={})
        return Seen(table.version(), table.transaction_version("edp") or 0, columns, tuple(rows), mark)

    def history(self) -> tuple[Columns, list[Row]] | None:
        table = open_table(self.history_uri, storage_options={})
        return None if table is None else _read(table, VERSION)

    def quarantined(self, batch: int) -> list[Row]:
        folder = Path(batch_uri(self.bench.platform.lake.quarantine(self.spec.ref), batch))
        if not folder.exists():
            return []
        return [row for file in sorted(folder.iterdir()) for row in pq.read_table(file, partitioning=None).to_pylist()]

    def landed(self) -> dict[int, bool]:
        """Batches in the landing, and whether each is whole."""
        found = batch_ids(self.landing, storage_options={})
        for batch in set(found) - self._whole:
            if read_batch(batch_uri(self.landing, batch), storage_options={}) is not None:
                self._whole.add(batch)
        return {batch: batch in self._whole for batch in found}

    def mode_of(self, batch: int) -> str:
        """How a batch of the landing was read."""
        landed = read_batch(batch_uri(self.landing, batch), storage_options={})
        assert landed is not None
        return landed.mode

    def remembers(self, *batches: int) -> bool:
        """Whether what the source knew after one of some batches is still kept."""
        folder = self.bench.platform.lake.source_state(self.spec.ref)
        return any(read_state(folder, batch, storage_options={}) is not None for batch in batches)

    def log(self, *, after: int) -> list[LoadRow]:
        """Rows of the load log above a batch id, oldest first; those of upkeep are no loads."""
        rows = self.bench.platform.loads.recent(table=self.spec.ref, limit=12)
        return sorted((row for row in rows if row.batch_id > after), key=lambda row: row.batch_id)

    def approval(self) -> int | None:
        found = self.bench.platform.loads.approval(self.spec.ref)
        return None if found is None else found.batch_id

    # Copies

    def save(self) -> Path:
        target = self.bench.folder / "saved" / self.name
        if target.exists():
            shutil.rmtree(target)
        for uri in (self.uri, self.history_uri):
            if Path(uri).exists():
                shutil.copytree(uri, target / Path(uri).name)
        return target

    def restore(self) -> None:
        """Put bronze and its history back as they were saved."""
        target = self.bench.folder / "saved" / self.name
        for uri in (self.uri, self.history_uri):
            if Path(uri).exists():
                shutil.rmtree(uri)
            if (saved := target / Path(uri).name).exists():
                shutil.copytree(saved, uri)

    def remove(self) -> None:
        for folder in (
            self.uri,
            self.history_uri,
            self.landing,
            self.bench.platform.lake.quarantine(self.spec.ref),
            self.bench.platform.lake.source_state(self.spec.ref),
            str(self.bench.folder / "saved" / self.name),
        ):
            shutil.rmtree(folder, ignore_errors=True)
        ModelSource.tables.pop(self.name, None)


def attempt(action: Callable[[], Any]) -> Any:
    """What an action gives, or the error that it ends in."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - it is compared with what the model expects
        return error


def _masked(mask: str, **options: Any) -> ColumnSpec:
    return ColumnSpec(personal=True, masking=MaskingRule(mask=mask, options=options))


@lru_cache(maxsize=256)
def _spec(name: str, said: Declared) -> IngestionSpec:
    columns: dict[str, ColumnSpec] = {}
    if said.masked:
        columns["name"] = _masked("hash", domain="text")
        columns["value"] = _masked("partial", keep_first=1)
    if said.masked_key:
        columns["id"] = _masked("hash", domain="identifier")
    if said.classified:
        columns[EXTRA] = ColumnSpec()
    return IngestionSpec(
        workstream=WORKSTREAM,
        source=_source(said),
        object=name,
        table=name,
        mode=LoadMode(said.mode),
        key=said.key,
        cursor="seq" if said.cursor else None,
        lookback=dt.timedelta(seconds=said.lookback),
        sequence_by="rank" if said.rank else None,
        deleted_flag="gone" if said.flag else None,
        detect_deletes=None if said.every is None else DetectDeletes(every=said.every),
        max_delete_ratio=said.ratio,
        delete_floor=said.floor,
        on_bad_key=OnBadKey.QUARANTINE if said.quarantine else OnBadKey.REFUSE,
        schema=SchemaContract(new_columns=said.new_columns, missing=said.missing, type_change=said.type_change),
        snapshot_history=said.history,
        detect_changes=DetectChanges(by="source") if said.told else None,
        columns=columns,
    )


def _source(said: Declared) -> str:
    return "counting" if said.stateful else "telling" if said.told else "model"


def _read(table: DeltaTable, own: set[str]) -> tuple[Columns, list[Row]]:
    schema = pa.schema(table.schema().to_arrow())
    files = [pq.read_table(path, partitioning=None) for path in table.file_uris()]
    rows = pa.concat_tables(files, promote_options="permissive").to_pylist() if files else []
    columns = {name: str(type_) for name, type_ in zip(schema.names, schema.types, strict=True) if name not in own}
    assert own <= set(schema.names)
    return columns, [dict.fromkeys(schema.names) | row for row in rows]
