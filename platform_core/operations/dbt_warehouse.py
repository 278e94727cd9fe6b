"""The database that dbt builds a project in, as the platform sees it: what dbt finds there, and what is taken out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from platform_core.control.dbt_targets import target_fault
from platform_core.errors import LeaseError, LoadError, StepError, StorageError
from platform_core.lake.delta import DeltaTableReader, Written, write
from platform_core.lake.views import Opened, ViewReader, open_table_or_view
from platform_core.operations.dbt_deferral import Deferral, deferral, needs_more
from platform_core.operations.dbt_manifest import DbtManifest, Model
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.processing import WriteMode
from platform_core.specs.sql import DIALECT
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_BATCH_ROWS = 65_536
_MOST_MEMORY = "1GB"
_ATTEMPTS = 3
_KNOWN_SOURCES = "SELECT relation FROM edp.sources"
_VIEWS = "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
_DEFERRED = "SELECT workstream, layer, name FROM edp.deferred ORDER BY ALL"

Relation = tuple[str, str]
"""Schema and name in dbt's database."""


class Built(ABC):
    """The database after dbt has built in it; nobody writes it while the project is locked."""

    dialect: ClassVar[str] = DIALECT
    """What its SQL is read as."""

    @abstractmethod
    def columns(self) -> Mapping[Relation, Mapping[str, str]]:
        """Type by column by relation; sources are among them."""

    @abstractmethod
    def rows(self, relation: Relation) -> pa.RecordBatchReader:
        """The rows of a table, streamed."""

    def deferred(self) -> tuple[TableRef, ...]:
        """Shared tables that dbt has read in the place of the person's own."""
        return ()


class Warehouse(ABC):
    """Where one project is built."""

    @abstractmethod
    def prepare(
        self,
        manifest: DbtManifest,
        *,
        wanted: Collection[str],
        tested: Collection[TableRef] = (),
        full_refresh: bool = False,
    ) -> Deferral:
        """Make ready what dbt will look for; what models read that is not there is built or read as it says.

        Args:
            wanted: unique ids of models to build.
            tested: tables that tests look at, sources or models.
            full_refresh: whether incremental models and seeds are made anew.
        """

    def variables(self) -> Mapping[str, str]:
        """Environment variables by which profiles.yml finds the database."""
        return {}

    @abstractmethod
    def built(self) -> AbstractContextManager[Built]:
        """The database, now that dbt has ended."""


