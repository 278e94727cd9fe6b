"""A source that hands out rows, and a platform in a fresh folder to load them into."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_core.control.loads import LoadRow, open_loads
from platform_core.engines.local import LocalEngine
from platform_core.errors import SourceError
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.landing import batch_ids
from platform_core.lake.paths import Lake
from platform_core.operations import extract as module
from platform_core.operations.ingest import ingest
from platform_core.operations.load_result import LoadResult
from platform_core.operations.platform import Platform
from platform_core.operations.reload import Reload
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.secrets.files import FileSecrets, create_masking_key
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec, LakeSpec, PluginChoice
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec, LoadMode, MaskingRule

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class RowsOptions(Model):
    """Which set of rows a source hands out."""

    name: str


class RowsSource(Source):
    """Hands out rows that the test has put under a name, seven at a time."""

    Options = RowsOptions
    rows: ClassVar[dict[str, pa.Table]] = {}
    fail_after: ClassVar[Exception | None] = None
    requests: ClassVar[list[ReadRequest]] = []
    schemas: ClassVar[int] = 0
    closed: ClassVar[int] = 0
    meanwhile: ClassVar[Callable[[], None] | None] = None
    """Called once, when the last row of a read was handed out."""

    def schema(self, request: ReadRequest) -> pa.Schema:
        RowsSource.schemas += 1
        return self._table().schema

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        RowsSource.requests.append(request)
        table = self._wanted(request)
        if request.cursor is not None:
            column = table[request.cursor]
            for bound, compare in ((request.since, pc.greater_equal), (request.until, pc.less_equal)):
                if bound is not None:
                    table = table.filter(compare(table[request.cursor], pa.scalar(bound, column.type)))
        if request.columns is not None:
            table = table.select(request.columns)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from table.to_batches(max_chunksize=7)
            if self.fail_after is not None:
                raise self.fail_after
            if (meanwhile := RowsSource.meanwhile) is not None:
                RowsSource.meanwhile = None
                meanwhile()

        return pa.RecordBatchReader.from_batches(table.schema, batches())

    def close(self) -> None:
        RowsSource.closed += 1

    def _wanted(self, request: ReadRequest) -> pa.Table:
        return self._table()

    def _table(self) -> pa.Table:
        if self.options.name not in self.rows:
            raise SourceError(f"no rows named {self.options.name}")
        return self.rows[self.options.name]


class Ledger(RowsSource):
    """Knows by itself how many of its rows it has handed out."""

    keeps_state = True

    def _wanted(self, request: ReadRequest) -> pa.Table:
        table = self._table()
        if request.mode is LoadMode.FULL:
            return table
        return table.slice(int(request.state or b"0"))

    def state(self) -> bytes:
        return str(self._table().num_rows).encode()


class Noted(RowsSource):
    """Has something to say of what it read."""

    def notes(self) -> tuple[str, ...]:
        return ("one row was set aside",)


SOURCES = {"rows": RowsSource, "ledger": Ledger, "noted": Noted}


def declared(*, mask: str | None = None, personal: bool = False, **options: Any) -> ColumnSpec:
    """A column as it is written in YAML."""
    return ColumnSpec(personal=personal, masking=None if mask is None else MaskingRule(mask=mask, options=options))


@dataclass
class Loads:
    """Loads one object again and again, a day apart."""

    folder: Path
    platform: Platform
    spec: dict[str, Any] = field(default_factory=lambda: {"mode": "full", "key": ("id",)})
    source: str = "rows"
    day: int = 0
    table: str = "riders"

    @property
    def bronze(self) -> Path:
        return self.folder / "lake" / "crm" / "bronze" / self.table

    @property
    def landing(self) -> Path:
        return self.folder / "lake" / "crm" / "landing" / "riders"

    def load(self, rows: pa.Table | None = None, reload: Reload | None = None, **changes: Any) -> LoadResult:
        """Load rows, or those of the last time."""
        if rows is not None:
            RowsSource.rows["riders"] = rows
        self.day += 1
        return ingest(
            self.declared(**changes),
            connection=self.connection,
            platform=self.platform,
            started_at=DAY + dt.timedelta(days=self.day),
            reload=reload,
        )

    def declared(self, **changes: Any) -> IngestionSpec:
        """The table as it is declared."""
        fields = self.spec | changes
        fields["columns"] = {name: declared(**column) for name, column in fields.get("columns", {}).items()}
        return IngestionSpec(workstream="crm", source="rows", object="riders", table=self.table, **fields)

    @property
    def connection(self) -> ConnectionSpec:
        return ConnectionSpec(name="rows", workstream="crm", type=self.source, options={"name": "riders"})

    @property
    def batches(self) -> list[int]:
        """Ids of the batches in the landing."""
        return batch_ids(str(self.landing), storage_options={})

    @property
    def log(self) -> list[LoadRow]:
        """The load log, oldest first."""
        return self.platform.loads.recent(limit=100)[::-1]

    def rows(self) -> list[dict[str, Any]]:
        """The bronze table, ordered by its first column."""
        reader = DeltaTableReader.open(str(self.bronze), storage_options={})
        assert reader is not None
        return sorted(reader.read().read_all().to_pylist(), key=lambda row: str(next(iter(row.values()))))

    def state(self) -> list[tuple[Any, ...]]:
        """Key, currentness and day of change of every row."""
        return [(row["id"], row["_is_current"], row["_modified_at"].day) for row in self.rows()]

    def with_platform(self, **changes: Any) -> Loads:
        """The same loads in a platform that differs."""
        return replace(self, platform=replace(self.platform, **changes))


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    """An empty lake, with a masking key for the workstream `crm`."""
    found: Callable[..., Any] = plugin
    monkeypatch.setattr(module, "plugin", lambda kind, name: SOURCES.get(name) or found(kind, name))
    fresh = {"rows": {}, "fail_after": None, "requests": [], "closed": 0, "schemas": 0, "meanwhile": None}
    for name, value in fresh.items():
        monkeypatch.setattr(RowsSource, name, value)
    monkeypatch.setattr(module, "_known_names", {})
    create_masking_key(tmp_path / "secrets", "crm")
    environment = EnvironmentSpec(
        name="test", lake=LakeSpec(root=str(tmp_path / "lake")), secrets=PluginChoice(type="files")
    )
    secrets = FileSecrets(FileSecrets.Options(path=str(tmp_path / "secrets")))
    platform = Platform(
        environment=environment,
        lake=Lake(str(tmp_path / "lake")),
        engine=LocalEngine(LocalEngine.Options(memory_limit="256MB", threads=2, spill=str(tmp_path / "spill"))),
        secrets=secrets,
        loads=open_loads(environment.control, state=tmp_path / "state", secrets=secrets),
        state=tmp_path / "state",
        log=logging.getLogger("test.ingest"),
    )
    yield Loads(tmp_path, platform)
    platform.loads.close()


@pytest.fixture
def source() -> type[RowsSource]:
    """The source that `loads` reads from."""
    return RowsSource
