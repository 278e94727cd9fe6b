"""Build dbt projects in Databricks, which reads the lake where it lies; what models publish is copied back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import PlatformError, PluginError, StorageError
from platform_core.lake.delta import DeltaTableReader
from platform_core.operations.dbt_deferral import Deferral, missing
from platform_core.operations.dbt_manifest import DbtManifest
from platform_core.operations.dbt_project import DbtProject
from platform_core.operations.dbt_warehouse import Built, Relation, Warehouse, lake_sources
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.environment import DatabricksSpec
from platform_core.specs.table import TableRef

_DIALECT = "databricks"
_BATCH_ROWS = 65_536


class DatabricksWarehouse(Warehouse):
    """A catalogue of Unity Catalog.

    dbt finds the lake's tables where it looks for its sources: schema ``<layer>``, table ``<name>``, an external table
    that is the lake's own. What models publish is read as Arrow, and committed to the lake by the platform.
    """

    def __init__(self, project: DbtProject, platform: Platform, spec: DatabricksSpec) -> None:
        """Keep where it is.

        Raises:
            SecretError: the secret that signs in is missing.
        """
        self._project = project
        self._platform = platform
        self._spec = spec
        reference = spec.token or spec.client_secret
        self._secret = "" if reference is None else platform.secrets.get(reference.secret).reveal().decode()

    def variables(self) -> Mapping[str, str]:
        found = {
            "EDP_DBT_HOST": self._spec.host,
            "EDP_DBT_HTTP_PATH": self._spec.http_path,
            "EDP_DBT_CATALOG": self._spec.catalog,
        }
        if self._spec.client_id is None:
            return {**found, "DBT_ENV_SECRET_TOKEN": self._secret}
        return {**found, "EDP_DBT_CLIENT_ID": self._spec.client_id, "DBT_ENV_SECRET_CLIENT_SECRET": self._secret}

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
                manifest, {*wanted, *built}, self._platform, tested=tested, where="Databricks"
            ):
                self._register(connection, ref, reader)
        return Deferral(built=frozenset(built))

    @contextmanager
    def built(self) -> Iterator[Built]:
        with self._connected() as connection:
            yield _DatabricksBuilt(connection)

    def _register(self, connection: Any, ref: TableRef, reader: TableReader) -> None:
        """Make an external table of a lake table; it is never replaced, for that would empty the lake's."""
        if not isinstance(reader, DeltaTableReader):
            raise StorageError(
                f"{ref} is a view of the lake, which Databricks cannot read\n  read the tables that it is made from"
            )
        wanted = reader.handle.table_uri.rstrip("/")
        table = exp.table_(ref.name, db=ref.layer, quoted=True)
        place = [
            exp.FileFormatProperty(this=exp.Var(this="delta")),
            exp.LocationProperty(this=exp.Literal.string(wanted)),
        ]
        properties = exp.Properties(expressions=place)
        with closing(connection.cursor()) as cursor:
            cursor.execute(
                exp.Create(this=exp.table_(ref.layer, quoted=True), kind="SCHEMA", exists=True).sql(_DIALECT)
            )
            cursor.execute(exp.Create(this=table, kind="TABLE", exists=True, properties=properties).sql(_DIALECT))
            cursor.execute(f"DESCRIBE DETAIL {table.sql(_DIALECT)}")
            names = [column[0] for column in cursor.description]
            [row] = cursor.fetchall()
        found = str(row[names.index("location")]).rstrip("/")
        if found != wanted:
            raise StorageError(
                f"{ref.layer}.{ref.name} of Databricks catalogue {self._spec.catalog} is another table than {ref}\n"
                f"  it lies at {found}, the lake's at {wanted}\n  drop it, or give dbt a catalogue of its own"
            )

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            sql = importlib.import_module("databricks.sql")
        except ImportError:
            raise PluginError(
                f"dbt project {self._project.name}: its target needs dbt-databricks\n"
                "  install it in place of dbt-spark: pip install 'dbt-databricks>=1.12,<1.13'"
            ) from None
        try:
            with closing(
                sql.connect(
                    server_hostname=self._spec.host,
                    http_path=self._spec.http_path,
                    catalog=self._spec.catalog,
                    session_configuration={"timezone": "UTC"},
                    **self._sign_in(),
                )
            ) as connection:
                yield connection
        except PlatformError:
            raise
        except sql.Error as error:
            # The server's own words may hold values of a row.
            state = getattr(error, "sqlstate", None)
            told = f"{type(error).__name__}{f', SQLSTATE {state}' if state else ''}"
            raise StorageError(f"dbt project {self._project.name}: {self._spec.host} refused ({told})") from None

    def _sign_in(self) -> dict[str, Any]:
        if self._spec.client_id is None:
            return {"access_token": self._secret}
        return {"credentials_provider": self._service_principal}

    def _service_principal(self) -> Callable[[], Mapping[str, str]]:
        sdk = importlib.import_module("databricks.sdk.core")
        signed: Callable[[], Mapping[str, str]] = sdk.oauth_service_principal(
            sdk.Config(host=f"https://{self._spec.host}", client_id=self._spec.client_id, client_secret=self._secret)
        )
        return signed


class _DatabricksBuilt(Built):
    dialect = _DIALECT

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def columns(self) -> Mapping[Relation, Mapping[str, str]]:
        return _columns(self._connection)

    def rows(self, relation: Relation) -> pa.RecordBatchReader:
        schema, name = relation
        cursor = self._connection.cursor()
        cursor.execute(exp.select("*").from_(exp.table_(name, db=schema, quoted=True)).sql(_DIALECT))
        first: pa.Table = cursor.fetchmany_arrow(_BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(first.schema, _batches(first, cursor))


def _batches(first: pa.Table, cursor: Any) -> Iterator[pa.RecordBatch]:
    with closing(cursor):
        part = first
        while part.num_rows:
            yield from part.cast(first.schema).to_batches()
            part = cursor.fetchmany_arrow(_BATCH_ROWS)


def _columns(connection: Any) -> dict[Relation, dict[str, str]]:
    found: dict[Relation, dict[str, str]] = {}
    with closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT table_schema, table_name, column_name, full_data_type FROM information_schema.columns "
            "WHERE table_schema <> 'information_schema' ORDER BY table_schema, table_name, ordinal_position"
        )
        for schema, table, column, type_ in cursor.fetchall():
            found.setdefault((schema, table), {})[column] = type_
    return found
