"""Give dbt-duckdb the lake's tables as sources; named under ``plugins`` in a project's ``profiles.yml``.

.. code-block:: yaml

    plugins:
      - module: platform_core.engines.dbt_lake
        alias: lake
        config:
          root: "{{ env_var('EDP_LAKE_ROOT') }}"

In a person's lake (``EDP_LAKE_SHARED_ROOT`` is set) what the person does not have is read from the shared tables.
What ``EDP_DBT_DEFERRED`` lists are views of tables of the lake from the beginning: models that are not built, and
sources that dbt looks at before any model has made it load them.

A source ``source('mobility', 'rides')`` with ``schema: silver`` and ``config: {meta: {plugin: lake}}`` is the lake
table ``mobility.silver.rides``, as of its newest version when dbt first asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dbt.adapters.contracts.relation import RelationConfig
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import SourceConfig
from sqlglot import exp

from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.errors import StorageError
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.paths import DEFERRED_VARIABLE, SHARED_ROOT_VARIABLE, Lake
from platform_core.lake.views import Opened, ViewReader, open_table_or_view
from platform_core.plugins.interfaces import TableReader
from platform_core.settings import environment_value
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from pyarrow.dataset import Dataset

_WORKSTREAM = "edp_workstream"
_IS_TABLE = (
    "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = ? AND table_name = ?"
)


class Plugin(BasePlugin):
    """Reads Delta tables of one lake; dbt-duckdb looks for a class of this name."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Keep where the lake lies.

        Args:
            plugin_config: ``root``, a folder or URL, and ``storage_options`` for the object store of a URL, a
                mapping or its JSON.
        """
        options = plugin_config.get("storage_options") or {}
        if isinstance(options, str):
            # profiles.yml gives what it takes from a variable as text.
            options = json.loads(options)
        self._lake = Lake(str(plugin_config["root"]), options, environment_value(SHARED_ROOT_VARIABLE))
        self._opened: Opened = {}
        self._given: dict[str, TableRef] = {}
        self._remembered: dict[str, Dataset | pa.Table] = {}
        self._connection: DuckDBPyConnection | None = None

    def configure_connection(self, conn: DuckDBPyConnection) -> None:
        """Open the tables of earlier runs again.

        A view over a source lasts, but what it looks at is known to the process only that made it: a run of one model
        would find the views below it empty-handed.
        """
        conn.execute("CREATE SCHEMA IF NOT EXISTS edp")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS edp.sources "
            "(relation VARCHAR PRIMARY KEY, workstream VARCHAR, layer VARCHAR, name VARCHAR)"
        )
        if self._lake.shared is not None:
            # What is read from the shared tables now; who started this process looks here.
            conn.execute(
                "CREATE OR REPLACE TABLE edp.deferred "
                "(workstream VARCHAR, layer VARCHAR, name VARCHAR, PRIMARY KEY (workstream, layer, name))"
            )
        self._connection = conn
        deferred = json.loads(environment_value(DEFERRED_VARIABLE) or "[]")
        for schema, relation, *parts in deferred:
            conn.execute("INSERT OR REPLACE INTO edp.sources VALUES (?, ?, ?, ?)", [f"{schema}.{relation}", *parts])
        for relation, *parts in conn.execute("SELECT relation, workstream, layer, name FROM edp.sources").fetchall():
            ref = TableRef(*parts)
            reader = self._open(ref)
            if reader is not None:
                # dbt-duckdb's own name for what a source's view selects from.
                self._remembered[relation.replace(".", "_") + "_df"] = _readable(reader)
        for schema, relation, *_ in deferred:
            self._show(f"{schema}_{relation}_df", schema, relation)

    def _show(self, rows: str, schema: str, relation: str) -> None:
        """Let a model be a view of a table of the lake; dbt replaces it when it builds the model."""
        if self._connection is None or rows not in self._remembered:
            return
        self._connection.register(rows, self._remembered[rows])
        view = exp.table_(relation, db=schema, quoted=True)
        select = exp.select("*").from_(exp.table_(rows, quoted=True))
        made = exp.Create(this=exp.table_(schema, quoted=True), kind="SCHEMA", exists=True)
        self._connection.execute(made.sql(dialect="duckdb"))
        if self._connection.execute(_IS_TABLE, [schema, relation]).fetchone():
            gone = exp.Drop(tables=[view.copy()], kind="TABLE")
            self._connection.execute(gone.sql(dialect="duckdb"))
        shown = exp.Create(this=view, kind="VIEW", expression=select, replace=True)
        self._connection.execute(shown.sql(dialect="duckdb"))

    def configure_cursor(self, cursor: DuckDBPyConnection) -> None:
        """Show them to a cursor, which inherits no Arrow objects."""
        for name, rows in self._remembered.items():
            cursor.register(name, rows)

    def load(self, source_config: SourceConfig) -> Dataset | pa.Table:
        """The rows of one table: an Arrow dataset, of which DuckDB reads only the columns and files that it needs.

        Files of a table with deletion vectors also hold rows that are gone, so such a table is read by delta-rs,
        into memory: dbt may scan a source more than once. So is a view of the lake.

        Raises:
            StorageError: there is no such table, or its name in DuckDB is taken by a table of another workstream.
        """
        ref = TableRef(str(source_config[_WORKSTREAM]), source_config.schema, source_config.identifier)
        name = source_config.table_name()
        if self._given.setdefault(name, ref) != ref:
            raise StorageError(
                f"{ref} and {self._given[name]} are both {name} in DuckDB, so one project cannot read both\n"
                "  read one of them in a step or another project, and its result here"
            )
        reader = self._open(ref)
        if reader is None:
            raise StorageError(
                f"table {ref} does not exist yet\n  looked at: {self._lake.places(ref)}\n  build {ref} first"
            )
        if self._connection is not None:
            with self._connection.cursor() as cursor:
                cursor.execute("INSERT OR REPLACE INTO edp.sources VALUES (?, ?, ?, ?)", [name, *ref])
        return _readable(reader)

    def default_materialization(self) -> str:
        """Views: rows stay in the lake, and DuckDB's file holds what the models make of them."""
        return "view"

    def _open(self, ref: TableRef) -> DeltaTableReader | ViewReader | None:
        reader = open_table_or_view(ref, lake=self._lake, select=_select, opened=self._opened)
        if self._connection is not None:
            deferred = [list(each) for each, found in self._opened.items() if found.deferred]
            with self._connection.cursor() as cursor:
                for parts in deferred:
                    cursor.execute("INSERT OR IGNORE INTO edp.deferred VALUES (?, ?, ?)", parts)
        return reader


def _select(sql: str, tables: Mapping[TableRef, TableReader]) -> pa.RecordBatchReader:
    return LocalEngine(LocalOptions()).select(sql, tables=tables, variables={})


def _readable(reader: DeltaTableReader | ViewReader) -> Dataset | pa.Table:
    if isinstance(reader, ViewReader):
        return reader.read().read_all()
    return reader.handle.to_pyarrow_dataset() if reader.plain_files is not None else reader.read().read_all()


def _tell_workstream(create: Callable[[RelationConfig], SourceConfig]) -> Callable[[RelationConfig], SourceConfig]:
    def create_from_source(source: RelationConfig) -> SourceConfig:
        config = create(source)
        config.meta[_WORKSTREAM] = getattr(source, "source_name", None)
        return config

    return create_from_source


# dbt-duckdb 1.11 tells a plug-in the table's name and schema, but not the name of the source they stand under.
setattr(SourceConfig, "create_from_source", staticmethod(_tell_workstream(SourceConfig.create_from_source)))  # noqa: B010 - mypy knows it as a method
