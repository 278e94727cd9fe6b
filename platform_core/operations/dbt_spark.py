"""Build dbt projects with a Spark in dbt's own process, over the lake's Delta tables where they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from platform_core.engines.dbt_spark import COLUMNS_FILE, SPARK_VARIABLE
from platform_core.engines.spark_sessions import LocalSparkOptions
from platform_core.errors import StorageError
from platform_core.lake.delta import DeltaTableReader, open_table, write
from platform_core.lake.storage import local_path
from platform_core.operations.dbt_deferral import Deferral, missing
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.dbt_warehouse import Built, Relation, Warehouse, lake_sources
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.settings import environment_value
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.sources.default": "delta",
    # Of tables that one machine reads; the default of 50 costs seconds a table.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.showConsoleProgress": "false",
}
_LASTING = ("incremental", "snapshot")
"""What a build adds to; anything else it makes anew."""


class SparkWarehouse(Warehouse):
    """A folder of Delta tables, which a Spark in dbt's process writes.

    Spark's catalogue lives as long as that process. Each build shows it what is there: the lake's tables and the models
    of earlier builds as views, which nothing writes through, and as tables those that the build adds to.
    """

    def __init__(self, project: DbtProject, platform: Platform) -> None:
        """Keep where things lie; nothing is reached yet."""
        self._project = project
        self._platform = platform
        self._folder = project.state.absolute() / project.name / "spark"
        self._tables = self._folder / "tables"

    def variables(self) -> Mapping[str, str]:
        found = {SPARK_VARIABLE: str(self._folder / "session.json")}
        home = environment_value("JAVA_HOME")
        return found if home is None else {**found, "JAVA_HOME": home}

    def prepare(
        self,
        manifest: DbtManifest,
        *,
        wanted: Collection[str],
        tested: Collection[TableRef] = (),
        full_refresh: bool = False,
    ) -> Deferral:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Rows of a build that was killed.
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        (self._folder / COLUMNS_FILE).unlink(missing_ok=True)
        held = dict(self._held(manifest))
        built = missing(manifest, wanted, present={model.relation for model in held.values() if model is not None})
        building = {*wanted, *built}
        shown: list[tuple[str, str, str, int | None]] = []
        for folder, model in held.items():
            lasting = model is not None and _lasts(model, full_refresh=full_refresh)
            table = open_table(str(folder), storage_options={})
            if table is None or model is None or (model.unique_id in building and not lasting):
                shutil.rmtree(folder)
                continue
            if model.unique_id in building:
                # The lock of the project is held: nobody reads what its newest version does without.
                table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
            version = None if model.unique_id in building else table.version()
            shown.append((folder.parent.stem, folder.name, str(folder), version))
        for ref, reader in lake_sources(manifest, {*wanted, *built}, self._platform, tested=tested, where="Spark"):
            shown.append((ref.layer, ref.name, *self._in_reach(ref, reader)))
        (self._folder / "session.json").write_text(json.dumps({"options": self._options(), "tables": shown}))
        return Deferral(built=frozenset(built))

    @contextmanager
    def built(self) -> Iterator[Built]:
        yield _SparkBuilt(self._folder / COLUMNS_FILE, self._tables)

    def _held(self, manifest: DbtManifest) -> Iterator[tuple[Path, Model | None]]:
        """The tables of earlier builds, and the model of each; None: the project has none of that name any more."""
        # Another target than that of the manifest may have other schemas.
        by_name = {model.relation[1].lower(): model for model in manifest.any_by_id.values()}
        by_relation = {_place(model.relation): model for model in manifest.any_by_id.values()}
        for folder in sorted(self._tables.glob("*.db/*/")):
            place = f"{folder.parent.name}/{folder.name}"
            yield folder, by_relation.get(place) or by_name.get(folder.name)

    def _in_reach(self, ref: TableRef, reader: TableReader) -> tuple[str, int]:
        """Folder and version of what Spark reads: the table itself, or a copy of a view or of what lies elsewhere."""
        if isinstance(reader, DeltaTableReader) and (local := local_path(reader.handle.table_uri)) is not None:
            return str(local.absolute()), reader.version
        copies = self._folder / "copies" / ref.workstream / ref.layer / ref.name
        copy = copies / str(reader.version)
        held = open_table(str(copy), storage_options={})
        if held is not None:
            return str(copy), held.version()
        shutil.rmtree(copies, ignore_errors=True)
        rows = reader.read()
        written = write(rows, table=ref, uri=str(copy), storage_options={}, mode=WriteMode.OVERWRITE)
        return str(copy), written.version

    def _options(self) -> Mapping[str, object]:
        choice = self._platform.environment.spark
        declared = LocalSparkOptions(**({} if choice is None else choice.options))
        own = {
            "spark.sql.catalogImplementation": "in-memory",
            "spark.sql.warehouse.dir": str(self._tables),
            "spark.local.dir": str(self._folder / "scratch"),
        }
        return {"master": declared.master, "config": {**_DELTA, **declared.config, **own}}


class _SparkBuilt(Built):
    dialect = "spark"

    def __init__(self, columns: Path, tables: Path) -> None:
        self._columns = {(schema, name): types for schema, name, types in json.loads(columns.read_bytes())}
        self._tables = tables

    def columns(self) -> Mapping[Relation, Mapping[str, str]]:
        return self._columns

    def rows(self, relation: Relation) -> pa.RecordBatchReader:
        folder = self._tables / _place(relation)
        reader = DeltaTableReader.open(str(folder), storage_options={})
        if reader is None:
            raise StorageError(
                f"{'.'.join(relation)} was built, and is no Delta table\n  looked at: {folder}\n"
                "  leave file_format and location_root out of its config, or file_format: delta"
            )
        return reader.read()


def _place(relation: Relation) -> str:
    """Where Spark keeps a table, from the folder of all."""
    schema, name = relation
    return f"{schema.lower()}.db/{name.lower()}"


def _lasts(model: Model, *, full_refresh: bool) -> bool:
    return model.materialized in _LASTING and not (full_refresh and model.materialized != "snapshot")
