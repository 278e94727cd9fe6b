"""Build dbt projects in a PostgreSQL database: lake tables are copied there, and what models publish is copied back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
from sqlglot import exp

from platform_core.control.database_url import DatabaseUrl, parse_url
from platform_core.errors import PlatformError, StepError, StorageError
from platform_core.operations.dbt_deferral import Deferral, missing
from platform_core.operations.dbt_manifest import DbtManifest
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.dbt_warehouse import Built, Relation, Warehouse, lake_sources
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

_DIALECT = "postgres"
_PORT = 5432
_INCOMING = "edp_incoming_"
_MARK = "edp version "
_UNBOUND = pa.decimal128(38, 10)
"""Of a numeric without a declared size; what does not fit is refused, never rounded."""

_COLUMNS = """
SELECT table_schema, table_name, column_name, data_type, numeric_precision, numeric_scale
FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
ORDER BY table_schema, table_name, ordinal_position
"""
_COMMENT = "SELECT obj_description(to_regclass($1)::oid, 'pg_class')"


class PostgresWarehouse(Warehouse):
    """A schema of a PostgreSQL database that the environment's file names.

    dbt finds the lake's tables where it looks for its sources: schema ``<layer>``, table ``<name>``. They are copied
    when they are newer than the copy.
    """

    def __init__(self, project: DbtProject, platform: Platform) -> None:
        """Find the database.

        Raises:
            StepError: its address is none of PostgreSQL.
            SecretError: its password is missing.
        """
        self._project = project
        self._platform = platform
        name = project.choice.database or ""
        declared = platform.environment.databases[name]
        self._password = (
            None if declared.password is None else platform.secrets.get(declared.password.secret).reveal().decode()
        )
        self._url = _parsed(declared.url or "", project, platform)

    def variables(self) -> Mapping[str, str]:
        found = {
            "EDP_DBT_HOST": self._url.host or "",
            "EDP_DBT_PORT": str(self._url.port or _PORT),
            "EDP_DBT_USER": self._url.user or "",
            "EDP_DBT_DBNAME": self._url.database or "",
        }
        return found if self._password is None else {**found, "DBT_ENV_SECRET_PASSWORD": self._password}

    def prepare(
        self,
        manifest: DbtManifest,
        *,
        wanted: Collection[str],
        tested: Collection[TableRef] = (),
        full_refresh: bool = False,
    ) -> Deferral:
        with self._connected() as connection:
            built = missing(manifest, wanted, present=set(_columns(connection)))
            for ref, reader in lake_sources(
                manifest, {*wanted, *built}, self._platform, tested=tested, where="PostgreSQL"
            ):
                _replace(connection, ref, reader)
                self._platform.log.info("%s: copied to PostgreSQL where it was not there yet", ref)
        return Deferral(built=frozenset(built))

    @contextmanager
    def built(self) -> Iterator[Built]:
        with self._connected() as connection:
            yield _PostgresBuilt(connection)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi

        user = quote(self._url.user or "", safe="")
        secret = "" if self._password is None else f":{quote(self._password, safe='')}"
        place = f"{self._url.host or ''}:{self._url.port or _PORT}/{quote(self._url.database or '', safe='')}"
        try:
            with closing(dbapi.connect(f"postgresql://{user}{secret}@{place}")) as connection:
                yield connection
        except PlatformError:
            raise
        except Error as error:
            # The server's own words may hold values of a row.
            state = getattr(error, "sqlstate", None)
            told = f"{type(error).__name__}{f', SQLSTATE {state}' if state else ''}"
            raise StorageError(f"dbt project {self._project.name}: {self._url} refused ({told})") from None


class _PostgresBuilt(Built):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def columns(self) -> Mapping[Relation, Mapping[str, str]]:
        found = _columns(self._connection)
        return {relation: {name: type_ for name, (type_, _) in columns.items()} for relation, columns in found.items()}

    def rows(self, relation: Relation) -> pa.RecordBatchReader:
        schema, name = relation
        numerics = {column: type_ for column, (_, type_) in _columns(self._connection)[relation].items() if type_}
        query = exp.select("*").from_(exp.table_(name, db=schema, quoted=True))
        cursor = self._connection.cursor()
        cursor.execute(query.sql(dialect=_DIALECT))
        reader = cursor.fetch_record_batch()
        wanted = pa.schema([field.with_type(numerics.get(field.name, field.type)) for field in reader.schema])
        return pa.RecordBatchReader.from_batches(wanted, _plain(reader, wanted, cursor, of=".".join(relation)))


def _plain(reader: pa.RecordBatchReader, schema: pa.Schema, cursor: Any, *, of: str) -> Iterator[pa.RecordBatch]:
    """Batches whose numerics are decimals: the driver gives them as texts of a type of its own."""
    with closing(cursor):
        for batch in reader:
            try:
                arrays = [
                    column.storage.cast(field.type) if isinstance(column, pa.ExtensionArray) else column
                    for column, field in zip(batch.columns, schema, strict=True)
                ]
            except pa.ArrowInvalid:
                # Arrow's words hold the value.
                raise StorageError(
                    f"a numeric of {of} does not fit decimal(38, 10), or the size that is declared\n"
                    "  cast it in the model: cast(x as numeric(18, 2)), or as double precision"
                ) from None
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _columns(connection: Connection) -> dict[Relation, dict[str, tuple[str, pa.DataType | None]]]:
    """Type by column by relation; the second is the decimal type of a numeric."""
    found: dict[Relation, dict[str, tuple[str, pa.DataType | None]]] = {}
    with closing(connection.cursor()) as cursor:
        cursor.execute(_COLUMNS)
        for schema, table, column, type_, precision, scale in cursor.fetchall():
            number = None
            if type_ == "numeric":
                number = _UNBOUND if precision is None or precision > 38 else pa.decimal128(precision, scale)
            found.setdefault((schema, table), {})[column] = (type_, number)
    return found


def _replace(connection: Connection, ref: TableRef, reader: TableReader) -> None:
    """Copy a table in one transaction, unless its copy is of this version: readers see the old rows or the new ones."""
    mark = f"{_MARK}{reader.version}"
    table = exp.table_(ref.name, db=ref.layer, quoted=True)
    arrived = exp.table_(_INCOMING + ref.name, db=ref.layer, quoted=True)
    target, incoming = table.sql(dialect=_DIALECT), arrived.sql(dialect=_DIALECT)
    schema = exp.to_identifier(ref.layer, quoted=True).sql(dialect=_DIALECT)
    with closing(connection.cursor()) as cursor:
        cursor.execute(_COMMENT, (target,))
        [(held,)] = cursor.fetchall()
        if held == mark:
            connection.rollback()
            return
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        cursor.adbc_ingest(_INCOMING + ref.name, reader.read(), mode="replace", db_schema_name=ref.layer)
        # The types of the copy are those of its first version, which views of dbt stand on; a table whose columns
        # have changed is made anew, and with it go the views, which dbt makes again.
        columns = _columns(connection)
        if list(columns.get((ref.layer, ref.name), {}).items()) != list(
            columns[ref.layer, _INCOMING + ref.name].items()
        ):
            cursor.execute(f"DROP TABLE IF EXISTS {target} CASCADE")
            name = exp.to_identifier(ref.name, quoted=True).sql(dialect=_DIALECT)
            cursor.execute(f"ALTER TABLE {incoming} RENAME TO {name}")
        else:
            cursor.execute(exp.delete(table).sql(dialect=_DIALECT))
            cursor.execute(exp.insert(exp.select("*").from_(arrived), table).sql(dialect=_DIALECT))
            cursor.execute(f"DROP TABLE {incoming}")
        cursor.execute(f"COMMENT ON TABLE {target} IS '{mark}'")
    connection.commit()


def _parsed(url: str, project: DbtProject, platform: Platform) -> DatabaseUrl:
    try:
        return parse_url(url, state=platform.state)
    except ValueError as error:
        name = project.choice.database
        raise StepError(f"dbt project {project.name}: url of database '{name}' {error}") from None