class DuckDbWarehouse(Warehouse):
    """A DuckDB file, which reads the lake's tables through a plug-in of dbt-duckdb."""

    def __init__(self, project: DbtProject, platform: Platform) -> None:
        self._project = project
        self._platform = platform

    def prepare(
        self,
        manifest: DbtManifest,
        *,
        wanted: Collection[str],
        tested: Collection[TableRef] = (),
        full_refresh: bool = False,
    ) -> Deferral:
        more = Deferral()
        if needs_more(manifest, wanted):
            more = deferral(manifest, wanted=wanted, present=self._present(), lake=self._platform.lake)
        return replace(more, sources=_looked_at_early(manifest, wanted))

    @contextmanager
    def built(self) -> Iterator[Built]:
        with self._opened() as connection:
            yield _DuckDbBuilt(connection, person=self._platform.lake.shared is not None)

    def _present(self) -> set[Relation]:
        """What the database holds, other than views of the lake."""
        if not self._project.database.is_file():
            return set()
        with self._opened() as connection:
            built = _DuckDbBuilt(connection, person=True)
            known = (
                {name for (name,) in connection.execute(_KNOWN_SOURCES).fetchall()} if built.holds("sources") else set()
            )
            views = {(schema, name) for schema, name in connection.execute(_VIEWS).fetchall()}
            shown = {relation for relation in views if ".".join(relation) in known}
            return {relation for relation in built.columns() if relation not in shown}

    @contextmanager
    def _opened(self) -> Iterator[DuckDBPyConnection]:
        import duckdb

        database = self._project.database
        try:
            connection = duckdb.connect(
                str(database),
                read_only=True,
                config={"memory_limit": _MOST_MEMORY, "python_enable_replacements": "false"},
            )
        except duckdb.Error as error:
            raise StorageError(f"{database} cannot be opened ({type(error).__name__})") from None
        try:
            connection.execute("SET GLOBAL TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()


def _looked_at_early(manifest: DbtManifest, wanted: Collection[str]) -> tuple[TableRef, ...]:
    """Sources whose columns dbt asks for in unit tests, before any model has made it load them."""
    tested = {unique_id for test in manifest.tests if test.unit for unique_id in test.reads}
    sources = set(manifest.sources)
    models = [manifest.model_by_id[unique_id] for unique_id in wanted if unique_id in tested]
    return tuple(sorted({ref for model in models for ref in model.upstream if ref in sources}))


class _DuckDbBuilt(Built):
    def __init__(self, connection: DuckDBPyConnection, *, person: bool) -> None:
        self._connection = connection
        self._person = person

    def columns(self) -> Mapping[Relation, Mapping[str, str]]:
        found: dict[Relation, dict[str, str]] = {}
        rows = self._connection.execute(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE NOT internal ORDER BY schema_name, table_name, column_index"
        ).fetchall()
        for schema, table, column, type_ in rows:
            found.setdefault((schema, table), {})[column] = type_
        return found

    def rows(self, relation: Relation) -> pa.RecordBatchReader:
        from sqlglot import exp

        schema, name = relation
        query = exp.select("*").from_(exp.table_(name, db=schema, quoted=True))
        return self._connection.sql(query.sql(dialect="duckdb")).to_arrow_reader(_BATCH_ROWS)

    def deferred(self) -> tuple[TableRef, ...]:
        if not self._person or not self.holds("deferred"):
            return ()
        return tuple(TableRef(*row) for row in self._connection.execute(_DEFERRED).fetchall())

    def holds(self, table: str) -> bool:
        """Whether the lake's plug-in has made a table of its own; a project need not use it."""
        return ("edp", table) in self.columns()


@dataclass(frozen=True)
class Publisher:
    """Replaces tables of the lake by what a build has made, each by one commit: readers see the old or the new one.

    Args:
        batch: id of the build: a table that holds a later one is left alone.
    """

    platform: Platform
    batch: int

    def publish(self, model: Model, relation: Relation, built: Built) -> Written:
        """Replace the table of one model.

        Raises:
            StepError: the run was cancelled; the table is as it was.
            LeaseError: a later build has published it.
            StorageError: the lake refused.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            if self.platform.cancelled():
                raise StepError(f"{model.ref}: cancelled before it was published")
            try:
                written = self._write(model, built.rows(relation))
            except LoadError:
                # Upkeep of the table committed first; the rows are still there, and are read again.
                if attempt == _ATTEMPTS:
                    raise
                continue
            if not written.committed:
                raise LeaseError(
                    f"{model.ref}: not published, because a later build has done so\n"
                    f"  this one (batch {self.batch}) had lost its lease; the table is as the later one left it"
                )
            self.platform.log.info("%s: published %d rows as version %d", model.ref, written.rows, written.version)
            return written
        raise AssertionError

    def _write(self, model: Model, rows: pa.RecordBatchReader) -> Written:
        return write(
            rows,
            table=model.ref,
            uri=self.platform.lake.table(model.ref),
            storage_options=self.platform.lake.storage_options,
            mode=WriteMode.OVERWRITE,
            batch=self.batch,
            metadata={"dbt_model": model.unique_id, "dbt_checksum": model.checksum},
        )


def warehouse_of(project: DbtProject, platform: Platform) -> Warehouse:
    """Where a project is built in an environment.

    Raises:
        ConfigError: profiles.yml has no such target.
        StepError: nothing is known of its adapter, or the environment has not what it builds in.
    """
    if fault := target_fault(project.output, platform.environment):
        raise StepError(f"dbt project {project.name}: " + "\n  ".join(fault))
    if project.adapter == "postgres":
        from platform_core.operations.dbt_postgres import PostgresWarehouse

        return PostgresWarehouse(project, platform)
    if project.adapter == "spark":
        from platform_core.operations.dbt_spark import SparkWarehouse

        return SparkWarehouse(project, platform)
    if project.adapter == "databricks" and project.choice.databricks is not None:
        from platform_core.operations.dbt_databricks import DatabricksWarehouse

        return DatabricksWarehouse(project, platform, project.choice.databricks)
    return DuckDbWarehouse(project, platform)


def lake_sources(
    manifest: DbtManifest, wanted: Collection[str], platform: Platform, *, tested: Collection[TableRef], where: str
) -> Iterator[tuple[TableRef, DeltaTableReader | ViewReader]]:
    """The lake tables that a build reads by ``source()``, each as of its newest version.

    Args:
        wanted: unique ids of the models that are built; none: all that the project declares is read.
        tested: tables that tests look at; those that are sources are read, too.
        where: they are called ``<layer>.<name>``, for messages.

    Raises:
        StorageError: there is no such table, or two have one name there.
    """

    def select(sql: str, tables: Mapping[TableRef, TableReader]) -> pa.RecordBatchReader:
        return platform.engine.select(sql, tables=tables, variables={})

    named: dict[tuple[str, str], TableRef] = {}
    opened: Opened = {}
    for ref in sorted({*manifest.reads(wanted), *tested} & {*manifest.sources} if wanted else manifest.sources):
        if (other := named.setdefault((ref.layer, ref.name), ref)) != ref:
            raise StorageError(
                f"{ref} and {other} are both {ref.layer}.{ref.name} in {where}, so one project cannot read both\n"
                "  read one of them in a step or another project, and its result here"
            )
        reader = open_table_or_view(ref, lake=platform.lake, select=select, opened=opened)
        if reader is None:
            raise StorageError(
                f"table {ref} does not exist yet\n  looked at: {platform.lake.places(ref)}\n  build {ref} first"
            )
        yield ref, reader
