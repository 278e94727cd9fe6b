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

from platform_core.engines.local import LocalEngine
from platform_core.errors import SourceError
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.paths import Lake
from platform_core.operations import ingest as module
from platform_core.operations.ingest import LoadResult, ingest
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.secrets.files import FileSecrets, create_masking_key
from platform_core.specs.base import Model
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.environment import EnvironmentSpec, LakeSpec, PluginChoice
from platform_core.specs.ingestion import ColumnSpec, IngestionSpec, MaskingRule

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class RowsOptions(Model):
    """Which set of rows a source hands out."""

    name: str


class RowsSource(Source):
    """Hands out rows that the test has put under a name."""

    Options = RowsOptions
    rows: ClassVar[dict[str, pa.Table]] = {}
    fail_after: ClassVar[Exception | None] = None
    requests: ClassVar[list[ReadRequest]] = []
    closed: ClassVar[int] = 0

    def schema(self, request: ReadRequest) -> pa.Schema:
        return self._table().schema

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        type(self).requests.append(request)
        table = self._table()
        if request.cursor is not None and request.since is not None:
            column = table[request.cursor]
            table = table.filter(pc.greater_equal(column, pa.scalar(request.since, column.type)))

        def batches() -> Iterator[pa.RecordBatch]:
            yield from table.to_batches(max_chunksize=7)
            if self.fail_after is not None:
                raise self.fail_after

        return pa.RecordBatchReader.from_batches(table.schema, batches())

    def close(self) -> None:
        type(self).closed += 1

    def _table(self) -> pa.Table:
        if self.options.name not in self.rows:
            raise SourceError(f"no rows named {self.options.name}")
        return self.rows[self.options.name]


def declared(*, mask: str | None = None, personal: bool = False, **options: Any) -> ColumnSpec:
    """A column as it is written in YAML."""
    return ColumnSpec(personal=personal, masking=None if mask is None else MaskingRule(mask=mask, options=options))


@dataclass
class Loads:
    """Loads one object again and again, a day apart."""

    folder: Path
    platform: Platform
    spec: dict[str, Any] = field(default_factory=lambda: {"mode": "full", "key": ("id",)})
    day: int = 0

    @property
    def bronze(self) -> Path:
        return self.folder / "lake" / "crm" / "bronze" / "riders"

    @property
    def landing(self) -> Path:
        return self.folder / "lake" / "crm" / "landing" / "riders"

    def load(self, rows: pa.Table | None = None, **changes: Any) -> LoadResult:
        """Load rows, or those of the last time."""
        if rows is not None:
            RowsSource.rows["riders"] = rows
        self.day += 1
        fields = self.spec | changes
        fields["columns"] = {name: declared(**column) for name, column in fields.get("columns", {}).items()}
        return ingest(
            IngestionSpec(workstream="crm", source="rows", object="riders", table="riders", **fields),
            connection=ConnectionSpec(name="rows", workstream="crm", type="rows", options={"name": "riders"}),
            platform=self.platform,
            started_at=DAY + dt.timedelta(days=self.day),
        )

    def rows(self) -> list[dict[str, Any]]:
        """The bronze table, ordered by its first column."""
        reader = DeltaTableReader.open(str(self.bronze), storage_options={})
        assert reader is not None
        return sorted(reader.read().read_all().to_pylist(), key=lambda row: str(row["id"]))

    def with_platform(self, **changes: Any) -> Loads:
        """The same loads in a platform that differs."""
        return replace(self, platform=replace(self.platform, **changes))


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """An empty lake, with a masking key for the workstream `crm`."""
    found: Callable[..., Any] = plugin
    monkeypatch.setattr(module, "plugin", lambda kind, name: RowsSource if name == "rows" else found(kind, name))
    for name, value in {"rows": {}, "fail_after": None, "requests": [], "closed": 0}.items():
        monkeypatch.setattr(RowsSource, name, value)
    create_masking_key(tmp_path / "secrets", "crm")
    environment = EnvironmentSpec(
        name="test", lake=LakeSpec(root=str(tmp_path / "lake")), secrets=PluginChoice(type="files")
    )
    platform = Platform(
        environment=environment,
        lake=Lake(str(tmp_path / "lake")),
        engine=LocalEngine(LocalEngine.Options(memory_limit="256MB", threads=2, spill=str(tmp_path / "spill"))),
        secrets=FileSecrets(FileSecrets.Options(path=str(tmp_path / "secrets"))),
        state=tmp_path,
        log=logging.getLogger("test.ingest"),
    )
    return Loads(tmp_path, platform)


@pytest.fixture
def source() -> type[RowsSource]:
    """The source that `loads` reads from."""
    return RowsSource
